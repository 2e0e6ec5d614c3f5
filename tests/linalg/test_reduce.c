/* ranks: 1 2 3 4 */
#include "support/test_mpi.h"

#include "deltapath/linalg/reduce.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 100003 };
static float x[N];
static float y[N];

static void fill(void) {
    uint32_t s = 1;
    for (int i = 0; i < N; i++) {
        s = s * 1664525 + 1013904223;
        x[i] = ((float)(s >> 8) - 8388608.0F) * 0x1p-20F;
        s = s * 1664525 + 1013904223;
        y[i] = ldexpf((float)(s >> 8) - 8388608.0F, (int)(s % 40) - 50);
    }
}

/* The stated order, element by element: lane i % 16, then the tree of pairs 8, 4, 2, 1 apart. */
static double in_order(const float *a, const float *b, int64_t n) {
    volatile double lane[16] = {0};
    for (int64_t i = 0; i < n; i++) {
        lane[i % 16] += b == NULL ? fabs((double)a[i]) : (double)a[i] * (double)b[i];
    }
    for (int half = 8; half > 0; half /= 2)
        for (int l = 0; l < half; l++)
            lane[l] += lane[l + half];
    return lane[0];
}

static void sums_have_the_stated_order(void **state) {
    (void)state;
    fill();
    static const int64_t lengths[] = {0, 1, 7, 15, 16, 17, 31, 32, 33, 1000, N - 3};
    for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++)
        for (int shift = 0; shift < 3; shift++) {
            const float *a = x + shift;
            const float *b = y + shift;
            int64_t n = lengths[l];
            assert_true(dpt_reduce_abs(b, n) == in_order(b, NULL, n));
            assert_true(dpt_reduce_square(b, n) == in_order(b, b, n));
            assert_true(dpt_reduce_dot(a, b, n) == in_order(a, b, n));
        }
}

static void sums_are_right(void **state) {
    (void)state;
    fill();
    long double abs = 0, square = 0, dot = 0;
    for (int i = 0; i < N; i++) {
        abs += fabsl((long double)x[i]);
        square += (long double)x[i] * (long double)x[i];
        dot += (long double)x[i] * (long double)y[i];
    }
    assert_true(fabsl((long double)dpt_reduce_abs(x, N) - abs) < 1e-13L * abs);
    assert_true(fabsl((long double)dpt_reduce_square(x, N) - square) < 1e-13L * square);
    assert_true(fabsl((long double)dpt_reduce_dot(x, y, N) - dot) < 1e-11L * fabsl(dot) + 1e-12L);
    assert_true(isnan(dpt_reduce_abs((float[]){1, NAN, 2}, 3)));
    assert_true(dpt_reduce_abs(NULL, 0) == 0);
}

/* Slots owned by ranks in turn; totals must be those of one rank, to the bit. */
static void totals_do_not_depend_on_ranks(void **state) {
    (void)state;
    fill();
    enum { GROUPS = 5, SLOTS = 301 };
    static const int64_t first[GROUPS + 1] = {0, 0, 1, 100, 100, SLOTS};
    double partial[SLOTS] = {0};
    double totals[GROUPS];
    for (int i = 0; i < SLOTS; i++)
        if (i % test_comm.size == test_comm.rank)
            partial[i] = i == 0 ? -0.0 : (double)y[i] * (double)y[i + 7];
    assert_int_equal(dpt_reduce_totals(&test_comm, GROUPS, first, partial, totals), DPT_OK);
    for (int g = 0; g < GROUPS; g++) {
        volatile double expected = 0;
        for (int64_t i = first[g]; i < first[g + 1]; i++)
            expected += i == 0 ? 0.0 : (double)y[i] * (double)y[i + 7];
        assert_memory_equal(&totals[g], (const void *)&expected, sizeof expected);
    }
    assert_false(signbit(partial[0]));
    assert_int_equal(dpt_reduce_totals(&test_comm, 0, NULL, NULL, NULL), DPT_OK);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_have_the_stated_order),
        cmocka_unit_test(sums_are_right),
        cmocka_unit_test(totals_do_not_depend_on_ranks),
    };
    return test_mpi_main(argc, argv, tests);
}
