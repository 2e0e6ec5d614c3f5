#include "panel.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"

#include <cblas.h>
#include <lapacke.h>
#include <limits.h>
#include <math.h>
#include <string.h>

enum { PASSES_MAX = 6 };

/* A pivot below this means that fp32 rounding would show in the orthogonality after one pass. */
static const double SINGULAR_PIVOT = 1e-4;
static const double LOOSE_PIVOT = 1e-2;
static const double STRICT_PIVOT = 0.3;
static const double STRICT_DEVIATION = 1e-6;
static const double TINY_COLUMN = 1e-14; /* norm ratio of a column that counts as zero */

static void mirror_upper(int64_t n, double *g) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < i; j++)
            g[i * n + j] = g[j * n + i];
}

/* message: status, width, quality, deviation, mixed; roots; t. */
enum { HEAD = 5 };

dpt_status dpt_panel_work_create(const dpt_comm *comm, int64_t width, dpt_panel_work *out) {
    DPT_ASSERT_SAME(comm, width);
    int64_t square = width * width, root = comm->rank == 0;
    *out = (dpt_panel_work){.width = width};
    out->gram = dpt_mem_alloc(square, sizeof *out->gram, "Gram matrix of a panel");
    out->message = dpt_mem_alloc(HEAD + width + square, sizeof *out->message, "panel factor");
    out->scaled = dpt_mem_alloc(square * root, sizeof *out->scaled, "scaled Gram matrix");
    out->scales = dpt_mem_alloc(2 * width * root, sizeof *out->scales, "column scales");
    out->chunk = dpt_mem_alloc(DPT_PANEL_CHUNK * width, sizeof *out->chunk, "panel rows in double");
    out->turned = dpt_mem_alloc(DPT_PANEL_CHUNK * width, sizeof *out->turned, "panel rows");
    out->factor = dpt_mem_alloc(square, sizeof *out->factor, "panel factor in single");
    bool short_of = out->gram == NULL || out->message == NULL || out->scaled == NULL ||
                    out->scales == NULL || out->chunk == NULL || out->turned == NULL ||
                    out->factor == NULL;
    dpt_status st = dpt_agree(comm, short_of ? DPT_ERR_OUTPUT : DPT_OK);
    if (st != DPT_OK) {
        dpt_panel_work_destroy(out);
        return st;
    }
    out->roots = out->message + HEAD;
    out->t = out->roots + width;
    return DPT_OK;
}

void dpt_panel_work_destroy(dpt_panel_work *work) {
    dpt_mem_free(work->gram);
    dpt_mem_free(work->message);
    dpt_mem_free(work->scaled);
    dpt_mem_free(work->scales);
    dpt_mem_free(work->chunk);
    dpt_mem_free(work->turned);
    dpt_mem_free(work->factor);
    *work = (dpt_panel_work){.width = 0};
}

dpt_status dpt_panel_gram_f64(const dpt_comm *comm, int64_t rows, int64_t width, const double *y,
                              dpt_panel_work *work) {
    DPT_ASSERT_SAME(comm, width);
    int w = (int)width;
    memset(work->gram, 0, (size_t)(width * width) * sizeof *work->gram);
    if (rows > 0 && width > 0)
        cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, w, (int)rows, 1.0, y, w, 0.0, work->gram,
                    w);
    dpt_status st = dpt_comm_sum_f64(comm, work->gram, width * width);
    mirror_upper(width, work->gram);
    return st;
}

dpt_status dpt_panel_gram_f32(const dpt_comm *comm, int64_t rows, int64_t width, const float *y,
                              dpt_panel_work *work) {
    DPT_ASSERT_SAME(comm, width);
    int w = (int)width;
    memset(work->gram, 0, (size_t)(width * width) * sizeof *work->gram);
    for (int64_t i = 0; width > 0 && i < rows; i += DPT_PANEL_CHUNK) {
        int64_t n = rows - i < DPT_PANEL_CHUNK ? rows - i : DPT_PANEL_CHUNK;
        const float *from = y + i * width;
        for (int64_t e = 0; e < n * width; e++)
            work->chunk[e] = from[e];
        cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, w, (int)n, 1.0, work->chunk, w, 1.0,
                    work->gram, w);
    }
    dpt_status st = dpt_comm_sum_f64(comm, work->gram, width * width);
    mirror_upper(width, work->gram);
    return st;
}

static void reverse(int64_t n, double *values) {
    for (int64_t i = 0; i < n - 1 - i; i++) {
        double swap = values[i];
        values[i] = values[n - 1 - i];
        values[n - 1 - i] = swap;
    }
}

/* T from the eigenvectors of the scaled Gram matrix, largest first, small ones dropped. */
static dpt_status solve_by_eigenvectors(int64_t n, double drop, dpt_panel_work *work,
                                        dpt_panel_transform *out) {
    double *w = work->scales + work->width, *c = work->scaled;
    int info = LAPACKE_dsyevd(LAPACK_COL_MAJOR, 'V', 'U', (int)n, c, (int)n, w);
    if (info != 0)
        return dpt_error(DPT_ERR_INTERNAL, "svd: DSYEVD of a Gram matrix gave info %d", info);
    double largest = w[n - 1];
    int64_t kept = 0;
    while (kept < n && largest > 0.0 && w[n - 1 - kept] > drop * largest)
        kept++;
    for (int64_t j = 0; j < kept; j++)
        for (int64_t i = 0; i < n; i++)
            work->t[i * kept + j] = c[(n - 1 - j) * n + i] * work->scales[i] / sqrt(w[n - 1 - j]);
    out->width = kept;
    out->mixed = true;
    out->quality = kept > 0 ? sqrt(w[n - kept] / largest) : 1.0;
    return DPT_OK;
}

/* T = D^-1 R^-1 with D^-1 G D^-1 = R^T R. @return false when a pivot is too small. */
static bool solve_by_cholesky(int64_t n, dpt_panel_work *work, dpt_panel_transform *out) {
    double *c = work->scaled;
    if (LAPACKE_dpotrf(LAPACK_COL_MAJOR, 'U', (int)n, c, (int)n) != 0)
        return false;
    double minimum = 1.0;
    for (int64_t j = 0; j < n; j++)
        minimum = fmin(minimum, c[j * n + j]);
    if (!(minimum >= SINGULAR_PIVOT) ||
        LAPACKE_dtrtri(LAPACK_COL_MAJOR, 'U', 'N', (int)n, c, (int)n) != 0)
        return false;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++)
            work->t[i * n + j] = i <= j ? c[j * n + i] * work->scales[i] : 0.0;
    out->width = n;
    out->quality = minimum;
    return true;
}

static void scale_gram(int64_t n, dpt_panel_work *work) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++)
            work->scaled[i * n + j] = work->gram[i * n + j] * work->scales[i] * work->scales[j];
}

static dpt_status roots_here(int64_t n, bool vectors, dpt_panel_work *work) {
    memcpy(work->scaled, work->gram, (size_t)(n * n) * sizeof *work->scaled);
    int info = LAPACKE_dsyevd(LAPACK_COL_MAJOR, vectors ? 'V' : 'N', 'U', (int)n, work->scaled,
                              (int)n, work->roots);
    if (info != 0)
        return dpt_error(DPT_ERR_INTERNAL, "svd: DSYEVD of a Gram matrix gave info %d", info);
    reverse(n, work->roots);
    for (int64_t i = 0; vectors && i < n; i++)
        for (int64_t j = 0; j < n; j++)
            work->t[i * n + j] = work->scaled[(n - 1 - j) * n + i];
    return DPT_OK;
}

static dpt_status panel_solve_here(int64_t n, double drop, dpt_panel_work *work,
                                   dpt_panel_transform *out) {
    double largest = 0.0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            double g = work->gram[i * n + j];
            if (!isfinite(g))
                return dpt_error(DPT_ERR_INTERNAL, "svd: a Gram matrix is not finite");
            out->deviation = fmax(out->deviation, fabs(g - (i == j)));
            if (i == j)
                largest = fmax(largest, g);
        }
    if (largest <= 0.0)
        return DPT_OK;
    for (int64_t i = 0; i < n; i++) {
        double norm = sqrt(fmax(0.0, work->gram[i * n + i]));
        work->scales[i] = norm > TINY_COLUMN * sqrt(largest) ? 1.0 / norm : 0.0;
    }
    scale_gram(n, work);
    if (solve_by_cholesky(n, work, out))
        return DPT_OK;
    scale_gram(n, work);
    return solve_by_eigenvectors(n, drop, work, out);
}

/* Rank 0 tells all others its status, the head, and `count` values of roots and t. */
static dpt_status tell(const dpt_comm *comm, dpt_status st, int64_t count, dpt_panel_work *work) {
    work->message[0] = st;
    dpt_status sent =
        dpt_comm_broadcast(comm, work->message, (HEAD + count) * (int64_t)sizeof(double), 0);
    if (sent != DPT_OK || work->message[0] != DPT_OK)
        return dpt_agree(comm, comm->rank == 0 ? st : sent);
    return DPT_OK;
}

dpt_status dpt_panel_solve(const dpt_comm *comm, int64_t width, double drop, dpt_panel_work *work,
                           dpt_panel_transform *out) {
    DPT_ASSERT_SAME(comm, width);
    DPT_ASSERT_SAME(comm, drop);
    *out = (dpt_panel_transform){.width = 0, .quality = 1.0, .deviation = 0.0};
    DPT_ASSERT(width <= work->width);
    if (width == 0)
        return DPT_OK;
    dpt_status st = DPT_OK;
    if (comm->rank == 0) {
        st = panel_solve_here(width, drop, work, out);
        work->message[1] = (double)out->width;
        work->message[2] = out->quality;
        work->message[3] = out->deviation;
        work->message[4] = out->mixed;
    }
    st = tell(comm, st, work->width + width * width, work);
    *out = (dpt_panel_transform){.width = (int64_t)work->message[1],
                                 .quality = work->message[2],
                                 .deviation = work->message[3],
                                 .mixed = work->message[4] != 0.0};
    DPT_ASSERT(st != DPT_OK || (out->width >= 0 && out->width <= width));
    return st;
}

dpt_status dpt_panel_eigen(const dpt_comm *comm, int64_t width, bool vectors,
                           dpt_panel_work *work) {
    DPT_ASSERT_SAME(comm, width);
    DPT_ASSERT_SAME(comm, vectors);
    dpt_status st = comm->rank == 0 ? roots_here(width, vectors, work) : DPT_OK;
    return tell(comm, st, work->width + (vectors ? width * width : 0), work);
}

/* In double, so that a row comes out the same wherever its slab begins. */
void dpt_panel_apply(int64_t rows, int64_t width, float *y, const dpt_panel_transform *step,
                     dpt_panel_work *work) {
    int64_t t_width = step->width;
    if (rows == 0 || t_width == 0)
        return;
    /* Row i moves to i * t_width <= i * width: never onto rows that are still to be read. */
    for (int64_t i = 0; i < rows; i += DPT_PANEL_CHUNK) {
        int64_t n = rows - i < DPT_PANEL_CHUNK ? rows - i : DPT_PANEL_CHUNK;
        double *from = work->chunk, *to = step->mixed ? work->turned : from;
        for (int64_t e = 0; e < n * width; e++)
            from[e] = y[i * width + e];
        if (step->mixed)
            cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, (int)t_width, (int)width,
                        1.0, from, (int)width, work->t, (int)t_width, 0.0, to, (int)t_width);
        else
            cblas_dtrmm(CblasRowMajor, CblasRight, CblasUpper, CblasNoTrans, CblasNonUnit, (int)n,
                        (int)width, 1.0, work->t, (int)width, to, (int)width);
        for (int64_t e = 0; e < n * t_width; e++)
            y[i * t_width + e] = (float)to[e];
    }
}

dpt_status dpt_panel_orthonormalise(const dpt_comm *comm, int64_t rows, int64_t *width, float *y,
                                    dpt_panel_basis basis, dpt_panel_work *work) {
    DPT_ASSERT_SAME(comm, *width);
    DPT_ASSERT_SAME(comm, basis);
    double enough = basis == DPT_PANEL_LOOSE ? LOOSE_PIVOT : STRICT_PIVOT;
    for (int pass = 0; *width > 0 && pass < PASSES_MAX; pass++) {
        dpt_panel_transform step;
        dpt_status st = dpt_panel_gram_f32(comm, rows, *width, y, work);
        if (st == DPT_OK)
            st = dpt_panel_solve(comm, *width, DPT_PANEL_DROP, work, &step);
        if (st != DPT_OK)
            return st;
        if (step.deviation <= STRICT_DEVIATION)
            return DPT_OK;
        if (step.mixed && basis == DPT_PANEL_KEEP)
            return dpt_error(DPT_ERR_INTERNAL, "svd: singular vectors came out dependent");
        dpt_panel_apply(rows, *width, y, &step, work);
        *width = step.width;
        if (step.quality >= enough)
            return DPT_OK;
    }
    return *width == 0 ? DPT_OK
                       : dpt_error(DPT_ERR_INTERNAL, "svd: a basis of %lld columns stays dependent",
                                   (long long)*width);
}

dpt_status dpt_panel_fill(dpt_rng stream, int64_t ig0, int64_t rows, int64_t width, float *y) {
    uint32_t *words = dpt_mem_alloc(width, sizeof *words, "random words");
    if (words == NULL)
        return DPT_ERR_OUTPUT;
    for (int64_t i = 0; i < rows; i++) {
        dpt_rng_words(stream, (ig0 + i) * width, width, words);
        for (int64_t j = 0; j < width; j++)
            y[i * width + j] = (float)(int32_t)words[j] * 0x1p-31f;
    }
    dpt_mem_free(words);
    return DPT_OK;
}

/* x (rows, extra) loses its parts along the columns of q (rows, have), which sits in y (rows, ld). */
static dpt_status project_out(const dpt_comm *comm, int64_t rows, int64_t have, int64_t ld,
                              const float *y, int64_t extra, float *x, float *overlap) {
    memset(overlap, 0, (size_t)(have * extra) * sizeof *overlap);
    if (have == 0)
        return DPT_OK;
    int q = (int)have, e = (int)extra;
    if (rows > 0)
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, q, e, (int)rows, 1.0f, y, (int)ld, x,
                    e, 0.0f, overlap, e);
    dpt_status st = dpt_comm_sum_f32(comm, overlap, have * extra);
    if (rows > 0)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)rows, e, q, -1.0f, y, (int)ld,
                    overlap, e, 1.0f, x, e);
    return st;
}

dpt_status dpt_panel_complete(const dpt_comm *comm, int64_t ig0, int64_t rows, int64_t have,
                              int64_t want, dpt_rng stream, float *y) {
    DPT_ASSERT_SAME(comm, have);
    DPT_ASSERT_SAME(comm, want);
    DPT_ASSERT_SAME(comm, stream.key);
    DPT_ASSERT_SAME(comm, stream.purpose);
    int64_t extra = want - have;
    if (extra <= 0)
        return DPT_OK;
    float *x = dpt_mem_alloc(rows * extra, sizeof *x, "completion of a basis");
    float *overlap = dpt_mem_alloc(have * extra, sizeof *overlap, "overlap of a basis");
    dpt_panel_work work = {.width = 0};
    dpt_status st =
        x == NULL || overlap == NULL ? DPT_ERR_OUTPUT : dpt_panel_fill(stream, ig0, rows, extra, x);
    st = dpt_agree(comm, st);
    if (st == DPT_OK)
        st = dpt_panel_work_create(comm, extra, &work);
    int64_t found = extra;
    /* Near a full basis little of x is left after the first projection: three rounds clean it. */
    for (int round = 0; st == DPT_OK && round < 3; round++) {
        st = project_out(comm, rows, have, want, y, extra, x, overlap);
        if (st == DPT_OK)
            st = dpt_panel_orthonormalise(comm, rows, &found, x, DPT_PANEL_STRICT, &work);
        if (st == DPT_OK && found < extra)
            st = dpt_error(DPT_ERR_INTERNAL, "svd: a basis could not be completed to %lld columns",
                           (long long)want);
    }
    for (int64_t i = 0; st == DPT_OK && i < rows; i++)
        memcpy(y + i * want + have, x + i * extra, (size_t)extra * sizeof *x);
    dpt_panel_work_destroy(&work);
    dpt_mem_free(overlap);
    dpt_mem_free(x);
    return st;
}

/* counts: rows of each rank, then first rows. */
static void share_table(const dpt_comm *comm, int64_t n, int *counts) {
    for (int r = 0; r < comm->size; r++) {
        counts[comm->size + r] = (int)dpt_panel_share(n, r, comm->size);
        counts[r] = (int)dpt_panel_share(n, r + 1, comm->size) - counts[comm->size + r];
    }
}

dpt_status dpt_panel_sum_to_shares(const dpt_comm *comm, int64_t n, int64_t width, float *whole,
                                   float *share, int *counts) {
    share_table(comm, n, counts);
    if (comm->size == 1 || n * width > INT_MAX) {
        dpt_status st = dpt_comm_sum_f32(comm, whole, n * width);
        memcpy(share, whole + counts[comm->size + comm->rank] * width,
               (size_t)(counts[comm->rank] * width) * sizeof *share);
        return st;
    }
    for (int r = 0; r < comm->size; r++)
        counts[r] *= (int)width;
    return dpt_comm_check(MPI_Reduce_scatter(whole, share, counts, MPI_FLOAT, MPI_SUM, comm->mpi),
                          "MPI_Reduce_scatter");
}

dpt_status dpt_panel_sum_to_shares_f64(const dpt_comm *comm, int64_t n, int64_t width,
                                       double *whole, float *share, int *counts) {
    share_table(comm, n, counts);
    int64_t own = counts[comm->rank] * width;
    const double *sum = whole;
    dpt_status st;
    if (comm->size == 1 || n * width > INT_MAX) {
        sum += counts[comm->size + comm->rank] * width;
        st = dpt_comm_sum_f64(comm, whole, n * width);
    } else {
        for (int r = 0; r < comm->size; r++)
            counts[r] *= (int)width;
        st = dpt_comm_check(
            MPI_Reduce_scatter(MPI_IN_PLACE, whole, counts, MPI_DOUBLE, MPI_SUM, comm->mpi),
            "MPI_Reduce_scatter");
    }
    for (int64_t e = 0; e < own; e++)
        share[e] = (float)sum[e];
    return st;
}

dpt_status dpt_panel_gather_shares(const dpt_comm *comm, int64_t n, int64_t width,
                                   const float *share, float *whole, int *counts) {
    if (width == 0)
        return DPT_OK;
    share_table(comm, n, counts);
    /* Whole rows as the unit keep the counts within int. */
    MPI_Datatype row;
    (void)dpt_comm_check(MPI_Type_contiguous((int)width, MPI_FLOAT, &row), "MPI_Type_contiguous");
    (void)dpt_comm_check(MPI_Type_commit(&row), "MPI_Type_commit");
    int code = MPI_Allgatherv(share, counts[comm->rank], row, whole, counts, counts + comm->size,
                              row, comm->mpi);
    MPI_Type_free(&row);
    return dpt_comm_check(code, "MPI_Allgatherv");
}
