#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"

#include "eigen.h"
#include "panel.h"
#include "svd_methods.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

/* Right vectors from the eigenvectors of the Gram matrix in double; then Y = A V in double gives
 * s = |Y_j| and U = Y / s, cleaned by one Cholesky QR, for the Gram matrix leaves U of small values
 * slightly skew. The product U diag(s) V^T equals A V V^T to rounding whatever the spectrum. */

enum { CHUNK_ITEMS = 1 << 20, DEFLATED_ITERATIONS = 4 };

static const double NULL_SHARE = 1e-7;     /* of the largest: below, s counts as zero */
static const double RESIDUAL_SHARE = 2e-5; /* of the largest: allowed |A^T u - s v| in fp32 */
static const double ORTHOGONAL = 1e-5;
static const double MISSED_SHARE = 1e-3; /* how far the rest may exceed the last value */

/* y (local rows, count) = A V, in double. */
static dpt_status image(const dpt_svd_problem *p, const dpt_eigen *pairs, double *y) {
    int64_t n = p->cols, step = CHUNK_ITEMS / n;
    step = step < 16 ? 16 : step > 512 ? 512 : step;
    double *chunk = dpt_mem_alloc(step * n, sizeof *chunk, "rows in double");
    if (chunk == NULL)
        return DPT_ERR_OUTPUT;
    int k = (int)pairs->count;
    for (int64_t i = 0; i < p->local_rows; i += step) {
        int rows = (int)(p->local_rows - i < step ? p->local_rows - i : step);
        for (int64_t e = 0; e < rows * n; e++)
            chunk[e] = p->slab[i * n + e];
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, k, (int)n, 1.0, chunk, (int)n,
                    pairs->vectors, (int)n, 0.0, y + i * k, k);
    }
    dpt_mem_free(chunk);
    return DPT_OK;
}

/* s from the diagonal of Y^T Y. @return how many are not null; s is made to fall. */
static int64_t values_from_gram(int64_t count, const double *gram, double *s) {
    int64_t found = 0;
    for (int64_t i = 0; i < count; i++) {
        double value = sqrt(fmax(0.0, gram[i * count + i]));
        s[i] = i > 0 ? fmin(s[i - 1], value) : value;
        if (s[i] <= NULL_SHARE * s[0])
            s[i] = 0.0;
        else
            found = i + 1;
    }
    return found;
}

/* U (local rows, count) from the first `found` columns of y, whose Gram matrix is work->gram;
 * completed where s is null. */
static dpt_status left_vectors(const dpt_svd_problem *p, int64_t count, int64_t found,
                               const double *y, dpt_panel_work *work, float *u) {
    int k = (int)count, f = (int)found;
    for (int64_t i = 0; i < found; i++)
        memmove(work->gram + i * found, work->gram + i * count, (size_t)found * sizeof(double));
    dpt_panel_transform step;
    dpt_status st = dpt_panel_solve(p->comm, found, 0.0, work, &step);
    if (st == DPT_OK && step.mixed)
        st = dpt_error(DPT_ERR_INTERNAL, "%s: left singular vectors are dependent", p->name);
    if (st != DPT_OK)
        return st;
    for (int64_t i = 0; i < p->local_rows; i += DPT_PANEL_CHUNK) {
        int64_t left = p->local_rows - i;
        int rows = (int)(left < DPT_PANEL_CHUNK ? left : DPT_PANEL_CHUNK);
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, f, f, 1.0, y + i * k, k,
                    work->t, f, 0.0, work->chunk, f);
        for (int64_t a = 0; a < rows; a++)
            for (int64_t b = 0; b < found; b++)
                u[(i + a) * count + b] = (float)work->chunk[a * found + b];
    }
    dpt_rng stream = {.key = ~p->sketch.key, .purpose = p->sketch.purpose};
    return dpt_panel_complete(p->comm, p->row0, p->local_rows, found, count, stream, u);
}

/* |A^T u - s v| of every triplet and |V^T V - I|, in single precision. */
static dpt_status check_triplets(const dpt_svd_problem *p, dpt_svd *svd, dpt_panel_work *work,
                                 bool *good) {
    const dpt_comm *comm = p->comm;
    int64_t n = p->cols, k = svd->rank, first = dpt_panel_share(n, comm->rank, comm->size);
    int64_t own = dpt_panel_share(n, comm->rank + 1, comm->size) - first;
    dpt_status st = dpt_svd_errors_left(p, svd);
    *good = true;
    for (int64_t i = 0; st == DPT_OK && i < k; i++)
        *good = *good && svd->s_error[i] <= RESIDUAL_SHARE * svd->s[0];
    if (st == DPT_OK)
        st = dpt_panel_gram_f32(comm, own, k, svd->v + first * k, work);
    for (int64_t e = 0; st == DPT_OK && e < k * k; e++)
        *good = *good && fabs(work->gram[e] - (e / k == e % k)) <= ORTHOGONAL;
    return st;
}

/* The triplets must be singular ones, and nothing larger than the last may remain. */
static dpt_status check(const dpt_svd_problem *p, dpt_svd *svd, dpt_panel_work *work, bool *good) {
    double rest = 0.0;
    dpt_status st = check_triplets(p, svd, work, good);
    if (st == DPT_OK)
        st = dpt_svd_deflated_norm(p, svd, DEFLATED_ITERATIONS, &rest);
    double last = svd->s[svd->rank - 1];
    int64_t bad = !*good || !(rest <= last * (1.0 + MISSED_SHARE) + RESIDUAL_SHARE * svd->s[0]);
    if (st == DPT_OK)
        st = dpt_comm_max_i64(p->comm, &bad, 1);
    *good = bad == 0;
    return st;
}

static dpt_status attempt(const dpt_svd_problem *p, dpt_eigen_solver solver, dpt_svd *out,
                          bool *good) {
    dpt_eigen pairs;
    dpt_panel_work work = {.width = 0};
    dpt_status st = dpt_eigen_gram(p, solver, &pairs);
    if (st != DPT_OK)
        return st;
    int64_t k = pairs.count;
    double *y = dpt_mem_alloc(p->local_rows * k, sizeof *y, "image of the right vectors");
    st = y == NULL ? DPT_ERR_OUTPUT : dpt_svd_allocate(p, k, out);
    if (st == DPT_OK)
        st = image(p, &pairs, y);
    st = dpt_agree(p->comm, st);
    for (int64_t i = 0; st == DPT_OK && i < k; i++)
        for (int64_t j = 0; j < p->cols; j++)
            out->v[j * k + i] = (float)pairs.vectors[i * p->cols + j];
    dpt_eigen_destroy(&pairs);
    if (st == DPT_OK)
        st = dpt_panel_work_create(p->comm, k, &work);
    if (st == DPT_OK)
        st = dpt_panel_gram_f64(p->comm, p->local_rows, k, y, &work);
    if (st == DPT_OK)
        st = left_vectors(p, k, values_from_gram(k, work.gram, out->s), y, &work, out->u);
    dpt_mem_free(y);
    if (st == DPT_OK)
        st = check(p, out, &work, good);
    dpt_panel_work_destroy(&work);
    return st;
}

/* A matrix that is not clearly wider than tall: the Gram matrix of its columns. */
static dpt_status exact_tall(const dpt_svd_problem *p, dpt_svd *out) {
    dpt_eigen_solver solver =
        p->rank > 0 && 2 * p->rank <= p->cols ? DPT_EIGEN_LEADING : DPT_EIGEN_ALL;
    bool good = false;
    dpt_status st = attempt(p, solver, out, &good);
    if (!good && solver == DPT_EIGEN_LEADING && st != DPT_ERR_OUTPUT) {
        dpt_error_clear();
        dpt_svd_destroy(out);
        st = attempt(p, DPT_EIGEN_ALL, out, &good);
    }
    if (st == DPT_OK && !good)
        st = dpt_error(DPT_ERR_INTERNAL, "%s: the exact svd fails its residual check", p->name);
    return st;
}

/* Row slabs of A (rows, cols) to row slabs of A^T (cols, rows): rank q gets share q of the columns. */
static dpt_status transpose(const dpt_svd_problem *p, const int64_t *first_row, float **out) {
    const dpt_comm *comm = p->comm;
    int64_t first = dpt_panel_share(p->cols, comm->rank, comm->size);
    int64_t own = dpt_panel_share(p->cols, comm->rank + 1, comm->size) - first;
    float *packed = dpt_mem_alloc(p->local_rows * p->cols, sizeof *packed, "packed slab");
    float *got = dpt_mem_alloc(own * p->rows, sizeof *got, "received columns");
    float *turned = dpt_mem_alloc(own * p->rows, sizeof *turned, "transposed slab");
    int64_t *counts = dpt_mem_alloc(2 * (int64_t)comm->size, sizeof *counts, "exchange counts");
    dpt_status st =
        packed == NULL || got == NULL || turned == NULL || counts == NULL ? DPT_ERR_OUTPUT : DPT_OK;
    st = dpt_agree(comm, st);
    if (st == DPT_OK) {
        float *to = packed;
        for (int q = 0; q < comm->size; q++) {
            int64_t j0 = dpt_panel_share(p->cols, q, comm->size);
            int64_t w = dpt_panel_share(p->cols, q + 1, comm->size) - j0;
            for (int64_t i = 0; i < p->local_rows; i++, to += w)
                memcpy(to, p->slab + i * p->cols + j0, (size_t)w * sizeof *to);
            counts[q] = p->local_rows * w * (int64_t)sizeof *packed;
            counts[comm->size + q] =
                (first_row[q + 1] - first_row[q]) * own * (int64_t)sizeof *packed;
        }
        st = dpt_comm_exchange(comm, packed, counts, got, counts + comm->size);
    }
    /* The blocks arrive in rank order: got is (rows, own). */
    enum { TILE = 32 };
    for (int64_t i0 = 0; st == DPT_OK && i0 < p->rows; i0 += TILE)
        for (int64_t j = 0; j < own; j++)
            for (int64_t i = i0; i < i0 + TILE && i < p->rows; i++)
                turned[j * p->rows + i] = got[i * own + j];
    dpt_mem_free(counts);
    dpt_mem_free(got);
    dpt_mem_free(packed);
    *out = turned;
    return st;
}

/* First row of every rank; (size + 1) values. */
static dpt_status row_table(const dpt_svd_problem *p, int64_t **out) {
    int size = p->comm->size;
    int64_t *first = dpt_mem_zalloc(size + 1, sizeof *first, "first rows");
    dpt_status st = dpt_agree(p->comm, first == NULL ? DPT_ERR_OUTPUT : DPT_OK);
    *out = first;
    if (st != DPT_OK)
        return st;
    first[p->comm->rank] = p->row0;
    first[size] = p->comm->rank == 0 ? p->rows : 0;
    return dpt_comm_sum_i64(p->comm, first, size + 1);
}

/* A wide matrix through its transpose: A^T = U' S V'^T, so U = V' and V = U'. */
static dpt_status exact_wide(const dpt_svd_problem *p, dpt_svd *out) {
    const dpt_comm *comm = p->comm;
    int64_t *first_row = NULL;
    int *counts = NULL;
    float *slab = NULL;
    dpt_svd turned = {.rank = 0};
    dpt_svd_problem q = *p;
    dpt_status st = row_table(p, &first_row);
    if (st == DPT_OK)
        st = transpose(p, first_row, &slab);
    if (st == DPT_OK) {
        q.rows = p->cols;
        q.cols = p->rows;
        q.row0 = dpt_panel_share(p->cols, comm->rank, comm->size);
        q.local_rows = dpt_panel_share(p->cols, comm->rank + 1, comm->size) - q.row0;
        q.slab = slab;
        st = exact_tall(&q, &turned);
    }
    if (st == DPT_OK) {
        counts = dpt_mem_alloc(2 * (int64_t)comm->size, sizeof *counts, "counts of shares");
        st = counts == NULL ? DPT_ERR_OUTPUT : dpt_svd_allocate(p, turned.rank, out);
        st = dpt_agree(comm, st);
    }
    if (st == DPT_OK) {
        int64_t k = turned.rank;
        memcpy(out->s, turned.s, (size_t)k * sizeof *out->s);
        memcpy(out->s_error, turned.s_error, (size_t)k * sizeof *out->s_error);
        memcpy(out->u, turned.v + p->row0 * k, (size_t)(p->local_rows * k) * sizeof *out->u);
        st = dpt_panel_gather_shares(comm, p->cols, k, turned.u, out->v, counts);
    }
    dpt_svd_destroy(&turned);
    dpt_mem_free(counts);
    dpt_mem_free(slab);
    dpt_mem_free(first_row);
    return st;
}

dpt_status dpt_svd_exact(const dpt_svd_problem *problem, dpt_svd *out) {
    /* A slightly wide matrix is not worth the exchange. */
    bool wide = 8 * problem->rows < 7 * problem->cols;
    dpt_status st = wide ? exact_wide(problem, out) : exact_tall(problem, out);
    out->used = DPT_SVD_EXACT;
    return st;
}
