/* Norms by products with the matrix alone: of what a factorisation leaves, by power iterations, and of the
 * matrix itself. */
#include "svd_methods.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/linalg/reduce.h"
#include "panel.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <string.h>

/* y = (A - U diag(s) V^T) x on this rank's rows; work has room for svd->rank values. */
static void apply_rows(const dpt_svd_problem *problem, const dpt_svd *svd, const float *x,
                       float *work, float *y) {
    int m = (int)problem->local_rows, n = (int)problem->cols;
    if (m == 0)
        return;
    float scale = (float)dpt_svd_unit_scale(problem->norm);
    cblas_sgemv(CblasRowMajor, CblasNoTrans, m, n, scale, problem->slab, n, x, 1, 0.0f, y, 1);
    if (svd == NULL)
        return;
    int r = (int)svd->rank;
    cblas_sgemv(CblasRowMajor, CblasTrans, n, r, 1.0f, svd->v, r, x, 1, 0.0f, work, 1);
    for (int j = 0; j < r; j++)
        work[j] *= (float)svd->s[j] * scale;
    cblas_sgemv(CblasRowMajor, CblasNoTrans, m, r, -1.0f, svd->u, r, work, 1, 1.0f, y, 1);
}

/* x = (A - U diag(s) V^T)^T y, summed over ranks. */
static dpt_status apply_columns(const dpt_svd_problem *problem, const dpt_svd *svd, const float *y,
                                float *work, float *part, float *x) {
    int m = (int)problem->local_rows, n = (int)problem->cols;
    float scale = (float)dpt_svd_unit_scale(problem->norm);
    memset(x, 0, (size_t)n * sizeof *x);
    if (m > 0) {
        cblas_sgemv(CblasRowMajor, CblasTrans, m, n, scale, problem->slab, n, y, 1, 0.0f, x, 1);
        if (svd != NULL) {
            int r = (int)svd->rank;
            cblas_sgemv(CblasRowMajor, CblasTrans, m, r, 1.0f, svd->u, r, y, 1, 0.0f, work, 1);
            for (int j = 0; j < r; j++)
                work[j] *= (float)svd->s[j] * scale;
            cblas_sgemv(CblasRowMajor, CblasNoTrans, n, r, 1.0f, svd->v, r, work, 1, 0.0f, part, 1);
            for (int i = 0; i < n; i++)
                x[i] -= part[i];
        }
    }
    return dpt_comm_sum_f32(problem->comm, x, n);
}

static double normalise(int64_t n, float *x) {
    double length = sqrt(dpt_reduce_square(x, n));
    for (int64_t i = 0; length > 0.0 && i < n; i++)
        x[i] = (float)(x[i] / length);
    return length;
}

dpt_status dpt_svd_deflated_norm(const dpt_svd_problem *problem, const dpt_svd *svd, int iterations,
                                 double *norm) {
    int64_t rank = svd != NULL ? svd->rank : 0;
    float *x = dpt_mem_alloc(2 * problem->cols, sizeof *x, "vectors of a power iteration");
    float *y = dpt_mem_alloc(problem->local_rows + rank, sizeof *y, "vectors of a power iteration");
    dpt_status st = x == NULL || y == NULL ? DPT_ERR_OUTPUT : DPT_OK;
    if (st == DPT_OK)
        st = dpt_panel_fill(problem->sketch, 0, problem->cols, 1, x);
    st = dpt_agree(problem->comm, st);
    double value = 0.0;
    if (st == DPT_OK)
        normalise(problem->cols, x);
    for (int i = 0; st == DPT_OK && i < iterations; i++) {
        apply_rows(problem, svd, x, y + problem->local_rows, y);
        double square = dpt_reduce_square(y, problem->local_rows);
        st = dpt_comm_sum_f64(problem->comm, &square, 1);
        value = fmax(value, sqrt(square));
        if (st == DPT_OK && i + 1 < iterations)
            st = apply_columns(problem, svd, y, y + problem->local_rows, x + problem->cols, x);
        normalise(problem->cols, x);
    }
    *norm = value / dpt_svd_unit_scale(problem->norm);
    dpt_mem_free(y);
    dpt_mem_free(x);
    return st;
}

/* The bidiagonal form that Lanczos steps of Golub and Kahan find. */
typedef struct bidiagonal {
    int count;
    double *diagonal; /* (steps) */
    double *above;    /* (steps): of column i, between it and the one before; 0 of the first */
} bidiagonal;

/* Its largest singular value, from the tridiagonal form of its square, which is overwritten. */
static dpt_status bidiagonal_norm(bidiagonal *b, double *norm) {
    for (int i = b->count - 1; i >= 0; i--) {
        double alpha = b->diagonal[i];
        b->diagonal[i] = alpha * alpha + b->above[i] * b->above[i];
        if (i + 1 < b->count)
            b->above[i + 1] *= alpha;
    }
    int info = LAPACKE_dsterf(b->count, b->diagonal, b->above + 1);
    *norm = sqrt(fmax(b->diagonal[b->count - 1], 0.0));
    return info == 0
               ? DPT_OK
               : dpt_error(DPT_ERR_INTERNAL, "dsterf of a bidiagonal form gave info %d", info);
}

/* Golub, Kahan, SIAM J. Numer. Anal. 2 (1965). The vectors lose their orthogonality, which repeats values that
 * are found and changes none. Nothing beyond two vectors of each side is kept.
 * @param[in] x (2, cols): the first is the start, of length 1. @param[in] y (2, local rows). */
static dpt_status bidiagonalise(const dpt_svd_problem *problem, int steps, float *x, float *y,
                                bidiagonal *out) {
    int m = (int)problem->local_rows, n = (int)problem->cols;
    float *v = x, *next = x + n, *u = y, *above = y + m;
    double beta = 0.0, alpha = 0.0, largest = 0.0;
    dpt_status st = DPT_OK;
    for (int i = 0; st == DPT_OK && i < steps; i++) {
        apply_rows(problem, NULL, v, NULL, above);
        cblas_saxpy(m, (float)-beta, u, 1, above, 1);
        double square = dpt_reduce_square(above, m);
        st = dpt_comm_sum_f64(problem->comm, &square, 1);
        alpha = sqrt(square);
        largest = fmax(largest, alpha);
        out->diagonal[i] = alpha;
        out->above[i] = beta;
        out->count = i + 1;
        if (st != DPT_OK || !(alpha > 1e-6 * largest))
            break; /* the rest is rounding: all that the start reaches is found */
        for (int k = 0; k < m; k++)
            u[k] = (float)(above[k] / alpha);
        st = apply_columns(problem, NULL, u, NULL, NULL, next);
        cblas_saxpy(n, (float)-alpha, v, 1, next, 1);
        beta = normalise(n, next);
        if (!(beta > 1e-6 * largest))
            break;
        float *old = v;
        v = next;
        next = old;
    }
    return st;
}

dpt_status dpt_svd_lanczos_norm(const dpt_svd_problem *problem, int steps, double *norm) {
    int64_t rows = problem->local_rows;
    float *x = dpt_mem_alloc(2 * problem->cols, sizeof *x, "vectors of Lanczos steps");
    float *y = dpt_mem_zalloc(2 * rows + 1, sizeof *y, "vectors of Lanczos steps");
    double *t = dpt_mem_zalloc(2 * (int64_t)steps + 1, sizeof *t, "bidiagonal form");
    dpt_status st = x == NULL || y == NULL || t == NULL ? DPT_ERR_OUTPUT : DPT_OK;
    if (st == DPT_OK)
        st = dpt_panel_fill(problem->sketch, 0, problem->cols, 1, x);
    st = dpt_agree(problem->comm, st);
    if (st == DPT_OK) {
        bidiagonal form = {.diagonal = t, .above = t + steps};
        normalise(problem->cols, x);
        st = bidiagonalise(problem, steps, x, y, &form);
        if (st == DPT_OK)
            st = bidiagonal_norm(&form, norm);
        *norm /= dpt_svd_unit_scale(problem->norm);
    }
    dpt_mem_free(t);
    dpt_mem_free(y);
    dpt_mem_free(x);
    return dpt_agree(problem->comm, st);
}
