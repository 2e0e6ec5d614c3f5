/* ranks: 1 2 3 4 */
/* Deltas from the least number of fp32 to the largest, by all methods, of a rank or an energy; and leading triplets of a
 * decomposition. P?GESVD in double of the scaled matrix judges. */
#include "support/test_mpi.h"

#include "deltapath/base/rng.h"
#include "deltapath/linalg/svd.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct subject {
    int64_t rows, cols, side, first, own; /* rows of this rank */
    float *a;                             /* (rows, cols), integers */
    dpt_svd all;
} subject;

static dpt_status compute(const subject *m, const float *a, const dpt_svd_options *options,
                          dpt_svd *out) {
    return dpt_svd_compute(&test_comm, m->rows, m->cols, m->own, a + m->first * m->cols, options,
                           out);
}

/* Integers, with a gap after five singular values. */
static subject subject_make(int64_t rows, int64_t cols) {
    subject m = {.rows = rows, .cols = cols, .side = rows < cols ? rows : cols};
    m.first = rows * test_comm.rank / test_comm.size;
    m.own = rows * (test_comm.rank + 1) / test_comm.size - m.first;
    m.a = malloc((size_t)(rows * cols) * sizeof *m.a);
    dpt_rng_normal(dpt_rng_make(7, "scales", DPT_RNG_SKETCH), 0, rows * cols, m.a);
    for (int64_t e = 0; e < rows * cols; e++)
        m.a[e] = roundf(roundf(m.a[e] * 20.0f) * (e % cols < 5 ? 1.0f : 0.25f));
    dpt_svd_options options = {.method = DPT_SVD_REFERENCE, .rank = m.side, .name = "judge"};
    assert_int_equal(compute(&m, m.a, &options, &m.all), DPT_OK);
    return m;
}

static void subject_free(subject *m) {
    dpt_svd_destroy(&m->all);
    free(m->a);
}

/* The matrix times 2^exponent, to be freed. */
static float *scaled(const subject *m, int exponent) {
    float *a = malloc((size_t)(m->rows * m->cols) * sizeof *a);
    for (int64_t e = 0; e < m->rows * m->cols; e++)
        a[e] = ldexpf(m->a[e], exponent);
    return a;
}

/* What is left by so many triplets, and the share of the squared norm that these have. */
static double best_of(const subject *m, int64_t rank, double *energy) {
    double left = 0.0, square = m->all.norm * m->all.norm;
    for (int64_t i = m->side - 1; i >= rank; i--)
        left += m->all.s[i] * m->all.s[i];
    *energy = 1.0 - left / square;
    return sqrt(left);
}

/* |A - U S V^T|_F in the scale of the integers. */
static double apart(const subject *m, const float *a, int exponent, const dpt_svd *svd) {
    double square = 0.0;
    float *made = malloc((size_t)(m->own * m->cols + 1) * sizeof *made);
    dpt_svd_product(svd, m->cols, 0, m->own, made);
    for (int64_t e = 0; e < m->own * m->cols; e++) {
        double d = (double)made[e] - (double)a[m->first * m->cols + e];
        square += ldexp(d, -exponent) * ldexp(d, -exponent);
    }
    free(made);
    assert_int_equal(dpt_comm_sum_f64(&test_comm, &square, 1), DPT_OK);
    return sqrt(square);
}

/* Of a product whose entries are rounded to multiples of the least number. */
static double grain(const subject *m, int exponent) {
    return ldexp(0.5 * sqrt((double)(m->rows * m->cols)), -149 - exponent);
}

static void check_scale(int64_t rows, int64_t cols, dpt_svd_options options, dpt_svd_method used) {
    static const int exponents[] = {-149, -148, -130, 0, 118, 120};
    subject m = subject_make(rows, cols);
    double energy, best = best_of(&m, 5, &energy), excess = used == DPT_SVD_RANDOM ? 1e-3 : 1e-6;
    double least = m.all.s[4] / m.all.norm * (m.all.s[4] / m.all.norm);
    options.name = "scale";
    if (options.rank == 0)
        options.energy = energy - 0.5 * least;
    for (size_t i = 0; i < sizeof exponents / sizeof exponents[0]; i++) {
        int exponent = exponents[i];
        float *a = scaled(&m, exponent);
        dpt_svd svd;
        if (compute(&m, a, &options, &svd) != DPT_OK)
            fail_msg("2^%d: %s", exponent, dpt_error_message());
        assert_int_equal(svd.used, used);
        assert_int_equal(svd.rank, 5);
        for (int k = 0; k < 5; k++)
            assert_true(fabs(ldexp(svd.s[k], -exponent) - m.all.s[k]) <= 2.0 * excess * m.all.s[0]);
        assert_true(fabs(ldexp(svd.norm, -exponent) - m.all.norm) <= 1e-9 * m.all.norm);
        assert_true(fabs(ldexp(svd.residual, -exponent) - best) <= excess * m.all.norm);
        assert_true(apart(&m, a, exponent, &svd) <=
                    best + excess * m.all.norm + grain(&m, exponent));
        dpt_svd_destroy(&svd);
        free(a);
    }
    subject_free(&m);
}

static void all_methods_at_all_scales(void **state) {
    (void)state;
    const dpt_svd_options automatic = {.method = DPT_SVD_AUTO, .rank = 5},
                          random = {.method = DPT_SVD_RANDOM, .rank = 5},
                          exact = {.method = DPT_SVD_EXACT, .rank = 5},
                          energy = {.method = DPT_SVD_AUTO};
    check_scale(270, 260, automatic, DPT_SVD_RANDOM);
    check_scale(70, 60, automatic, DPT_SVD_EXACT);
    check_scale(70, 60, energy, DPT_SVD_EXACT);
    check_scale(70, 60, random, DPT_SVD_RANDOM);
    check_scale(40, 90, energy, DPT_SVD_EXACT);
    check_scale(40, 90, random, DPT_SVD_RANDOM);
    check_scale(40, 90, exact, DPT_SVD_EXACT); /* through the transpose */
}

/* One decomposition cut to fewer and fewer triplets. */
static void cut_triplets_lead(void **state) {
    (void)state;
    static const int exponents[] = {-149, -120, 0, 120};
    subject m = subject_make(60, 50);
    for (int i = 0; i < 4; i++) {
        float *a = scaled(&m, exponents[i]);
        dpt_svd svd, all;
        dpt_svd_options options = {.method = DPT_SVD_EXACT, .rank = 20, .name = "cut"};
        assert_int_equal(compute(&m, a, &options, &svd), DPT_OK);
        assert_int_equal(compute(&m, a, &options, &all), DPT_OK);
        for (int64_t k = 20; k >= 1; k -= k > 5 ? 6 : 1) {
            double energy, best = best_of(&m, k, &energy);
            double residual = dpt_svd_residual_of(&all, k);
            dpt_svd_cut(&svd, m.cols, m.own, k);
            assert_int_equal(svd.rank, k);
            assert_int_equal(dpt_svd_rank_of(&all, energy * (1.0 - 1e-5)), k);
            assert_true(fabs(svd.residual - residual) <= 1e-12 * residual);
            assert_true(fabs(ldexp(residual, -exponents[i]) - best) <= 2e-6 * m.all.norm);
            double made = apart(&m, a, exponents[i], &svd);
            assert_true(fabs(made - best) <= 3e-6 * m.all.norm + grain(&m, exponents[i]));
            assert_true(memcmp(svd.s, all.s, (size_t)k * sizeof *svd.s) == 0);
            for (int64_t j = 0; j < m.own * k; j++)
                assert_true(svd.u[j] == all.u[j / k * all.rank + j % k]);
            for (int64_t j = 0; j < m.cols * k; j++)
                assert_true(svd.v[j] == all.v[j / k * all.rank + j % k]);
        }
        dpt_svd_destroy(&svd);
        dpt_svd_destroy(&all);
        free(a);
    }
    subject_free(&m);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_methods_at_all_scales),
                                       cmocka_unit_test(cut_triplets_lead)};
    return test_mpi_main(argc, argv, tests);
}
