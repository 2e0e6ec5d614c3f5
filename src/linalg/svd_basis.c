#include "svd_basis.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

/* Why bases by Cholesky of Gram matrices, not by QR: a tall QR over ranks is a tree of messages, Cholesky QR one sum of a
 * small matrix. It squares the condition of the panel, which fp32 does not forgive: hence Gram matrices in double, and
 * repeated passes. What the passes leave is put right by T, for the Gram matrix of all columns is known in double: Y
 * itself need only be well conditioned. All decisions come from what rank 0 factorised and broadcast, or from largest
 * values of all ranks, so all ranks take the same branch. */

enum { BASIS_PASSES = 6 };

/* A block is good enough for T: cosines with the columns before it, smallest pivot. */
static const double BASIS_OVERLAP = 1e-3;
static const double BASIS_PIVOT = 0.1;
/* Below: v is not well conditioned after one pass. */
static const double NEXT_PIVOT = 1e-2;
/* Squares of columns, over |A|^2, that are the rounding of a product in fp32. */
static const double BASIS_NOISE = 1e-13;

static int64_t room_of(int64_t rows, int64_t cols, int64_t rank) {
    int64_t side = rows < cols ? rows : cols, block = dpt_svd_sketch_width(rows, cols, rank);
    int64_t room = dpt_svd_basis_grows(rows, cols, rank) ? DPT_SVD_BLOCKS * block : block;
    return room < side ? room : side;
}

double dpt_svd_basis_bytes(int64_t rows, int64_t cols, int64_t rank, int ranks) {
    int64_t block = dpt_svd_sketch_width(rows, cols, rank);
    double b = (double)block, r = (double)room_of(rows, cols, rank);
    double m = (double)(rows / ranks + 1), n = (double)cols, own = (double)(cols / ranks + 1);
    return 4.0 * (m * r + own * r + n * b + fmax(m, own) * b) + 52.0 * r * r + 8.0 * r * b +
           4300.0 * r + 4096.0 * b + dpt_svd_products_bytes(rows, cols, block, ranks);
}

dpt_status dpt_svd_basis_create(const dpt_svd_problem *problem, dpt_svd_basis *out) {
    const dpt_svd_problem *p = problem;
    const dpt_comm *comm = p->comm;
    int64_t n = p->cols, b = dpt_svd_sketch_width(p->rows, n, p->rank);
    int64_t r = room_of(p->rows, n, p->rank);
    *out = (dpt_svd_basis){.problem = p, .block = b, .room = r, .next = b, .sketch = true};
    out->grows = dpt_svd_basis_grows(p->rows, n, p->rank);
    out->first = dpt_panel_share(n, comm->rank, comm->size);
    out->own_rows = dpt_panel_share(n, comm->rank + 1, comm->size) - out->first;
    int64_t more = out->own_rows > p->local_rows ? out->own_rows : p->local_rows;
    out->v = dpt_mem_alloc(n * b, sizeof *out->v, "sketch of a matrix");
    out->y = dpt_mem_alloc(p->local_rows * r, sizeof *out->y, "basis of a range");
    out->z = dpt_mem_alloc(out->own_rows * r, sizeof *out->z, "image of a basis");
    out->spare = dpt_mem_alloc(more * b, sizeof *out->spare, "block of a basis");
    out->gram_y = dpt_mem_alloc(r * r, sizeof *out->gram_y, "Gram matrix of a basis");
    out->gram_z = dpt_mem_alloc(r * r, sizeof *out->gram_z, "Gram matrix of a basis");
    out->t = dpt_mem_alloc(r * r, sizeof *out->t, "factor of a Gram matrix");
    out->cross = dpt_mem_alloc(r * b, sizeof *out->cross, "products of a block");
    out->chunk = dpt_mem_alloc(2 * DPT_PANEL_CHUNK * b, sizeof *out->chunk, "rows in double");
    out->counts = dpt_mem_alloc(2 * (int64_t)comm->size, sizeof *out->counts, "counts of shares");
    bool made = out->v != NULL && out->y != NULL && out->z != NULL && out->spare != NULL &&
                out->gram_y != NULL && out->gram_z != NULL && out->t != NULL &&
                out->cross != NULL && out->chunk != NULL && out->counts != NULL;
    dpt_status st = made ? dpt_panel_fill(p->sketch, 0, n, b, out->v) : DPT_ERR_OUTPUT;
    st = dpt_agree(comm, st);
    if (st == DPT_OK)
        st = dpt_svd_products_create(p, b, &out->products);
    if (st == DPT_OK)
        st = dpt_panel_work_create(comm, r, &out->work);
    return st;
}

void dpt_svd_basis_destroy(dpt_svd_basis *basis) {
    dpt_panel_work_destroy(&basis->work);
    dpt_svd_products_destroy(&basis->products);
    dpt_mem_free(basis->v);
    dpt_mem_free(basis->y);
    dpt_mem_free(basis->z);
    dpt_mem_free(basis->spare);
    dpt_mem_free(basis->gram_y);
    dpt_mem_free(basis->gram_z);
    dpt_mem_free(basis->t);
    dpt_mem_free(basis->cross);
    dpt_mem_free(basis->chunk);
    dpt_mem_free(basis->counts);
}

static const double *widen(const float *from, int64_t count, double *to) {
    for (int64_t e = 0; e < count; e++)
        to[e] = from[e];
    return to;
}

/* cross (columns to the end of block j, those of j) = (all columns up to j)^T (block j), in double; panel has `rows`. */
static dpt_status cross_gram(dpt_svd_basis *basis, int64_t rows, const float *panel, int j) {
    int64_t b = basis->at[j + 1] - basis->at[j], count = basis->at[j + 1] * b;
    double *cross = basis->cross, *own = cross + basis->at[j] * b;
    memset(cross, 0, (size_t)count * sizeof *cross);
    for (int64_t i = 0; b > 0 && i < rows; i += DPT_PANEL_CHUNK) {
        int n = (int)(rows - i < DPT_PANEL_CHUNK ? rows - i : DPT_PANEL_CHUNK);
        const double *last = widen(panel + rows * basis->at[j] + i * b, n * b, basis->chunk);
        cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, (int)b, n, 1.0, last, (int)b, 1.0, own,
                    (int)b);
        for (int k = 0; k < j; k++) {
            int64_t w = basis->at[k + 1] - basis->at[k];
            const double *other = widen(panel + rows * basis->at[k] + i * w, n * w,
                                        basis->chunk + DPT_PANEL_CHUNK * basis->block);
            cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)w, (int)b, n, 1.0, other,
                        (int)w, last, (int)b, 1.0, cross + basis->at[k] * b, (int)b);
        }
    }
    dpt_status st = dpt_comm_sum_f64(basis->problem->comm, cross, count);
    for (int64_t e = 0; e < b * b; e++)
        if (e / b > e % b)
            own[e] = own[e % b * b + e / b];
    return st;
}

/* Put cross into the rows and columns of block j. */
static void keep_cross(const dpt_svd_basis *basis, int j, double *gram) {
    int64_t l = basis->at[j], b = basis->at[j + 1] - l;
    for (int64_t i = 0; i < l + b; i++)
        for (int64_t k = 0; k < b; k++) {
            gram[i * basis->room + l + k] = basis->cross[i * b + k];
            gram[(l + k) * basis->room + i] = basis->cross[i * b + k];
        }
}

/* The last block of Y loses its parts along the columns before it, S = cross: with P = T T^T S it becomes Y_j - Y P, and
 * the Gram matrix of that, into work.gram, G - S^T P. */
static void project_block(dpt_svd_basis *basis, int j) {
    int64_t rows = basis->problem->local_rows;
    int l = (int)basis->at[j], b = (int)(basis->at[j + 1] - basis->at[j]);
    double *parts = basis->work.t;
    memcpy(parts, basis->cross, (size_t)(basis->at[j] * b) * sizeof *parts);
    cblas_dtrmm(CblasRowMajor, CblasLeft, CblasUpper, CblasTrans, CblasNonUnit, l, b, 1.0, basis->t,
                l, parts, b);
    cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, b, l, -1.0, parts, b, 1.0, basis->work.gram,
                b);
    cblas_dtrmm(CblasRowMajor, CblasLeft, CblasUpper, CblasNoTrans, CblasNonUnit, l, b, 1.0,
                basis->t, l, parts, b);
    for (int e = 0; e < b * b; e++)
        if (e / b > e % b)
            basis->work.gram[e] = basis->work.gram[e % b * b + e / b];
    for (int e = 0; e < l * b; e++)
        basis->work.factor[e] = (float)parts[e];
    for (int k = 0; k < j && rows > 0; k++) {
        int w = (int)(basis->at[k + 1] - basis->at[k]);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)rows, b, w, -1.0f,
                    basis->y + rows * basis->at[k], w, basis->work.factor + basis->at[k] * b, b,
                    1.0f, basis->y + rows * basis->at[j], b);
    }
}

/* Columns of work.gram that are rounding count as zero. */
static void drop_noise(int64_t b, double *gram) {
    for (int64_t i = 0; i < b; i++)
        for (int64_t k = 0; !(gram[i * b + i] > BASIS_NOISE) && k < b; k++)
            gram[i * b + k] = gram[k * b + i] = 0.0;
}

/* Make block j, which holds A v, well conditioned together with those before it. It may lose columns. */
static dpt_status separate(dpt_svd_basis *basis, int j, bool *good) {
    const dpt_svd_problem *p = basis->problem;
    float *block = basis->y + p->local_rows * basis->at[j];
    *good = false;
    for (int pass = 0; pass < BASIS_PASSES && basis->at[j + 1] > basis->at[j]; pass++) {
        int64_t l = basis->at[j], b = basis->at[j + 1] - l;
        double overlap = 0.0; /* from the second pass on the block has columns of length 1 */
        dpt_panel_transform step;
        dpt_status st = cross_gram(basis, p->local_rows, basis->y, j);
        for (int64_t e = 0; e < l * b; e++)
            overlap = fmax(overlap,
                           fabs(basis->cross[e]) / sqrt(basis->gram_y[e / b * (basis->room + 1)]));
        if (st == DPT_OK)
            st = dpt_comm_max_f64(p->comm, &overlap, 1);
        memcpy(basis->work.gram, basis->cross + l * b, (size_t)(b * b) * sizeof *basis->cross);
        bool apart = l == 0 || (pass > 0 && overlap <= BASIS_OVERLAP);
        if (!apart) {
            project_block(basis, j);
            drop_noise(b, basis->work.gram);
        }
        if (st == DPT_OK)
            st = dpt_panel_solve(p->comm, b, DPT_PANEL_DROP, &basis->work, &step);
        if (st != DPT_OK)
            return st;
        *good = apart && !step.mixed && step.width == b && step.quality >= BASIS_PIVOT;
        basis->image = *good && pass == 0;
        if (*good) {
            keep_cross(basis, j, basis->gram_y);
            if (l == 0) /* T of the only block */
                memcpy(basis->t, basis->work.t, (size_t)(b * b) * sizeof *basis->t);
            return DPT_OK;
        }
        dpt_panel_apply(p->local_rows, b, block, &step, &basis->work);
        basis->at[j + 1] = l + step.width;
    }
    return DPT_OK;
}

/* T from the Gram matrix of Y. */
static dpt_status basis_factor(dpt_svd_basis *basis) {
    int64_t l = dpt_svd_basis_width(basis);
    dpt_panel_transform step;
    for (int64_t i = 0; i < l; i++)
        memcpy(basis->work.gram + i * l, basis->gram_y + i * basis->room,
               (size_t)l * sizeof *basis->gram_y);
    dpt_status st = dpt_panel_solve(basis->problem->comm, l, DPT_PANEL_DROP, &basis->work, &step);
    if (st == DPT_OK && (step.mixed || step.width < l))
        st = dpt_error(DPT_ERR_INTERNAL, "%s: a basis of a range came out dependent",
                       basis->problem->name);
    if (st == DPT_OK)
        memcpy(basis->t, basis->work.t, (size_t)(l * l) * sizeof *basis->t);
    return st;
}

dpt_status dpt_svd_basis_grow(dpt_svd_basis *basis, bool *exhausted) {
    const dpt_svd_problem *p = basis->problem;
    int j = basis->blocks;
    bool good = false;
    *exhausted = basis->next == 0;
    if (basis->next == 0)
        return DPT_OK;
    DPT_ASSERT(j < DPT_SVD_BLOCKS && basis->at[j] + basis->next <= basis->room);
    basis->at[j + 1] = basis->at[j] + basis->next;
    dpt_svd_forward(&basis->products, basis->next, basis->v,
                    basis->y + p->local_rows * basis->at[j]);
    dpt_status st = separate(basis, j, &good);
    *exhausted = !good;
    if (st == DPT_OK && !good && j == 0)
        st = dpt_error(DPT_ERR_INTERNAL, "%s: a basis of a range stays dependent", p->name);
    if (st != DPT_OK || !good)
        return st;
    int64_t b = basis->at[j + 1] - basis->at[j];
    basis->blocks = j + 1;
    st = j > 0 ? basis_factor(basis) : DPT_OK;
    if (st == DPT_OK)
        st = dpt_svd_backward(&basis->products, b, basis->y + p->local_rows * basis->at[j],
                              basis->z + basis->own_rows * basis->at[j]);
    if (st == DPT_OK)
        st = cross_gram(basis, basis->own_rows, basis->z, j);
    if (st == DPT_OK)
        keep_cross(basis, j, basis->gram_z);
    return st;
}

dpt_status dpt_svd_basis_project(dpt_svd_basis *basis, bool vectors) {
    int64_t width = dpt_svd_basis_width(basis);
    int l = (int)width;
    double *gram = basis->work.gram;
    if (basis->problem->comm->rank == 0) { /* which factorises */
        for (int64_t i = 0; i < width; i++)
            memcpy(gram + i * width, basis->gram_z + i * basis->room, (size_t)width * sizeof *gram);
        cblas_dtrmm(CblasRowMajor, CblasLeft, CblasUpper, CblasTrans, CblasNonUnit, l, l, 1.0,
                    basis->t, l, gram, l);
        cblas_dtrmm(CblasRowMajor, CblasRight, CblasUpper, CblasNoTrans, CblasNonUnit, l, l, 1.0,
                    basis->t, l, gram, l);
    }
    return dpt_panel_eigen(basis->problem->comm, width, vectors, &basis->work);
}

/* out (rows, count) = (all columns of panel) (factor). */
static void combine(const dpt_svd_basis *basis, int64_t rows, const float *panel, int64_t count,
                    float *out) {
    for (int k = 0; k < basis->blocks && rows > 0; k++) {
        int w = (int)(basis->at[k + 1] - basis->at[k]), c = (int)count;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)rows, c, w, 1.0f,
                    panel + rows * basis->at[k], w, basis->work.factor + basis->at[k] * count, c,
                    k > 0 ? 1.0f : 0.0f, out, c);
    }
}

/* work.gram (width, count) = T W of the first columns of W = work.t. */
static void basis_rotation(dpt_svd_basis *basis, int64_t count) {
    int64_t l = dpt_svd_basis_width(basis);
    double *turn = basis->work.gram;
    for (int64_t i = 0; i < l; i++)
        memcpy(turn + i * count, basis->work.t + i * l, (size_t)count * sizeof *turn);
    cblas_dtrmm(CblasRowMajor, CblasLeft, CblasUpper, CblasNoTrans, CblasNonUnit, (int)l,
                (int)count, 1.0, basis->t, (int)l, turn, (int)count);
    for (int64_t e = 0; e < l * count; e++)
        basis->work.factor[e] = (float)turn[e];
}

void dpt_svd_basis_turn(dpt_svd_basis *basis, int64_t count, const double *values, float *u,
                        float *v) {
    basis_rotation(basis, count);
    combine(basis, basis->problem->local_rows, basis->y, count, u);
    for (int64_t e = 0; e < dpt_svd_basis_width(basis) * count; e++)
        basis->work.factor[e] = (float)(basis->work.gram[e] / values[e % count]);
    combine(basis, basis->own_rows, basis->z, count, v);
}

/* One block is left: the leading left singular vectors, and their images. */
static dpt_status restart(dpt_svd_basis *basis) {
    int64_t rows = basis->problem->local_rows, width = dpt_svd_basis_width(basis);
    int64_t count = basis->block < width ? basis->block : width;
    dpt_status st = dpt_svd_basis_project(basis, true);
    if (st != DPT_OK)
        return st;
    basis_rotation(basis, count);
    combine(basis, rows, basis->y, count, basis->spare);
    memcpy(basis->y, basis->spare, (size_t)(rows * count) * sizeof *basis->y);
    combine(basis, basis->own_rows, basis->z, count, basis->spare);
    memcpy(basis->z, basis->spare, (size_t)(basis->own_rows * count) * sizeof *basis->z);
    basis->blocks = 1;
    basis->at[1] = count;
    st = cross_gram(basis, rows, basis->y, 0);
    if (st == DPT_OK) {
        keep_cross(basis, 0, basis->gram_y);
        st = basis_factor(basis);
    }
    if (st == DPT_OK)
        st = cross_gram(basis, basis->own_rows, basis->z, 0);
    if (st == DPT_OK)
        keep_cross(basis, 0, basis->gram_z);
    return st;
}

dpt_status dpt_svd_basis_next(dpt_svd_basis *basis) {
    const dpt_svd_problem *p = basis->problem;
    int64_t from = basis->at[basis->blocks - 1], width = dpt_svd_basis_width(basis) - from;
    int64_t left = basis->room - dpt_svd_basis_width(basis), rows = basis->own_rows;
    double shift = basis->grows || basis->sketch || !basis->image ? 0.0 : basis->shift;
    float *next = basis->spare;
    dpt_panel_transform step;
    for (int64_t i = 0; i < width; i++)
        for (int64_t k = 0; k < width; k++) {
            int64_t e = (from + i) * basis->room + from + k;
            basis->work.gram[i * width + k] =
                basis->gram_z[e] - 2.0 * shift * basis->gram_y[e] + (i == k ? shift * shift : 0.0);
        }
    memcpy(next, basis->z + rows * from, (size_t)(rows * width) * sizeof *next);
    for (int64_t e = 0; shift > 0.0 && e < rows * width; e++)
        next[e] -= (float)shift * basis->v[basis->first * width + e];
    dpt_status st = dpt_panel_solve(p->comm, width, DPT_PANEL_DROP, &basis->work, &step);
    if (st != DPT_OK)
        return st;
    dpt_panel_apply(rows, width, next, &step, &basis->work);
    width = step.width;
    if (step.mixed || step.quality < NEXT_PIVOT)
        st = dpt_panel_orthonormalise(p->comm, rows, &width, next, DPT_PANEL_LOOSE, &basis->work);
    if (st != DPT_OK)
        return st;
    bool whole = basis->grows && basis->room == (p->rows < p->cols ? p->rows : p->cols);
    basis->sketch = false;
    basis->next = whole && width > left ? left : width;
    for (int64_t i = 0; basis->next < width && i < rows; i++)
        memmove(next + i * basis->next, next + i * width, (size_t)basis->next * sizeof *next);
    st = dpt_panel_gather_shares(p->comm, p->cols, basis->next, next, basis->v, basis->counts);
    if (!basis->grows)
        basis->blocks = 0;
    else if (st == DPT_OK && (basis->blocks == DPT_SVD_BLOCKS || basis->next > left))
        st = restart(basis);
    return st;
}
