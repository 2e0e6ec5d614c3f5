/* Ranks of the magnitudes of a row equal those of a sort by magnitude and position, whatever the row holds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../src/edit/order.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/rng.h"

enum { LONGEST = 66000 };

static const float *compared;

static int by_magnitude(const void *a, const void *b) {
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    float x = fabsf(compared[left]), y = fabsf(compared[right]);
    if (x != y)
        return x > y ? -1 : 1;
    return left < right ? -1 : 1;
}

static void check_row(const char *what, const float *x, int64_t n) {
    uint32_t *order = dpt_mem_alloc(n, sizeof *order, "test");
    uint32_t *sorted = dpt_mem_alloc(n, sizeof *sorted, "test");
    void *room = dpt_mem_alloc(dpt_edit_order_bytes(n), 1, "test");
    assert_true(order != NULL && sorted != NULL && room != NULL);
    memset(room, 0xa5, (size_t)dpt_edit_order_bytes(n)); /* no row leaves anything for the next */
    for (int64_t i = 0; i < n; i++)
        sorted[i] = (uint32_t)i;
    compared = x;
    qsort(sorted, (size_t)n, sizeof *sorted, by_magnitude);
    dpt_edit_order_row(x, n, order, room);
    for (int64_t i = 0; i < n; i++)
        if (order[sorted[i]] != (uint32_t)i)
            fail_msg("%s, %lld entries: entry %u is number %u, not %lld", what, (long long)n,
                     sorted[i], order[sorted[i]], (long long)i);
    dpt_mem_free(room);
    dpt_mem_free(sorted);
    dpt_mem_free(order);
}

static float to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
    memcpy(&x, &bits, sizeof bits);
    return x;
}

/* Rows of all kinds: share `fine` of the entries in fp32, the others in bf16 or differences of two, or 0. */
static void fill(float *x, int64_t n, int kind, double fine) {
    static float normal[2 * LONGEST], uniform[LONGEST];
    static uint32_t words[LONGEST];
    dpt_rng_normal(dpt_rng_make(3, "values", 0), 0, 2 * n, normal);
    dpt_rng_words(dpt_rng_make(4, "shares", 0), 0, n, words);
    for (int64_t i = 0; i < n; i++) {
        uniform[i] = (float)words[i] * 0x1p-32f;
        float weight = 0.02f * normal[2 * i], after = weight + 2e-4f * normal[2 * i + 1];
        x[i] = to_bf16(after) - to_bf16(weight);
        if (kind == 1)
            x[i] = to_bf16(normal[2 * i]);
        else if (kind == 2)
            x[i] = words[i] % 2 ? 0.0f : words[i] % 3 ? -0.5f : -0.0f;
        else if (kind == 3) /* from the smallest to the largest */
            x[i] = ldexpf(to_bf16(normal[2 * i]), (int)(words[i] % 250) - 124);
        else if (kind == 4) /* below what has bits in the upper half */
            x[i] = (float)(words[i] % 5) * 0x1p-149f;
        if (uniform[i] < fine)
            x[i] += ldexpf(normal[2 * i + 1], kind == 4 ? -130 : -12);
    }
}

static void ranks_equal_a_sort(void **state) {
    (void)state;
    static float x[LONGEST];
    static const int64_t lengths[] = {1,   2,    47,   48,   49,   50,    511,   512,   513,    527,
                                      777, 2048, 4095, 4096, 8191, 20000, 65535, 65536, LONGEST};
    static const double fine[] = {0.0, 0.002, 0.05, 0.2, 0.3, 1.0};
    char what[64];
    for (int kind = 0; kind < 5; kind++)
        for (size_t f = 0; f < sizeof fine / sizeof fine[0]; f++)
            for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++) {
                fill(x, lengths[l], kind, fine[f]);
                snprintf(what, sizeof what, "kind %d, %g of them fine", kind, fine[f]);
                check_row(what, x, lengths[l]);
            }
}

/* One magnitude in all of a row, and one that is the only other. */
static void ties_keep_their_order(void **state) {
    (void)state;
    static float x[3000];
    static const float others[] = {0.0f, 1.0f, 1.00001f, 3e38f, 1e-45f};
    for (size_t o = 0; o < sizeof others / sizeof others[0]; o++)
        for (int at = 0; at < 3000; at += 1499) {
            for (int i = 0; i < 3000; i++)
                x[i] = i % 2 ? 1.0f : -1.0f;
            x[at] = others[o];
            check_row("ties", x, 3000);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(ranks_equal_a_sort),
                                       cmocka_unit_test(ties_keep_their_order)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
