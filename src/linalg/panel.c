#include "panel.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"

#include <cblas.h>
#include <lapacke.h>
#include <limits.h>
#include <math.h>
#include <string.h>

enum { CHUNK_ROWS = 256, PASSES_MAX = 6 };

/* A pivot below this means that fp32 rounding would show in the orthogonality after one pass. */
static const double SINGULAR_PIVOT = 1e-4;
static const double LOOSE_PIVOT = 1e-2;
static const double STRICT_PIVOT = 0.3;
static const double STRICT_DEVIATION = 1e-6;
static const double FP32_DROP = 1e-12;   /* eigenvalue ratio: directions that are rounding noise */
static const double TINY_COLUMN = 1e-14; /* norm ratio of a column that counts as zero */

static void mirror_upper(int64_t n, double *g) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < i; j++)
            g[i * n + j] = g[j * n + i];
}

dpt_status dpt_panel_gram_f64(const dpt_comm *comm, int64_t rows, int64_t width, const double *y,
                              double *gram) {
    int w = (int)width;
    memset(gram, 0, (size_t)(width * width) * sizeof *gram);
    if (width == 0)
        return DPT_OK;
    if (rows > 0)
        cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, w, (int)rows, 1.0, y, w, 0.0, gram, w);
    dpt_status st = dpt_comm_sum_f64(comm, gram, width * width);
    mirror_upper(width, gram);
    return st;
}

dpt_status dpt_panel_gram_f32(const dpt_comm *comm, int64_t rows, int64_t width, const float *y,
                              double *gram) {
    int w = (int)width;
    memset(gram, 0, (size_t)(width * width) * sizeof *gram);
    if (width == 0)
        return DPT_OK;
    double *chunk = dpt_mem_alloc(CHUNK_ROWS * width, sizeof *chunk, "panel rows in double");
    dpt_status st = dpt_agree(comm, chunk == NULL ? DPT_ERR_OUTPUT : DPT_OK);
    if (st != DPT_OK)
        goto done;
    for (int64_t i = 0; i < rows; i += CHUNK_ROWS) {
        int64_t n = rows - i < CHUNK_ROWS ? rows - i : CHUNK_ROWS;
        for (int64_t e = 0; e < n * width; e++)
            chunk[e] = y[i * width + e];
        cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, w, (int)n, 1.0, chunk, w, 1.0, gram, w);
    }
    st = dpt_comm_sum_f64(comm, gram, width * width);
    mirror_upper(width, gram);
done:
    dpt_mem_free(chunk);
    return st;
}

/* T from the eigenvectors of the scaled Gram matrix c, largest first, small ones dropped. */
static dpt_status solve_by_eigenvectors(int64_t n, double *c, const double *scale, double drop,
                                        double *t, dpt_panel_transform *out) {
    double *w = dpt_mem_alloc(n, sizeof *w, "eigenvalues of a Gram matrix");
    if (w == NULL)
        return DPT_ERR_OUTPUT;
    int info = LAPACKE_dsyevd(LAPACK_COL_MAJOR, 'V', 'U', (int)n, c, (int)n, w);
    if (info != 0) {
        dpt_mem_free(w);
        return dpt_error(DPT_ERR_INTERNAL, "svd: DSYEVD of a Gram matrix gave info %d", info);
    }
    double largest = w[n - 1];
    int64_t kept = 0;
    while (kept < n && largest > 0.0 && w[n - 1 - kept] > drop * largest)
        kept++;
    for (int64_t j = 0; j < kept; j++)
        for (int64_t i = 0; i < n; i++)
            t[i * kept + j] = c[(n - 1 - j) * n + i] * scale[i] / sqrt(w[n - 1 - j]);
    out->width = kept;
    out->mixed = true;
    out->quality = kept > 0 ? sqrt(w[n - kept] / largest) : 1.0;
    dpt_mem_free(w);
    return DPT_OK;
}

/* T = D^-1 R^-1 with D^-1 G D^-1 = R^T R. @return false when a pivot is too small. */
static bool solve_by_cholesky(int64_t n, double *c, const double *scale, double *t,
                              dpt_panel_transform *out) {
    if (LAPACKE_dpotrf(LAPACK_COL_MAJOR, 'U', (int)n, c, (int)n) != 0)
        return false;
    double least = 1.0;
    for (int64_t j = 0; j < n; j++)
        least = fmin(least, c[j * n + j]);
    if (!(least >= SINGULAR_PIVOT) ||
        LAPACKE_dtrtri(LAPACK_COL_MAJOR, 'U', 'N', (int)n, c, (int)n) != 0)
        return false;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++)
            t[i * n + j] = i <= j ? c[j * n + i] * scale[i] : 0.0;
    out->width = n;
    out->quality = least;
    return true;
}

static dpt_status solve_here(int64_t n, const double *gram, double drop, double *t,
                             dpt_panel_transform *out) {
    *out = (dpt_panel_transform){.width = 0, .quality = 1.0, .deviation = 0.0};
    double largest = 0.0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            double g = gram[i * n + j];
            if (!isfinite(g))
                return dpt_error(DPT_ERR_INTERNAL, "svd: a Gram matrix is not finite");
            out->deviation = fmax(out->deviation, fabs(g - (i == j)));
            if (i == j)
                largest = fmax(largest, g);
        }
    double *c = dpt_mem_alloc(n * n, sizeof *c, "scaled Gram matrix");
    double *scale = dpt_mem_alloc(n, sizeof *scale, "column scales");
    dpt_status st = c == NULL || scale == NULL ? DPT_ERR_OUTPUT : DPT_OK;
    if (st == DPT_OK && largest > 0.0) {
        for (int64_t i = 0; i < n; i++) {
            double norm = sqrt(fmax(0.0, gram[i * n + i]));
            scale[i] = norm > TINY_COLUMN * sqrt(largest) ? 1.0 / norm : 0.0;
        }
        for (int attempt = 0; attempt < 2; attempt++) {
            for (int64_t e = 0; e < n * n; e++)
                c[e] = gram[e] * scale[e / n] * scale[e % n];
            if (attempt == 0 && solve_by_cholesky(n, c, scale, t, out))
                break;
            if (attempt == 1)
                st = solve_by_eigenvectors(n, c, scale, drop, t, out);
        }
    }
    dpt_mem_free(c);
    dpt_mem_free(scale);
    return st;
}

dpt_status dpt_panel_solve(const dpt_comm *comm, int64_t width, const double *gram, double drop,
                           double *t, dpt_panel_transform *out) {
    *out = (dpt_panel_transform){.width = 0, .quality = 1.0, .deviation = 0.0};
    if (width == 0)
        return DPT_OK;
    dpt_status st = comm->rank == 0 ? solve_here(width, gram, drop, t, out) : DPT_OK;
    st = dpt_agree(comm, st);
    if (st == DPT_OK)
        st = dpt_comm_broadcast(comm, out, sizeof *out, 0);
    if (st == DPT_OK)
        st = dpt_comm_broadcast(comm, t, width * out->width * (int64_t)sizeof *t, 0);
    return st;
}

dpt_status dpt_panel_apply(int64_t rows, int64_t width, float *y, int64_t t_width,
                           const double *t) {
    if (rows == 0 || t_width == 0)
        return DPT_OK;
    float *factor = dpt_mem_alloc(width * t_width, sizeof *factor, "panel factor");
    float *chunk = dpt_mem_alloc(CHUNK_ROWS * width, sizeof *chunk, "panel rows");
    dpt_status st = factor == NULL || chunk == NULL ? DPT_ERR_OUTPUT : DPT_OK;
    if (st == DPT_OK) {
        for (int64_t e = 0; e < width * t_width; e++)
            factor[e] = (float)t[e];
        /* Row i moves to i * t_width <= i * width: never onto rows that are still to be read. */
        for (int64_t i = 0; i < rows; i += CHUNK_ROWS) {
            int64_t n = rows - i < CHUNK_ROWS ? rows - i : CHUNK_ROWS;
            memcpy(chunk, y + i * width, (size_t)(n * width) * sizeof *chunk);
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, (int)t_width, (int)width,
                        1.0f, chunk, (int)width, factor, (int)t_width, 0.0f, y + i * t_width,
                        (int)t_width);
        }
    }
    dpt_mem_free(chunk);
    dpt_mem_free(factor);
    return st;
}

dpt_status dpt_panel_orthonormalise(const dpt_comm *comm, int64_t rows, int64_t *width, float *y,
                                    dpt_panel_basis basis) {
    double enough = basis == DPT_PANEL_LOOSE ? LOOSE_PIVOT : STRICT_PIVOT;
    double *gram = dpt_mem_alloc(*width * *width, sizeof *gram, "Gram matrix of a panel");
    double *t = dpt_mem_alloc(*width * *width, sizeof *t, "panel factor");
    dpt_status st = dpt_agree(comm, gram == NULL || t == NULL ? DPT_ERR_OUTPUT : DPT_OK);
    bool good = *width == 0;
    for (int pass = 0; st == DPT_OK && !good && pass < PASSES_MAX; pass++) {
        dpt_panel_transform step;
        st = dpt_panel_gram_f32(comm, rows, *width, y, gram);
        if (st == DPT_OK)
            st = dpt_panel_solve(comm, *width, gram, FP32_DROP, t, &step);
        if (st != DPT_OK)
            break;
        if (step.deviation <= STRICT_DEVIATION)
            break;
        st = dpt_agree(comm, dpt_panel_apply(rows, *width, y, step.width, t));
        *width = step.width;
        good = step.width == 0 || step.quality >= enough;
        bool stuck = pass + 1 == PASSES_MAX && !good;
        if (st == DPT_OK && (stuck || (step.mixed && basis == DPT_PANEL_KEEP)))
            st = dpt_error(DPT_ERR_INTERNAL, "svd: a basis of %lld columns stays dependent",
                           (long long)*width);
    }
    dpt_mem_free(t);
    dpt_mem_free(gram);
    return st;
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
    int64_t extra = want - have;
    if (extra <= 0)
        return DPT_OK;
    float *x = dpt_mem_alloc(rows * extra, sizeof *x, "completion of a basis");
    float *overlap = dpt_mem_alloc(have * extra, sizeof *overlap, "overlap of a basis");
    dpt_status st =
        x == NULL || overlap == NULL ? DPT_ERR_OUTPUT : dpt_panel_fill(stream, ig0, rows, extra, x);
    st = dpt_agree(comm, st);
    int64_t found = extra;
    /* Near a full basis little of x is left after the first projection: three rounds clean it. */
    for (int round = 0; st == DPT_OK && round < 3; round++) {
        st = project_out(comm, rows, have, want, y, extra, x, overlap);
        if (st == DPT_OK)
            st = dpt_panel_orthonormalise(comm, rows, &found, x, DPT_PANEL_STRICT);
        if (st == DPT_OK && found < extra)
            st = dpt_error(DPT_ERR_INTERNAL, "svd: a basis could not be completed to %lld columns",
                           (long long)want);
    }
    for (int64_t i = 0; st == DPT_OK && i < rows; i++)
        memcpy(y + i * want + have, x + i * extra, (size_t)extra * sizeof *x);
    dpt_mem_free(overlap);
    dpt_mem_free(x);
    return st;
}

dpt_status dpt_panel_sum_to_shares(const dpt_comm *comm, int64_t n, int64_t width, float *whole,
                                   float *share) {
    int64_t first = dpt_panel_share(n, comm->rank, comm->size);
    int64_t own = dpt_panel_share(n, comm->rank + 1, comm->size) - first;
    dpt_status st = DPT_OK;
    int *counts = NULL;
    if (comm->size == 1 || n * width > INT_MAX) {
        st = dpt_comm_sum_f32(comm, whole, n * width);
        memcpy(share, whole + first * width, (size_t)(own * width) * sizeof *share);
        return st;
    }
    counts = dpt_mem_alloc(comm->size, sizeof *counts, "counts of a reduction");
    st = dpt_agree(comm, counts == NULL ? DPT_ERR_OUTPUT : DPT_OK);
    if (st == DPT_OK) {
        for (int r = 0; r < comm->size; r++)
            counts[r] =
                (int)((dpt_panel_share(n, r + 1, comm->size) - dpt_panel_share(n, r, comm->size)) *
                      width);
        if (MPI_Reduce_scatter(whole, share, counts, MPI_FLOAT, MPI_SUM, comm->mpi) != MPI_SUCCESS)
            st = dpt_error(DPT_ERR_INTERNAL, "svd: MPI_Reduce_scatter failed");
    }
    dpt_mem_free(counts);
    return st;
}

dpt_status dpt_panel_gather_shares(const dpt_comm *comm, int64_t n, int64_t width,
                                   const float *share, float *whole) {
    int *counts = dpt_mem_alloc(2 * (int64_t)comm->size, sizeof *counts, "counts of a gathering");
    dpt_status st = dpt_agree(comm, counts == NULL ? DPT_ERR_OUTPUT : DPT_OK);
    if (st == DPT_OK && width > 0) {
        /* Whole rows as the unit keep the counts within int. */
        MPI_Datatype row;
        MPI_Type_contiguous((int)width, MPI_FLOAT, &row);
        MPI_Type_commit(&row);
        for (int r = 0; r < comm->size; r++) {
            counts[comm->size + r] = (int)dpt_panel_share(n, r, comm->size);
            counts[r] = (int)dpt_panel_share(n, r + 1, comm->size) - counts[comm->size + r];
        }
        if (MPI_Allgatherv(share, counts[comm->rank], row, whole, counts, counts + comm->size, row,
                           comm->mpi) != MPI_SUCCESS)
            st = dpt_error(DPT_ERR_INTERNAL, "svd: MPI_Allgatherv failed");
        MPI_Type_free(&row);
    }
    dpt_mem_free(counts);
    return st;
}
