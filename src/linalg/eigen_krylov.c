#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"

#include "eigen.h"
#include "panel.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

/* Few leading pairs of a large Gram matrix G by block Lanczos steps with thick restarts (Wu, Simon, SIAM J. Matrix
 * Anal. Appl. 22, 2000): all work is products of the ranks' rows of G and of the basis, where a reduction to tridiagonal
 * form is half matrix-vector products, and ScaLAPACK's runs on the largest square of ranks, one of two or three.
 *
 * G V = V T + Z E^T: T = V^T G V is taken whole from inner products, so that a restart needs no special form, and the
 * residual of a Ritz vector V y is |Z y_last|, known from Z^T Z. The basis is kept orthonormal by projecting twice
 * before and once after a block is made orthonormal. The small eigenproblem is solved by rank 0 and broadcast. */

enum { BLOCK = 16, SIDE_MIN = 256 };

static const double RITZ_RESIDUAL = 1e-9; /* of s_1 s_j */
static const double BLOCK_NULL = 1e-13; /* of the norm of G: what is left of a block is rounding */

typedef struct krylov {
    const dpt_svd_problem *problem;
    int64_t n, k;
    int64_t first, own; /* rows of G and of the basis that this rank has */
    int64_t most, keep; /* columns before a restart, and after it */
    int64_t
        count; /* columns of the basis now, the last BLOCK of them still to be multiplied by G */
    int64_t applied;            /* columns that G was multiplied with */
    double *gram;               /* (n, own): the rows of G lie in columns, which packs faster */
    double *v;                  /* (own, most + BLOCK) */
    double *z;                  /* (own, BLOCK) */
    double *whole;              /* (n, BLOCK) */
    double *t;                  /* (most, most) */
    double *inner;              /* (most, BLOCK) */
    double left[BLOCK * BLOCK]; /* Z^T Z */
    dpt_panel_work work;
} krylov;

int64_t dpt_krylov_columns(int64_t rank) {
    return (2 * rank + 192) / BLOCK * BLOCK;
}

bool dpt_krylov_pays(int64_t side, int64_t rank, int64_t grid_above) {
    bool narrow = rank > 0 && side >= SIDE_MIN && 2 * dpt_krylov_columns(rank) <= side;
    return narrow && (12 * rank + 512 <= side || (side > grid_above && 16 * rank <= side));
}

static dpt_status krylov_create(const dpt_svd_problem *p, krylov *s) {
    const dpt_comm *comm = p->comm;
    *s = (krylov){.problem = p, .n = p->cols, .k = p->rank, .most = dpt_krylov_columns(p->rank)};
    s->keep = (s->k + (s->k < 96 ? s->k / 2 : 48) + 2 * BLOCK) / BLOCK * BLOCK;
    DPT_ASSERT(s->keep >= s->k && s->keep + BLOCK <= s->most);
    s->first = dpt_panel_share(s->n, comm->rank, comm->size);
    s->own = dpt_panel_share(s->n, comm->rank + 1, comm->size) - s->first;
    s->gram = dpt_mem_alloc(s->own * s->n, sizeof *s->gram, "rows of a Gram matrix");
    s->v = dpt_mem_zalloc(s->own * (s->most + BLOCK), sizeof *s->v, "Lanczos vectors");
    s->z = dpt_mem_alloc(s->own * BLOCK, sizeof *s->z, "Lanczos block");
    s->whole = dpt_mem_alloc(s->n * BLOCK, sizeof *s->whole, "Lanczos block");
    s->t = dpt_mem_zalloc(s->most * s->most, sizeof *s->t, "projected Gram matrix");
    s->inner = dpt_mem_alloc(s->most * BLOCK, sizeof *s->inner, "inner products");
    bool short_of = s->gram == NULL || s->v == NULL || s->z == NULL || s->whole == NULL ||
                    s->t == NULL || s->inner == NULL;
    dpt_status st = dpt_agree(comm, short_of ? DPT_ERR_OUTPUT : DPT_OK);
    return st != DPT_OK ? st : dpt_panel_work_create(comm, s->most, &s->work);
}

static void krylov_destroy(krylov *s) {
    dpt_panel_work_destroy(&s->work);
    dpt_mem_free(s->gram);
    dpt_mem_free(s->v);
    dpt_mem_free(s->z);
    dpt_mem_free(s->whole);
    dpt_mem_free(s->t);
    dpt_mem_free(s->inner);
}

/* This rank's rows of G from a panel of its upper triangle. */
static void krylov_put(void *ctx, int64_t first, int64_t width, const double *panel) {
    const krylov *s = ctx;
    for (int64_t r = 0; r < width; r++) {
        int64_t row = first + r;
        const double *from = panel + r * s->n;
        double *to = s->gram + row * s->own;
        int64_t below = row < s->first ? 0 : row - s->first; /* of the own, up to this row */
        if (below < s->own)
            memcpy(to + below, from + s->first + below, (size_t)(s->own - below) * sizeof *to);
        if (row >= s->first && row < s->first + s->own)
            for (int64_t c = row; c < s->n; c++)
                s->gram[c * s->own + below] = from[c];
    }
}

/* z -= V (V^T z) over the first `count` columns; the inner products stay. */
static dpt_status project(krylov *s, int64_t count) {
    int m = (int)count, own = (int)s->own, ld = (int)s->most + BLOCK;
    memset(s->inner, 0, (size_t)(count * BLOCK) * sizeof *s->inner);
    if (own > 0 && m > 0)
        cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, m, BLOCK, own, 1.0, s->v, ld, s->z,
                    BLOCK, 0.0, s->inner, BLOCK);
    dpt_status st = dpt_comm_sum_f64(s->problem->comm, s->inner, count * BLOCK);
    if (own > 0 && m > 0)
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, own, BLOCK, m, -1.0, s->v, ld,
                    s->inner, BLOCK, 1.0, s->z, BLOCK);
    return st;
}

/* Make the columns of z orthonormal. @param[out] dependent they are not to be had. */
static dpt_status make_orthonormal(krylov *s, bool *dependent) {
    dpt_panel_transform step;
    dpt_status st = dpt_panel_solve(s->problem->comm, BLOCK, 0.0, &s->work, &step);
    *dependent = st == DPT_OK && (step.mixed || step.width < BLOCK);
    if (st == DPT_OK && !*dependent && s->own > 0)
        cblas_dtrmm(CblasRowMajor, CblasRight, CblasUpper, CblasNoTrans, CblasNonUnit, (int)s->own,
                    BLOCK, 1.0, s->work.t, BLOCK, s->z, BLOCK);
    return st;
}

/* Append z, made orthonormal to the basis, as its next block. */
static dpt_status append(krylov *s, bool *dependent) {
    const dpt_comm *comm = s->problem->comm;
    dpt_status st = DPT_OK;
    for (int pass = 0; pass < 2 && st == DPT_OK && !*dependent; pass++) {
        if (pass > 0)
            st = project(s, s->count);
        if (st == DPT_OK)
            st = dpt_panel_gram_f64(comm, s->own, BLOCK, s->z, &s->work);
        if (st == DPT_OK)
            st = make_orthonormal(s, dependent);
    }
    for (int64_t i = 0; i < s->own; i++)
        memcpy(s->v + i * (s->most + BLOCK) + s->count, s->z + i * BLOCK, BLOCK * sizeof *s->z);
    s->count += BLOCK;
    return st;
}

static dpt_status start(krylov *s, bool *dependent) {
    float *random = dpt_mem_alloc(s->own * BLOCK, sizeof *random, "first Lanczos block");
    dpt_status st = random == NULL
                        ? DPT_ERR_OUTPUT
                        : dpt_panel_fill(s->problem->sketch, s->first, s->own, BLOCK, random);
    st = dpt_agree(s->problem->comm, st);
    for (int64_t e = 0; st == DPT_OK && e < s->own * BLOCK; e++)
        s->z[e] = random[e];
    dpt_mem_free(random);
    return st != DPT_OK ? st : append(s, dependent);
}

/* z = G times the last block, its coefficients into T, and what they leave of it. */
static dpt_status multiply(krylov *s) {
    const dpt_comm *comm = s->problem->comm;
    int64_t at = s->count - BLOCK, ld = s->most + BLOCK;
    memset(s->whole, 0, (size_t)(s->n * BLOCK) * sizeof *s->whole);
    for (int64_t i = 0; i < s->own; i++)
        memcpy(s->whole + (s->first + i) * BLOCK, s->v + i * ld + at, BLOCK * sizeof *s->v);
    dpt_status st = dpt_comm_sum_f64(comm, s->whole, s->n * BLOCK);
    if (st == DPT_OK && s->own > 0)
        cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)s->own, BLOCK, (int)s->n, 1.0,
                    s->gram, (int)s->own, s->whole, BLOCK, 0.0, s->z, BLOCK);
    s->applied += BLOCK;
    if (st == DPT_OK)
        st = project(s, s->count);
    for (int64_t i = 0; st == DPT_OK && i < s->count; i++)
        for (int64_t j = 0; j < BLOCK; j++) {
            s->t[i * s->most + at + j] = s->inner[i * BLOCK + j];
            s->t[(at + j) * s->most + i] = s->inner[i * BLOCK + j];
        }
    if (st == DPT_OK)
        st = project(s, s->count);
    if (st == DPT_OK)
        st = dpt_panel_gram_f64(comm, s->own, BLOCK, s->z, &s->work);
    memcpy(s->left, s->work.gram, sizeof s->left);
    return st;
}

/* Ritz values and vectors of the basis into work. @return whether the wanted ones have converged. */
static dpt_status ritz(krylov *s, bool *converged) {
    int64_t m = s->count;
    for (int64_t i = 0; i < m; i++)
        memcpy(s->work.gram + i * m, s->t + i * s->most, (size_t)m * sizeof *s->t);
    dpt_status st = dpt_panel_eigen(s->problem->comm, m, true, &s->work);
    const double *roots = s->work.roots, *y = s->work.t + (m - BLOCK) * m;
    *converged = st == DPT_OK;
    for (int64_t j = 0; st == DPT_OK && j < s->k; j++) {
        double square = 0.0;
        for (int64_t a = 0; a < BLOCK; a++)
            for (int64_t b = 0; b < BLOCK; b++)
                square += y[a * m + j] * s->left[a * BLOCK + b] * y[b * m + j];
        double most = RITZ_RESIDUAL * sqrt(fmax(0.0, roots[0] * roots[j]));
        *converged = *converged && sqrt(fmax(0.0, square)) <= most;
    }
    return st;
}

/* V (own, count) <- V Y with the first `to` Ritz vectors, and T their values. */
static void rotate(krylov *s, int64_t to) {
    int64_t m = s->count, ld = s->most + BLOCK;
    for (int64_t i = 0; i < s->own; i += DPT_PANEL_CHUNK) {
        int64_t rows = s->own - i < DPT_PANEL_CHUNK ? s->own - i : DPT_PANEL_CHUNK;
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)rows, (int)to, (int)m, 1.0,
                    s->v + i * ld, (int)ld, s->work.t, (int)m, 0.0, s->work.chunk, (int)to);
        for (int64_t r = 0; r < rows; r++)
            memcpy(s->v + (i + r) * ld, s->work.chunk + r * to, (size_t)to * sizeof *s->v);
    }
    memset(s->t, 0, (size_t)(s->most * s->most) * sizeof *s->t);
    for (int64_t j = 0; j < to; j++)
        s->t[j * s->most + j] = s->work.roots[j];
    s->count = to;
}

static dpt_status run(krylov *s, bool *converged) {
    bool dependent = false;
    dpt_status st = dpt_eigen_gram_panels(s->problem, krylov_put, s);
    if (st == DPT_OK)
        st = start(s, &dependent);
    while (st == DPT_OK && !dependent && !*converged && s->applied < 2 * s->n) {
        st = multiply(s);
        double left = 0.0, norm = s->problem->norm * s->problem->norm;
        for (int64_t j = 0; j < BLOCK; j++)
            left = fmax(left, sqrt(fmax(0.0, s->left[j * BLOCK + j])));
        dependent = left <= BLOCK_NULL * norm;
        if (st == DPT_OK && s->count == s->most) {
            st = ritz(s, converged);
            if (st == DPT_OK && !*converged)
                rotate(s, s->keep);
        }
        if (st == DPT_OK && !*converged && !dependent)
            st = append(s, &dependent);
    }
    *converged = *converged && st == DPT_OK;
    return st;
}

/* All rows of the wanted vectors, on every rank. */
static dpt_status krylov_result(krylov *s, dpt_eigen *out) {
    const dpt_comm *comm = s->problem->comm;
    dpt_status st = dpt_agree(comm, dpt_eigen_allocate(s->problem, s->k, out));
    if (st != DPT_OK)
        return st;
    rotate(s, s->k);
    memcpy(out->values, s->work.roots, (size_t)s->k * sizeof *out->values);
    for (int64_t i = 0; i < s->own; i++)
        for (int64_t j = 0; j < s->k; j++)
            out->vectors[j * s->n + s->first + i] = s->v[i * (s->most + BLOCK) + j];
    return dpt_comm_sum_f64(comm, out->vectors, s->k * s->n);
}

dpt_status dpt_krylov_gram(const dpt_svd_problem *problem, dpt_eigen *out, bool *converged) {
    krylov s;
    *converged = false;
    *out = (dpt_eigen){.count = 0};
    dpt_status st = krylov_create(problem, &s);
    if (st == DPT_OK)
        st = run(&s, converged);
    if (*converged)
        st = krylov_result(&s, out);
    krylov_destroy(&s);
    if (st != DPT_OK)
        dpt_eigen_destroy(out);
    return st;
}
