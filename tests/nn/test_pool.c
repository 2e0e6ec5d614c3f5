/* ranks: 1 */
#include "nn/nn_test.h"

#include "deltapath/nn/pool.h"

/** The same problem in double; contiguous arrays. */
typedef struct {
    dpt_pool_shape s;
    double *q, *k, *v, *d_o, *p, *o;
} reference;

static double pool_loss(void *context) {
    reference *r = context;
    int64_t n = r->s.n, hd = r->s.hd, w = r->s.heads * hd;
    double loss = 0.0;
    for (int64_t j = 0; j < r->s.heads; j++) {
        double *p = r->p + j * n, sum = 0.0, max = -INFINITY;
        for (int64_t l = 0; l < n; l++) {
            p[l] = 0.0;
            for (int64_t c = j * hd; c < (j + 1) * hd; c++)
                p[l] += (double)r->s.scale * r->q[c] * r->k[l * w + c];
            max = fmax(max, p[l]);
        }
        for (int64_t l = 0; l < n; l++)
            sum += p[l] = exp(p[l] - max);
        for (int64_t c = j * hd; c < (j + 1) * hd; c++) {
            r->o[c] = 0.0;
            for (int64_t l = 0; l < n; l++)
                r->o[c] += p[l] / sum * r->v[l * w + c];
            loss += r->o[c] * r->d_o[c];
        }
    }
    return loss;
}

/* Gaps between the rows of k and v: nothing is read or written there. */
static double *without_gaps(int64_t n, int64_t w, int64_t ld, const float *x) {
    double *out = nn_doubles(n * w);
    for (int64_t i = 0; i < n * w; i++)
        out[i] = (double)x[i / w * ld + i % w];
    return out;
}

static void check_pool(int64_t n, int64_t heads, int64_t hd, double size) {
    int64_t w = heads * hd, ldk = w + 3, ldv = w + 1;
    dpt_pool_shape s = {n, heads, hd, ldk, ldv, 0.7F};
    float *q = nn_floats(w, size, 1), *k = nn_floats(n * ldk, size, 2);
    float *v = nn_floats(n * ldv, 1, 3), *d_o = nn_floats(w, 1, 4);
    float *p = nn_floats(heads * n, 1, 5), *o = nn_floats(w, 1, 6), *dq = nn_floats(w, 1, 7);
    float *dk = nn_floats(n * ldk, 1, 8), *dv = nn_floats(n * ldv, 1, 9);
    reference r = {.s = s,
                   .q = nn_widen(w, q),
                   .k = without_gaps(n, w, ldk, k),
                   .v = without_gaps(n, w, ldv, v),
                   .d_o = nn_widen(w, d_o),
                   .p = nn_doubles(heads * n),
                   .o = nn_doubles(w)};
    double *wq = nn_finite_difference(pool_loss, &r, r.q, w);
    double *wk = nn_finite_difference(pool_loss, &r, r.k, n * w);
    double *wv = nn_finite_difference(pool_loss, &r, r.v, n * w);
    float gap = dk[w];
    pool_loss(&r);
    dpt_nn_pool_forward(&s, q, k, v, p, o);
    nn_assert_near(1, w, o, w, r.o, 2e-6);
    dpt_nn_pool_backward(&s, q, k, v, p, o, d_o, dq, dk, dv);
    nn_assert_near(1, w, dq, w, wq, 5e-6);
    nn_assert_near(n, w, dk, ldk, wk, 5e-6);
    nn_assert_near(n, w, dv, ldv, wv, 5e-6);
    assert_true(n * w == 0 || dk[w] == gap);
    void *all[] = {q, k, v, d_o, p, o, dq, dk, dv, r.q, r.k, r.v, r.d_o, r.p, r.o, wq, wk, wv};
    for (int64_t i = 0; i < NN_COUNT(all); i++)
        test_free(all[i]);
}

static void matches_finite_differences(void **state) {
    (void)state;
    check_pool(1, 1, 1, 1.0);
    check_pool(7, 2, 3, 1.0);
    check_pool(65, 3, 5, 2.0);
    check_pool(5, 0, 4, 1.0); /* a rank without heads */
}

static void extreme_scores_stay_finite(void **state) {
    (void)state;
    float q[2] = {1e19F, -1e19F}, k[4] = {1e18F, 1e18F, -1e18F, 1e18F}, v[4] = {1, 2, 3, 4};
    float p[2], o[2], d_o[2] = {1, 1}, dq[2], dk[4], dv[4];
    dpt_pool_shape s = {2, 1, 2, 2, 2, 1.0F};
    dpt_nn_pool_forward(&s, q, k, v, p, o);
    dpt_nn_pool_backward(&s, q, k, v, p, o, d_o, dq, dk, dv);
    assert_true(p[0] == 1.0F && p[1] == 0.0F && o[0] == 1.0F && o[1] == 2.0F);
    for (int i = 0; i < 2; i++)
        assert_true(isfinite(dq[i]) && isfinite(dk[i]) && isfinite(dv[i]));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_finite_differences),
        cmocka_unit_test(extreme_scores_stay_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
