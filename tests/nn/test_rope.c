/* ranks: 1 */
#include "nn/nn_test.h"

#include <string.h>

#include "deltapath/nn/rope.h"
#include "golden/rope_golden.h"

static void frequencies_match_transformers(void **state) {
    (void)state;
    for (int64_t i = 0; i < NN_COUNT(golden_cases); i++) {
        const dpt_rope_params *params = &golden_cases[i].params;
        int64_t half = golden_cases[i].half;
        float freq[64];
        assert_int_equal(dpt_nn_rope_half(params), half);
        dpt_nn_rope_inv_freq(params, golden_length, freq);
        /* 4 units in the last place: torch's vectorised pow is not correctly rounded. */
        for (int64_t h = 0; h < half; h++)
            assert_true(fabsf(freq[h] - golden_cases[i].freq[h]) <= 4.8e-7f * freq[h]);
    }
}

static void scales_match_transformers(void **state) {
    (void)state;
    for (int64_t i = 0; i < NN_COUNT(golden_cases); i++)
        assert_true(fabs(dpt_nn_rope_scale(&golden_cases[i].params) - golden_cases[i].scale) <
                    1e-14);
}

static void tables_match_transformers(void **state) {
    (void)state;
    int64_t n = golden_length;
    float *c = nn_floats(n * 64, 1, 1), *s = nn_floats(n * 64, 1, 2);
    for (int64_t i = 0; i < NN_COUNT(golden_cases); i++) {
        int64_t half = golden_cases[i].half;
        float scale = (float)golden_cases[i].scale, eps = 1.2e-7f * scale;
        dpt_nn_rope_table(n, half, golden_cases[i].freq, scale, c, s);
        for (int64_t k = 0; k < NN_COUNT(golden_positions); k++)
            for (int64_t h = 0; h < half; h++) {
                int64_t at = golden_positions[k] * half + h;
                assert_true(fabsf(c[at] - golden_cases[i].cos[k * half + h]) <= eps);
                assert_true(fabsf(s[at] - golden_cases[i].sin[k * half + h]) <= eps);
            }
    }
    test_free(c);
    test_free(s);
}

/** The convention in its own words: y = x cos + rotate_half(x) sin, with doubled tables. */
static void rotate_reference(int64_t head_dim, int64_t half, const float *c, const float *s,
                             const float *x, double *y) {
    for (int64_t i = 0; i < head_dim; i++) {
        if (i >= 2 * half) {
            y[i] = (double)x[i];
            continue;
        }
        double turned = i < half ? -(double)x[i + half] : (double)x[i - half];
        y[i] = (double)x[i] * (double)c[i % half] + turned * (double)s[i % half];
    }
}

static void packed_sequences_restart_at_position_zero(void **state) {
    (void)state;
    enum { HEADS = 3, HEAD_DIM = 10, HALF = 4, LD = HEADS * HEAD_DIM + 1, ROWS = 9 };
    const int64_t offsets[] = {0, 4, 4, 5, 9}; /* an empty sequence among them */
    dpt_rope_params params = {.dim = 2 * HALF, .theta = 100.0};
    float freq[HALF], c[4 * HALF], s[4 * HALF];
    dpt_nn_rope_inv_freq(&params, 4, freq);
    dpt_nn_rope_table(4, HALF, freq, 1.25f, c, s);
    float *x = nn_floats(ROWS * LD, 1, 1), *y = nn_floats(ROWS * LD, 1, 1);
    dpt_nn_rope_forward(4, offsets, HEADS, HEAD_DIM, HALF, c, s, y, LD);
    for (int64_t q = 0; q < 4; q++)
        for (int64_t t = offsets[q]; t < offsets[q + 1]; t++)
            for (int64_t j = 0; j < HEADS; j++) {
                int64_t p = t - offsets[q];
                double want[HEAD_DIM];
                const float *got = y + t * LD + j * HEAD_DIM;
                rotate_reference(HEAD_DIM, HALF, c + p * HALF, s + p * HALF,
                                 x + t * LD + j * HEAD_DIM, want);
                nn_assert_near(1, HEAD_DIM, got, HEAD_DIM, want, 1e-6);
            }

    /* The backward pass is the transpose: <R x, d> = <x, R^T d>. */
    float *d = nn_floats(ROWS * LD, 1, 2);
    double left = 0.0, right = 0.0;
    for (int64_t i = 0; i < ROWS * LD; i++)
        left += (double)y[i] * (double)d[i];
    dpt_nn_rope_backward(4, offsets, HEADS, HEAD_DIM, HALF, c, s, d, LD);
    for (int64_t i = 0; i < ROWS * LD; i++)
        right += (double)x[i] * (double)d[i];
    assert_true(fabs(left - right) < 1e-5 * fabs(left));
    test_free(x);
    test_free(y);
    test_free(d);
}

static void nothing_to_rotate(void **state) {
    (void)state;
    const int64_t offsets[] = {0, 0};
    float x = 3.0f;
    dpt_nn_rope_forward(0, offsets, 2, 4, 2, NULL, NULL, &x, 8);
    dpt_nn_rope_forward(1, offsets, 2, 4, 2, NULL, NULL, &x, 8);
    dpt_nn_rope_backward(1, offsets, 0, 4, 2, NULL, NULL, &x, 0);
    assert_true(x == 3.0f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frequencies_match_transformers),
        cmocka_unit_test(scales_match_transformers),
        cmocka_unit_test(tables_match_transformers),
        cmocka_unit_test(packed_sequences_restart_at_position_zero),
        cmocka_unit_test(nothing_to_rotate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
