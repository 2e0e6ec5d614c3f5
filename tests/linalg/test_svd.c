/* ranks: 1 2 3 4 */
/* Every method against DGESDD on the gathered matrix. */
#include "slabs.h"
#include "support/test_mpi.h"

#include "deltapath/base/rng.h"
#include "deltapath/linalg/svd.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef enum { DECAYING, FLAT, DEFICIENT, STEEP, SLOW, DOMINANT } spectrum;

/* A whole on every rank, and what LAPACK says of it. */
typedef struct {
    int64_t rows, cols, side;
    float *a;
    double *s, *u, *vt; /* column-major u (rows, side), vt (side, cols) */
    double norm;
} subject;

static double value_of(spectrum kind, int64_t i, int64_t side) {
    switch (kind) {
    case DECAYING:
        return pow(0.8, (double)i);
    case FLAT:
        return 1.0;
    case DEFICIENT:
        return i < 7 && i < side ? 2.0 - 0.1 * (double)i : 0.0;
    case STEEP:
        return pow(0.1, (double)i);
    case DOMINANT:
        return i == 0 ? 1000.0 : pow((double)i + 1.0, -0.3);
    case SLOW:
        break;
    }
    return 1.0 / (1.0 + 0.02 * (double)i);
}

/* Random orthonormal columns (n, k), column-major. */
static void random_basis(int64_t n, int64_t k, const char *name, double *q) {
    float *x = malloc((size_t)(n * k) * sizeof *x);
    double *tau = malloc((size_t)k * sizeof *tau);
    dpt_rng_normal(dpt_rng_make(1, name, DPT_RNG_SKETCH), 0, n * k, x);
    for (int64_t e = 0; e < n * k; e++)
        q[e] = x[e];
    LAPACKE_dgeqrf(LAPACK_COL_MAJOR, (int)n, (int)k, q, (int)n, tau);
    LAPACKE_dorgqr(LAPACK_COL_MAJOR, (int)n, (int)k, (int)k, q, (int)n, tau);
    free(tau);
    free(x);
}

static void subject_from(subject *m) {
    int64_t count = m->rows * m->cols;
    double *work = malloc((size_t)count * sizeof *work);
    m->s = malloc((size_t)m->side * sizeof *m->s);
    m->u = malloc((size_t)(m->rows * m->side) * sizeof *m->u);
    m->vt = malloc((size_t)(m->side * m->cols) * sizeof *m->vt);
    double square = 0.0;
    for (int64_t i = 0; i < m->rows; i++)
        for (int64_t j = 0; j < m->cols; j++) {
            double a = m->a[i * m->cols + j];
            work[j * m->rows + i] = a;
            square += a * a;
        }
    m->norm = sqrt(square);
    LAPACKE_dgesdd(LAPACK_COL_MAJOR, 'S', (int)m->rows, (int)m->cols, work, (int)m->rows, m->s,
                   m->u, (int)m->rows, m->vt, (int)m->side);
    free(work);
}

static subject subject_make(int64_t rows, int64_t cols, spectrum kind, double scale) {
    subject m = {.rows = rows, .cols = cols, .side = rows < cols ? rows : cols};
    double *u = malloc((size_t)(rows * m.side) * sizeof *u);
    double *v = malloc((size_t)(cols * m.side) * sizeof *v);
    double *a = malloc((size_t)(rows * cols) * sizeof *a);
    m.a = malloc((size_t)(rows * cols) * sizeof *m.a);
    random_basis(rows, m.side, "left", u);
    random_basis(cols, m.side, "right", v);
    for (int64_t k = 0; k < m.side; k++)
        for (int64_t i = 0; i < rows; i++)
            u[k * rows + i] *= scale * value_of(kind, k, m.side);
    cblas_dgemm(CblasColMajor, CblasNoTrans, CblasTrans, (int)rows, (int)cols, (int)m.side, 1.0, u,
                (int)rows, v, (int)cols, 0.0, a, (int)rows);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++)
            m.a[i * cols + j] = (float)a[j * rows + i];
    free(a);
    free(v);
    free(u);
    subject_from(&m);
    return m;
}

static void subject_free(subject *m) {
    free(m->a);
    free(m->s);
    free(m->u);
    free(m->vt);
}

static dpt_status compute_split(const dpt_comm *comm, const subject *m, int split,
                                const dpt_svd_options *options, dpt_svd *out) {
    int64_t i0 = first_row(comm, m->rows, comm->rank, split);
    int64_t n = first_row(comm, m->rows, comm->rank + 1, split) - i0;
    return dpt_svd_compute(comm, m->rows, m->cols, n, m->a + i0 * m->cols, options, out);
}

static float *gather_u(const dpt_comm *comm, const dpt_svd *svd, int64_t local_rows) {
    void *all;
    int64_t *counts;
    assert_int_equal(dpt_comm_allgather(comm, svd->u, local_rows * svd->rank * 4, &all, &counts),
                     DPT_OK);
    dpt_mem_free(counts);
    return all;
}

static void assert_orthonormal(int64_t n, int64_t k, const float *q) {
    for (int64_t a = 0; a < k; a++)
        for (int64_t b = 0; b <= a; b++) {
            double dot = 0.0;
            for (int64_t i = 0; i < n; i++)
                dot += (double)q[i * k + a] * q[i * k + b];
            if (!(fabs(dot - (a == b)) < 3e-6))
                fail_msg("columns %d, %d: %.3e", (int)a, (int)b, dot - (a == b));
        }
}

/* The whole product, by dpt_svd_product on this rank's rows. */
static float *product(const dpt_comm *comm, const subject *m, int split, const dpt_svd *svd) {
    int64_t i0 = first_row(comm, m->rows, comm->rank, split);
    int64_t n = first_row(comm, m->rows, comm->rank + 1, split) - i0;
    float *rows = malloc((size_t)(n * m->cols + 1) * sizeof *rows);
    int64_t half = n / 2;
    dpt_svd_product(svd, m->cols, 0, half, rows);
    dpt_svd_product(svd, m->cols, half, n - half, rows + half * m->cols);
    void *all;
    int64_t *counts;
    assert_int_equal(dpt_comm_allgather(comm, rows, n * m->cols * 4, &all, &counts), DPT_OK);
    dpt_mem_free(counts);
    free(rows);
    return all;
}

static double distance(int64_t n, const float *a, const float *b) {
    double square = 0.0;
    for (int64_t i = 0; i < n; i++)
        square += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    return sqrt(square);
}

/* Where a value is said to be, there is one; what is exact or clear of the others is known well. */
static void check_errors(const subject *m, const dpt_svd *svd) {
    double top = m->s[0];
    for (int64_t i = 0; i < svd->rank; i++) {
        double nearest = INFINITY;
        for (int64_t j = 0; j < m->side; j++)
            nearest = fmin(nearest, fabs(svd->s[i] - m->s[j]));
        if (!(svd->s_error[i] >= 0.0 && nearest <= svd->s_error[i] + 1e-6 * top))
            fail_msg("s[%d] = %.9g is off by %.3e, not by %.3e", (int)i, svd->s[i], nearest,
                     svd->s_error[i]);
        assert_true(svd->s_error[i] <= (svd->used == DPT_SVD_RANDOM ? 0.2 : 2e-5) * top);
    }
}

static const char *const svd_names[] = {"auto", "random", "exact", "reference"};

static void check(const subject *m, int split, dpt_svd_options options, dpt_svd_method expected) {
    dpt_svd svd;
    options.name = "test";
    dpt_status st = compute_split(&test_comm, m, split, &options, &svd);
    if (st != DPT_OK)
        fail_msg("%dx%d %s rank %d: %s", (int)m->rows, (int)m->cols, svd_names[options.method],
                 (int)options.rank, dpt_error_message());
    assert_int_equal(svd.used, expected);
    assert_true(svd.iterations <= 10);
    assert_true(options.rank == 0 || svd.rank == options.rank);
    int64_t k = svd.rank;
    int64_t n = first_row(&test_comm, m->rows, test_comm.rank + 1, split) -
                first_row(&test_comm, m->rows, test_comm.rank, split);
    double top = m->s[0], best = 0.0;
    double value_tolerance = expected == DPT_SVD_RANDOM ? 1e-2 : 1e-6;
    for (int64_t i = 0; i < k; i++) {
        if (!(fabs(svd.s[i] - m->s[i]) <= value_tolerance * top))
            fail_msg("s[%d] = %.9g, not %.9g (of %.3g)", (int)i, svd.s[i], m->s[i], top);
        assert_true(i == 0 || svd.s[i] <= svd.s[i - 1]);
    }
    for (int64_t i = k; i < m->side; i++)
        best += m->s[i] * m->s[i];
    best = sqrt(best);
    float *u = gather_u(&test_comm, &svd, n);
    assert_orthonormal(m->rows, k, u);
    assert_orthonormal(m->cols, k, svd.v);
    float *made = product(&test_comm, m, split, &svd);
    double residual = distance(m->rows * m->cols, made, m->a);
    double excess = expected == DPT_SVD_RANDOM ? options.tolerance : 1e-6;
    if (!(residual <= best + excess * m->norm))
        fail_msg("residual %.6e, best %.6e (of %.3e)", residual, best, m->norm);
    if (!(fabs(residual - svd.residual) <= 1e-6 * m->norm + 1e-4 * residual))
        fail_msg("residual %.6e, claimed %.6e (of %.3e)", residual, svd.residual, m->norm);
    assert_true(fabs(svd.norm - m->norm) <= 1e-10 * m->norm);
    check_errors(m, &svd);
    dpt_mem_free(made);
    dpt_mem_free(u);
    dpt_svd_destroy(&svd);
}

static const dpt_svd_method methods[] = {DPT_SVD_EXACT, DPT_SVD_RANDOM, DPT_SVD_REFERENCE};

static void check_methods(int64_t rows, int64_t cols, spectrum kind, int64_t rank, int split) {
    subject m = subject_make(rows, cols, kind, 1e-3);
    for (int i = 0; i < 3; i++)
        check(&m, split, (dpt_svd_options){.method = methods[i], .rank = rank, .tolerance = 1e-3},
              methods[i]);
    subject_free(&m);
}

static void test_spectra(void **state) {
    (void)state;
    check_methods(120, 100, DECAYING, 12, 0);
    check_methods(120, 100, SLOW, 20, 0);
    check_methods(100, 100, FLAT, 10, 0);
    check_methods(100, 90, DEFICIENT, 5, 0);
    check_methods(100, 90, DEFICIENT, 20, 0); /* more than there are */
    check_methods(90, 80, STEEP, 12, 0);
    check_methods(200, 180, DOMINANT, 16, 0); /* 0.0035 remains, next to 1000 */
}

static void test_shapes(void **state) {
    (void)state;
    check_methods(300, 20, SLOW, 6, 0);
    check_methods(20, 300, SLOW, 6, 0);
    check_methods(1, 50, FLAT, 1, 0);
    check_methods(50, 1, FLAT, 1, 0);
    check_methods(1, 1, FLAT, 1, 0);
    check_methods(2, 3, FLAT, 2, 0);
    check_methods(3, 90, DECAYING, 2, 0); /* fewer rows than ranks */
}

static void test_splits(void **state) {
    (void)state;
    for (int split = 1; split <= 2; split++) {
        check_methods(90, 120, DECAYING, 8, split);
        check_methods(120, 90, SLOW, 9, split);
        check_methods(30, 200, DECAYING, 8, split);
    }
}

static void test_full_rank(void **state) {
    (void)state;
    for (spectrum kind = DECAYING; kind <= STEEP; kind++) {
        check_methods(70, 60, kind, 60, 0);
        check_methods(40, 75, kind, 40, 0);
    }
}

/* Large enough for Lanczos steps, at rank 3, and for a grid; ranks below and above the block size. */
static void test_grid(void **state) {
    (void)state;
    spectrum kinds[] = {SLOW, FLAT, DEFICIENT, FLAT, DEFICIENT};
    for (int i = 0; i < 5; i++) {
        subject m =
            i < 3 ? subject_make(600, 400, kinds[i], 1.0) : subject_make(150, 190, kinds[i], 1.0);
        int64_t ranks[] = {3, 50, m.side};
        for (int r = 0; r < 3; r++)
            check(&m, 0,
                  (dpt_svd_options){.method = DPT_SVD_EXACT, .rank = ranks[r], .grid_above = 1},
                  DPT_SVD_EXACT);
        subject_free(&m);
    }
}

static void test_auto(void **state) {
    (void)state;
    subject m = subject_make(300, 280, DECAYING, 1.0);
    dpt_svd_options options = {.method = DPT_SVD_AUTO, .rank = 10, .tolerance = 1e-3};
    check(&m, 0, options, DPT_SVD_RANDOM);
    options.rank = 100;
    check(&m, 0, options, DPT_SVD_EXACT);
    subject_free(&m);
}

static void test_fallback(void **state) {
    (void)state;
    subject m = subject_make(150, 140, SLOW, 1.0);
    check(&m, 0, (dpt_svd_options){.method = DPT_SVD_RANDOM, .rank = 20, .tolerance = 1e-12},
          DPT_SVD_EXACT);
    subject_free(&m);
}

/* A spectrum without a gap: the residual is as good as was asked for, whatever single values do. */
static void test_noise(void **state) {
    (void)state;
    int64_t shapes[][3] = {{420, 400, 8}, {300, 700, 20}, {900, 260, 5}};
    for (int c = 0; c < 3; c++) {
        subject m = {.rows = shapes[c][0], .cols = shapes[c][1]};
        m.side = m.rows < m.cols ? m.rows : m.cols;
        m.a = malloc((size_t)(m.rows * m.cols) * sizeof *m.a);
        dpt_rng_normal(dpt_rng_make(3, "noise", DPT_RNG_SKETCH), 0, m.rows * m.cols, m.a);
        subject_from(&m);
        dpt_svd_options options = {
            .method = DPT_SVD_RANDOM, .rank = shapes[c][2], .tolerance = 3e-4};
        check(&m, 0, options, DPT_SVD_RANDOM);
        subject_free(&m);
    }
}

static void test_energy(void **state) {
    (void)state;
    subject m = subject_make(90, 80, DECAYING, 1.0);
    double energies[] = {0.3, 0.9, 0.999, 1.0};
    for (int e = 0; e < 4; e++)
        for (int i = 0; i < 3; i++) {
            dpt_svd_options options = {
                .method = methods[i], .energy = energies[e], .tolerance = 1e-3, .name = "energy"};
            dpt_svd svd;
            assert_int_equal(compute_split(&test_comm, &m, 0, &options, &svd), DPT_OK);
            int64_t want = 0;
            double sum = 0.0;
            while (want < m.side && sum < energies[e] * m.norm * m.norm * (1 - 1e-12))
                sum += m.s[want] * m.s[want], want++;
            if (energies[e] < 1.0)
                assert_int_equal(svd.rank, want);
            assert_true(svd.residual <=
                        sqrt(fmax(0.0, 1.0 - energies[e])) * m.norm + 1e-6 * m.norm);
            dpt_svd_destroy(&svd);
        }
    subject_free(&m);
}

static void test_zero(void **state) {
    (void)state;
    subject m = {.rows = 20, .cols = 30, .side = 20, .a = calloc(600, sizeof(float))};
    subject_from(&m);
    for (int i = 0; i < 3; i++) {
        dpt_svd_options options = {.method = methods[i], .rank = 4, .name = "zero"};
        dpt_svd svd;
        assert_int_equal(compute_split(&test_comm, &m, 0, &options, &svd), DPT_OK);
        assert_true(svd.norm == 0.0 && svd.residual == 0.0 && svd.s[0] == 0.0);
        float *made = product(&test_comm, &m, 0, &svd);
        for (int e = 0; e < 600; e++)
            assert_true(made[e] == 0.0f);
        assert_orthonormal(30, 4, svd.v);
        dpt_mem_free(made);
        dpt_svd_destroy(&svd);
    }
    subject_free(&m);
}

static void test_scales(void **state) {
    (void)state;
    double scales[] = {1e-34, 1e-20, 1e20};
    for (int s = 0; s < 3; s++) {
        subject m = subject_make(60, 50, DECAYING, scales[s]);
        check(&m, 0, (dpt_svd_options){.method = DPT_SVD_EXACT, .rank = 6}, DPT_SVD_EXACT);
        check(&m, 0, (dpt_svd_options){.method = DPT_SVD_RANDOM, .rank = 6, .tolerance = 1e-3},
              DPT_SVD_RANDOM);
        subject_free(&m);
    }
}

/* Near the ends of fp32: whole multiples of the least number, and of 2^120. LAPACK's SVD in double
 * of the scaled matrix judges; the product is rounded to the numbers that there are. */
static void check_extreme(int exponent, dpt_svd_method method) {
    subject m = {.rows = 70, .cols = 60, .side = 60, .a = malloc(4200 * sizeof(float))};
    dpt_rng_normal(dpt_rng_make(7, "extreme", DPT_RNG_SKETCH), 0, 4200, m.a);
    for (int e = 0; e < 4200; e++) /* a gap after five */
        m.a[e] = roundf(roundf(m.a[e] * 20.0f) * (e % 60 < 5 ? 1.0f : 0.25f));
    subject_from(&m);
    for (int e = 0; e < 4200; e++)
        m.a[e] = ldexpf(m.a[e], exponent);
    dpt_svd svd;
    dpt_svd_options options = {.method = method, .rank = 5, .tolerance = 1e-3, .name = "extreme"};
    if (compute_split(&test_comm, &m, 0, &options, &svd) != DPT_OK)
        fail_msg("2^%d: %s", exponent, dpt_error_message());
    double best = 0.0, square = 0.0;
    for (int i = 0; i < 60; i++)
        best += i < 5 ? 0.0 : m.s[i] * m.s[i];
    best = sqrt(best);
    for (int i = 0; i < 5; i++)
        assert_true(fabs(ldexp(svd.s[i], -exponent) - m.s[i]) <= 2e-3 * m.s[0]);
    assert_true(fabs(ldexp(svd.norm, -exponent) - m.norm) <= 1e-9 * m.norm);
    assert_true(ldexp(svd.residual, -exponent) <= best + 1e-3 * m.norm);
    assert_true(ldexp(svd.residual, -exponent) >= best - 1e-6 * m.norm);
    float *made = product(&test_comm, &m, 0, &svd);
    for (int e = 0; e < 4200; e++) {
        double d = ldexp((double)made[e], -exponent) - ldexp((double)m.a[e], -exponent);
        square += d * d;
    }
    assert_true(isfinite(square) && sqrt(square) <= best + 1e-3 * m.norm + 0.5 * sqrt(4200.0));
    dpt_mem_free(made);
    dpt_svd_destroy(&svd);
    double norm = 0.0;
    int64_t i0 = first_row(&test_comm, 70, test_comm.rank, 0);
    int64_t n = first_row(&test_comm, 70, test_comm.rank + 1, 0) - i0;
    assert_int_equal(dpt_svd_spectral_norm(&test_comm, 70, 60, n, m.a + i0 * 60, 40, &norm),
                     DPT_OK);
    assert_true(fabs(ldexp(norm, -exponent) - m.s[0]) <= 0.02 * m.s[0]);
    subject_free(&m);
}

static void test_extremes(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++) {
        check_extreme(-149, methods[i]);
        check_extreme(-130, methods[i]);
        check_extreme(120, methods[i]);
    }
}

/* The same matrix on all ranks together and on one alone. */
static void test_rank_counts(void **state) {
    (void)state;
    dpt_comm alone;
    assert_int_equal(dpt_comm_create(MPI_COMM_SELF, &alone), DPT_OK);
    int64_t shapes[][2] = {{120, 90}, {90, 130}, {500, 450}};
    for (int c = 0; c < 3; c++) {
        subject m = subject_make(shapes[c][0], shapes[c][1], c == 2 ? SLOW : DECAYING, 1.0);
        for (int i = 0; i < 3; i++) {
            if (c == 2 && methods[i] == DPT_SVD_REFERENCE)
                continue;
            dpt_svd_options options = {.method = methods[i],
                                       .rank = 10,
                                       .tolerance = 1e-3,
                                       .seed = 5,
                                       .name = "counts",
                                       .grid_above = c == 2 ? 100 : 0};
            dpt_svd one, all, again;
            assert_int_equal(compute_split(&alone, &m, 0, &options, &one), DPT_OK);
            assert_int_equal(compute_split(&test_comm, &m, 0, &options, &all), DPT_OK);
            assert_int_equal(compute_split(&test_comm, &m, 0, &options, &again), DPT_OK);
            assert_memory_equal(all.s, again.s, 10 * sizeof *all.s);
            assert_memory_equal(all.v, again.v, (size_t)(m.cols * 10) * sizeof *all.v);
            float *a = product(&alone, &m, 0, &one);
            float *b = product(&test_comm, &m, 0, &all);
            double gap = distance(m.rows * m.cols, a, b);
            if (!(gap <= 1e-6 * m.norm))
                fail_msg("%s: products differ by %.3e of %.3e", svd_names[methods[i]], gap, m.norm);
            for (int k = 0; k < 10; k++)
                assert_true(fabs(one.s[k] - all.s[k]) <= 1e-6 * m.s[0]);
            dpt_mem_free(a);
            dpt_mem_free(b);
            dpt_svd_destroy(&one);
            dpt_svd_destroy(&all);
            dpt_svd_destroy(&again);
        }
        subject_free(&m);
    }
    dpt_comm_destroy(&alone);
}

/* Power iterations would be 2 % low after so few steps. */
static void test_spectral_norm_of_close_values(void **state) {
    (void)state;
    enum { N = 60 };
    float a[N * N] = {0.0F};
    double norm = 0.0;
    int64_t i0 = first_row(&test_comm, N, test_comm.rank, 2);
    int64_t n = first_row(&test_comm, N, test_comm.rank + 1, 2) - i0;
    for (int i = 0; i < N; i++)
        a[i * N + (i * 7) % N] =
            3.0F * (1.0F - 0.01F * (float)i); /* the singular values, permuted */
    assert_int_equal(dpt_svd_spectral_norm(&test_comm, N, N, n, a + i0 * N, 24, &norm), DPT_OK);
    assert_true(norm <= 3.0 * (1.0 + 1e-6) && norm > 3.0 * (1.0 - 1e-3));
    assert_int_equal(dpt_svd_spectral_norm(&test_comm, N, N, n, a + i0 * N, 200, &norm), DPT_OK);
    assert_true(fabs(norm - 3.0) < 3e-6);
}

static void test_spectral_norm(void **state) {
    (void)state;
    subject m = subject_make(80, 120, DECAYING, 3.0);
    double norm = 0.0;
    int64_t i0 = first_row(&test_comm, m.rows, test_comm.rank, 2);
    int64_t n = first_row(&test_comm, m.rows, test_comm.rank + 1, 2) - i0;
    assert_int_equal(
        dpt_svd_spectral_norm(&test_comm, m.rows, m.cols, n, m.a + i0 * m.cols, 30, &norm), DPT_OK);
    assert_true(fabs(norm - m.s[0]) < 1e-5 * m.s[0]);
    memset(m.a, 0, (size_t)(m.rows * m.cols) * sizeof *m.a);
    assert_int_equal(dpt_svd_spectral_norm(&test_comm, m.rows, m.cols, n, m.a, 5, &norm), DPT_OK);
    assert_true(norm == 0.0);
    subject_free(&m);
}

static void refuse(const subject *m, dpt_svd_options options, dpt_status code) {
    dpt_svd svd;
    dpt_error_clear();
    assert_int_equal(compute_split(&test_comm, m, 0, &options, &svd), code);
    assert_true(svd.s == NULL && svd.u == NULL && svd.v == NULL && svd.rank == 0);
    assert_true(dpt_error_message()[0] != '\0');
    dpt_error_clear();
}

static void test_bad_arguments(void **state) {
    (void)state;
    subject m = subject_make(30, 20, DECAYING, 1.0);
    const dpt_svd_options bad[] = {{.method = DPT_SVD_EXACT, .rank = 21, .name = "w"},
                                   {.method = DPT_SVD_EXACT, .name = "w"},
                                   {.method = DPT_SVD_EXACT, .rank = -1, .name = "w"},
                                   {.method = DPT_SVD_EXACT, .energy = 1.5, .name = "w"},
                                   {.method = DPT_SVD_EXACT, .rank = 2, .energy = 0.5, .name = "w"},
                                   {.method = (dpt_svd_method)9, .rank = 2, .name = "w"}};
    for (int i = 0; i < 6; i++)
        refuse(&m, bad[i], DPT_ERR_INTERNAL);
    m.a[17] = NAN;
    for (int i = 0; i < 3; i++)
        refuse(&m, (dpt_svd_options){.method = methods[i], .rank = 2, .name = "w"}, DPT_ERR_INPUT);
    m.a[17] = INFINITY;
    refuse(&m, (dpt_svd_options){.method = DPT_SVD_AUTO, .rank = 2, .name = "w"}, DPT_ERR_INPUT);
    dpt_svd svd;
    dpt_svd_options options = {.method = DPT_SVD_EXACT, .rank = 2, .name = "w"};
    assert_int_equal(dpt_svd_compute(&test_comm, 30, 20, 29, m.a, &options, &svd),
                     DPT_ERR_INTERNAL);
    dpt_error_clear();
    subject_free(&m);
}

/* A rank that has no memory left makes all fail alike, and nothing leaks. */
static void test_no_memory(void **state) {
    (void)state;
    subject m = subject_make(80, 60, SLOW, 1.0);
    for (int i = 0; i < 3; i++)
        for (int64_t budget = 100; budget < 1 << 19; budget *= 3) {
            dpt_svd_options options = {
                .method = methods[i], .rank = 5, .tolerance = 1e-3, .name = "w"};
            dpt_svd svd;
            int64_t before = dpt_mem_in_use();
            if (test_comm.rank == test_comm.size - 1)
                dpt_mem_set_budget(before + budget);
            dpt_status st = compute_split(&test_comm, &m, 0, &options, &svd);
            dpt_mem_set_budget(0);
            int64_t code = st, worst = st;
            assert_int_equal(dpt_comm_max_i64(&test_comm, &worst, 1), DPT_OK);
            assert_int_equal(code, worst);
            assert_true(st == DPT_OK || st == DPT_ERR_OUTPUT);
            dpt_svd_destroy(&svd);
            assert_true(dpt_mem_in_use() == before);
            dpt_error_clear();
        }
    subject_free(&m);
}

static void test_bytes(void **state) {
    (void)state;
    int64_t cases[][3] = {{640, 600, 5}, {700, 60, 60}, {60, 700, 5}, {300, 300, 0}, {90, 80, 40}};
    for (int c = 0; c < 5; c++) {
        subject m = subject_make(cases[c][0], cases[c][1], SLOW, 1.0);
        for (int i = 0; i < 3; i++) {
            int64_t bytes = dpt_svd_bytes(m.rows, m.cols, cases[c][2], methods[i], test_comm.size);
            dpt_svd_options options = {.method = methods[i],
                                       .rank = cases[c][2],
                                       .energy = cases[c][2] > 0 ? 0.0 : 1.0,
                                       .tolerance = i == 1 && c == 0 ? 1e-12 : 1e-3,
                                       .name = "bytes"};
            dpt_svd svd;
            dpt_mem_set_budget(dpt_mem_in_use() + bytes);
            if (compute_split(&test_comm, &m, 0, &options, &svd) != DPT_OK)
                fail_msg("%s: %s", svd_names[methods[i]], dpt_error_message());
            dpt_svd_destroy(&svd);
            dpt_mem_set_budget(0);
        }
        subject_free(&m);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spectra),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_splits),
        cmocka_unit_test(test_full_rank),
        cmocka_unit_test(test_grid),
        cmocka_unit_test(test_auto),
        cmocka_unit_test(test_fallback),
        cmocka_unit_test(test_noise),
        cmocka_unit_test(test_energy),
        cmocka_unit_test(test_zero),
        cmocka_unit_test(test_scales),
        cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_rank_counts),
        cmocka_unit_test(test_spectral_norm),
        cmocka_unit_test(test_spectral_norm_of_close_values),
        cmocka_unit_test(test_bad_arguments),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_bytes),
    };
    return test_mpi_main(argc, argv, tests);
}
