/* ranks: 1 */
#include "nn/nn_test.h"

#include <string.h>

#include "deltapath/nn/linear.h"

typedef struct {
    int64_t T, N, K;
    double *x, *w, *b, *dy;
} reference;

/** sum_{t,n} dy y, with y = x w^T + b. */
static double linear_loss(void *context) {
    reference *r = context;
    double loss = 0.0;
    for (int64_t t = 0; t < r->T; t++)
        for (int64_t n = 0; n < r->N; n++) {
            double y = r->b[n];
            for (int64_t k = 0; k < r->K; k++)
                y += r->x[t * r->K + k] * r->w[n * r->K + k];
            loss += r->dy[t * r->N + n] * y;
        }
    return loss;
}

static void check_gradients(int64_t T, int64_t N, int64_t K) {
    float *x = nn_floats(T * K, 1, 1), *w = nn_floats(N * K, 1, 2), *b = nn_floats(N, 1, 3);
    float *dy = nn_floats(T * N, 1, 4), *dx = nn_floats(T * K, 1, 5), *dw = nn_floats(N * K, 1, 6);
    float *db = nn_floats(N, 1, 7), *y = nn_floats(T * N, 1, 8);
    reference r = {T, N, K, nn_widen(T * K, x), nn_widen(N * K, w), nn_widen(N, b), NULL};
    r.dy = nn_widen(T * N, dy);

    dpt_nn_linear_forward(T, N, K, x, K, w, K, b, y, N);
    double loss = 0.0, want = linear_loss(&r);
    for (int64_t i = 0; i < T * N; i++)
        loss += (double)dy[i] * (double)y[i];
    assert_true(fabs(loss - want) <= 1e-5 * (1.0 + fabs(want)));

    double *gx = nn_finite_difference(linear_loss, &r, r.x, T * K);
    double *gw = nn_finite_difference(linear_loss, &r, r.w, N * K);
    double *gb = nn_finite_difference(linear_loss, &r, r.b, N);
    dpt_nn_linear_backward_input(T, N, K, dy, N, w, K, false, dx, K);
    dpt_nn_linear_backward_weight(T, N, K, dy, N, x, K, false, dw, K);
    dpt_nn_linear_backward_bias(T, N, dy, N, false, db);
    nn_assert_near(T, K, dx, K, gx, 1e-5);
    nn_assert_near(N, K, dw, K, gw, 1e-5);
    nn_assert_near(1, N, db, N, gb, 1e-5);

    /* A second call that accumulates doubles every gradient. */
    dpt_nn_linear_backward_input(T, N, K, dy, N, w, K, true, dx, K);
    dpt_nn_linear_backward_weight(T, N, K, dy, N, x, K, true, dw, K);
    dpt_nn_linear_backward_bias(T, N, dy, N, true, db);
    for (int64_t i = 0; i < T * K; i++)
        gx[i] *= 2.0;
    for (int64_t i = 0; i < N * K; i++)
        gw[i] *= 2.0;
    for (int64_t i = 0; i < N; i++)
        gb[i] *= 2.0;
    nn_assert_near(T, K, dx, K, gx, 1e-5);
    nn_assert_near(N, K, dw, K, gw, 1e-5);
    nn_assert_near(1, N, db, N, gb, 1e-5);

    void *all[] = {x, w, b, dy, dx, dw, db, y, r.x, r.w, r.b, r.dy, gx, gw, gb};
    for (int64_t i = 0; i < NN_COUNT(all); i++)
        test_free(all[i]);
}

static void gradients_match_finite_differences(void **state) {
    (void)state;
    const int64_t shapes[][3] = {{1, 1, 1}, {3, 5, 7}, {17, 4, 9}, {6, 300, 3},
                                 {0, 4, 3}, {4, 0, 3}, {4, 3, 0},  {0, 0, 0}};
    for (int64_t i = 0; i < NN_COUNT(shapes); i++)
        check_gradients(shapes[i][0], shapes[i][1], shapes[i][2]);
}

static void check_terms(int64_t T, int64_t N, int64_t K) {
    /* Leading dimensions above the row lengths: the gaps must not matter. */
    int64_t lddy = N + 3, ldx = K + 2, lde = K + 5;
    float *dy = nn_floats(T * lddy, 1, 1), *x = nn_floats(T * ldx, 1, 2);
    float *e = nn_floats(N * lde, 1, 3), *be = nn_floats(N, 1, 4);
    float *scratch = nn_floats((int64_t)dpt_nn_linear_terms_scratch(T, N), 1, 5);
    double *term = nn_doubles(T), *bias_term = nn_doubles(T);
    double *want = nn_doubles(T), *bias_want = nn_doubles(T);
    assert_true(dpt_nn_linear_terms_scratch(T, N) <= (size_t)1 << 19);
    for (int64_t t = 0; t < T; t++) {
        term[t] = want[t] = 0.25 * (double)t;
        for (int64_t n = 0; n < N; n++) {
            double z = 0.0;
            for (int64_t k = 0; k < K; k++)
                z += (double)x[t * ldx + k] * (double)e[n * lde + k];
            want[t] += (double)dy[t * lddy + n] * z;
            bias_want[t] += (double)dy[t * lddy + n] * (double)be[n];
        }
    }
    dpt_nn_linear_terms(T, N, K, dy, lddy, x, ldx, e, lde, scratch, term);
    dpt_nn_linear_bias_terms(T, N, dy, lddy, be, bias_term);
    nn_assert_near_double(T, term, want, 1e-6);
    nn_assert_near_double(T, bias_term, bias_want, 1e-12);
    void *all[] = {dy, x, e, be, scratch, term, bias_term, want, bias_want};
    for (int64_t i = 0; i < NN_COUNT(all); i++)
        test_free(all[i]);
}

static void terms_match_definition(void **state) {
    (void)state;
    check_terms(5, 3, 4);
    check_terms(1030, 520, 6); /* more than one block in both directions */
    check_terms(0, 3, 4);
    check_terms(3, 0, 4);
    check_terms(3, 4, 0);
}

static void terms_sum_to_gradient_product(void **state) {
    (void)state;
    const int64_t T = 19, N = 11, K = 13;
    float *dy = nn_floats(T * N, 1, 1), *x = nn_floats(T * K, 1, 2), *e = nn_floats(N * K, 1, 3);
    float *dw = nn_floats(N * K, 1, 4), *scratch = nn_floats(T * N, 1, 5);
    double term[19] = {0}, sum = 0.0, product = 0.0;
    dpt_nn_linear_terms(T, N, K, dy, N, x, K, e, K, scratch, term);
    dpt_nn_linear_backward_weight(T, N, K, dy, N, x, K, false, dw, K);
    for (int64_t t = 0; t < T; t++)
        sum += term[t];
    for (int64_t i = 0; i < N * K; i++)
        product += (double)dw[i] * (double)e[i];
    assert_true(fabs(sum - product) <= 1e-5 * (1.0 + fabs(product)));
    test_free(dy);
    test_free(x);
    test_free(e);
    test_free(dw);
    test_free(scratch);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_match_finite_differences),
        cmocka_unit_test(terms_match_definition),
        cmocka_unit_test(terms_sum_to_gradient_product),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
