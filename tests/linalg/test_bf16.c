/* Products in bf16 against double, of even and ragged shapes. */
#include "support/test_mpi.h"

#include "deltapath/linalg/bf16.h"
#include "deltapath/tensor/dtype.h"

#include <math.h>
#include <stdlib.h>

static uint32_t state = 1;

/* Values between -1 and 1 that bf16 holds. */
static uint16_t *make(int64_t n) {
    uint16_t *out = malloc((size_t)(n + 1) * sizeof *out);
    for (int64_t i = 0; i < n; i++) {
        state = state * 1664525U + 1013904223U;
        float value = (float)(state >> 8) * 0x1p-23F - 1.0F;
        dpt_dtype_from_f32(DPT_BF16, &value, out + i, 1);
    }
    return out;
}

static double at(const uint16_t *a, int64_t i) {
    float value;
    dpt_dtype_to_f32(DPT_BF16, a + i, &value, 1);
    return (double)value;
}

static void check_shape(dpt_bf16 *bf16, dpt_bf16_shape s) {
    uint16_t *a = make(s.M * s.K), *b = make(s.K * s.N);
    float *c = malloc((size_t)(s.M * s.N + 1) * sizeof *c);
    for (int64_t i = 0; i <= s.M * s.N; i++)
        c[i] = 0.25F;
    dpt_bf16_multiply(bf16, &s, a, b, c);
    assert_int_equal(dpt_bf16_get_status(bf16), DPT_OK);
    for (int64_t m = 0; m < s.M; m++)
        for (int64_t n = 0; n < s.N; n++) {
            double sum = s.add ? 0.25 : 0.0, size = fabs(sum);
            for (int64_t k = 0; k < s.K; k++) {
                double product = at(a, s.trans_a ? k * s.M + m : m * s.K + k) *
                                 at(b, s.trans_b ? n * s.K + k : k * s.N + n);
                sum += product;
                size += fabs(product);
            }
            if (!(fabs((double)c[m * s.N + n] - sum) <= 4e-7 * size)) /* fp32, not bf16 */
                fail_msg("%d x %d x %d (%d%d%d%d): %.9g in place of %.9g", (int)s.M, (int)s.N,
                         (int)s.K, s.trans_a, s.trans_b, s.add, s.uneven, (double)c[m * s.N + n],
                         sum);
        }
    assert_true(c[s.M * s.N] == 0.25F);
    free(a);
    free(b);
    free(c);
}

static bool is_there(void) {
    return dpt_bf16_find_speed() != DPT_BF16_NONE;
}

static void test_products(void **s) {
    (void)s;
    static const int64_t sides[][3] = {{64, 64, 64}, {1, 1, 1},     {13, 5, 7}, {37, 96, 33},
                                       {1, 96, 200}, {70, 1, 31},   {0, 4, 4},  {4, 0, 4},
                                       {4, 4, 0},    {129, 48, 130}};
    dpt_bf16 *bf16;
    if (!is_there())
        skip();
    assert_int_equal(dpt_bf16_create(&bf16), DPT_OK);
    for (size_t i = 0; i < sizeof sides / sizeof *sides; i++)
        for (int kind = 0; kind < 16; kind++)
            check_shape(bf16, (dpt_bf16_shape){.M = sides[i][0],
                                               .N = sides[i][1],
                                               .K = sides[i][2],
                                               .trans_a = kind & 1,
                                               .trans_b = kind & 2,
                                               .add = kind & 4,
                                               .uneven = kind & 8});
    dpt_bf16_destroy(bf16);
}

/* Inner sizes at which oneDNN's kernels have one whole block and a ragged one: of 63 some of these end in an illegal
 * instruction with AMX. */
static void test_inner_sizes(void **s) {
    (void)s;
    static const int64_t sides[][2] = {{70, 17}, {41, 65}, {20, 80}, {129, 33}, {72, 576}};
    dpt_bf16 *bf16;
    if (!is_there())
        skip();
    assert_int_equal(dpt_bf16_create(&bf16), DPT_OK);
    for (size_t i = 0; i < sizeof sides / sizeof *sides; i++)
        for (int64_t k = 61; k <= 65; k++)
            for (int kind = 0; kind < 8; kind++)
                check_shape(bf16, (dpt_bf16_shape){.M = sides[i][0],
                                                   .N = sides[i][1],
                                                   .K = k,
                                                   .trans_a = kind & 1,
                                                   .trans_b = kind & 2,
                                                   .add = kind & 4});
    dpt_bf16_destroy(bf16);
}

/* More shapes than are kept; each has its own product, also when it comes back. */
static void test_many_shapes(void **s) {
    (void)s;
    dpt_bf16 *bf16;
    if (!is_there())
        skip();
    assert_int_equal(dpt_bf16_create(&bf16), DPT_OK);
    for (int64_t round = 0; round < 2; round++)
        for (int64_t m = 1; m <= 600; m++)
            check_shape(bf16, (dpt_bf16_shape){.M = m, .N = 3, .K = 5, .trans_b = true});
    assert_true(dpt_bf16_count(bf16) == 1200);
    dpt_bf16_destroy(bf16);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_products),
                                       cmocka_unit_test(test_inner_sizes),
                                       cmocka_unit_test(test_many_shapes)};
    return test_mpi_main(argc, argv, tests);
}
