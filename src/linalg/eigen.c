#include "eigen.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"

#include "grid.h"
#include "scalapack.h"

#include <cblas.h>
#include <lapacke.h>
#include <limits.h>
#include <math.h>
#include <string.h>

enum {
    LAPACK_SIDE_MAX = 32000, /* 2 n^2 work items of DSYEVD fit a 32-bit count */
    PANEL_WIDTH = 512,
    CHUNK_ITEMS = 1 << 21
};

static int64_t chunk_rows(int64_t cols) {
    int64_t rows = CHUNK_ITEMS / cols;
    return rows < 128 ? 128 : rows > 1024 ? 1024 : rows;
}

/* panel (width, cols): rows [first, first + width) of A^T A, columns from `first` on, of all rows only those from the
 * diagonal on; summed. Collective. @param chunk scratch (chunk_rows, cols). */
static dpt_status gram_panel(const dpt_svd_problem *p, int64_t first, int64_t width, double *chunk,
                             double *panel) {
    int64_t n = p->cols, step = chunk_rows(n);
    memset(panel, 0, (size_t)(width * n) * sizeof *panel);
    for (int64_t i = 0; i < p->local_rows; i += step) {
        int rows = (int)(p->local_rows - i < step ? p->local_rows - i : step);
        const float *from = p->slab + i * n;
        for (int64_t e = 0; e < rows * n; e++)
            chunk[e] = from[e];
        if (width == n)
            cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, (int)n, rows, 1.0, chunk, (int)n,
                        1.0, panel, (int)n);
        else
            cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)width, (int)(n - first), rows,
                        1.0, chunk + first, (int)n, chunk + first, (int)n, 1.0, panel + first,
                        (int)n);
    }
    return dpt_comm_sum_f64(p->comm, panel, width * n);
}

dpt_status dpt_eigen_gram_panels(const dpt_svd_problem *p, dpt_eigen_panel_fn put, void *ctx) {
    int64_t n = p->cols, width = n < PANEL_WIDTH ? n : PANEL_WIDTH;
    double *chunk = dpt_mem_alloc(chunk_rows(n) * n, sizeof *chunk, "rows in double");
    double *panel = dpt_mem_alloc(width * n, sizeof *panel, "panel of the Gram matrix");
    dpt_status st = dpt_agree(p->comm, chunk == NULL || panel == NULL ? DPT_ERR_OUTPUT : DPT_OK);
    for (int64_t j = 0; st == DPT_OK && j < n; j += width) {
        int64_t w = n - j < width ? n - j : width;
        st = gram_panel(p, j, w, chunk, panel);
        if (st == DPT_OK)
            put(ctx, j, w, panel);
    }
    dpt_mem_free(panel);
    dpt_mem_free(chunk);
    return st;
}

dpt_status dpt_eigen_allocate(const dpt_svd_problem *p, int64_t count, dpt_eigen *out) {
    out->count = count;
    out->values = dpt_mem_zalloc(count, sizeof *out->values, "eigenvalues");
    out->vectors = dpt_mem_zalloc(count * p->cols, sizeof *out->vectors, "eigenvectors");
    return out->values == NULL || out->vectors == NULL ? DPT_ERR_OUTPUT : DPT_OK;
}

void dpt_eigen_destroy(dpt_eigen *eigen) {
    dpt_mem_free(eigen->values);
    dpt_mem_free(eigen->vectors);
    *eigen = (dpt_eigen){.count = 0};
}

/* Pairs that the caller wants, from all values in rising order. */
static int64_t eigen_wanted(const dpt_svd_problem *p, int64_t count, const double *rising) {
    if (p->rank > 0)
        return p->rank;
    double captured = 0.0, target = p->energy * p->norm * p->norm * (1.0 - 1e-13);
    int64_t side = p->rows < p->cols ? p->rows : p->cols;
    for (int64_t i = 0; i < side && i < count; i++) {
        captured += fmax(0.0, rising[count - 1 - i]);
        if (captured >= target)
            return i + 1;
    }
    return side;
}

/* LAPACK on this rank: gram is destroyed, or holds the eigenvectors (column-major, rising order). */
static dpt_status eigen_solve_here(const dpt_svd_problem *p, dpt_eigen_solver solver, double *gram,
                                   double *z, double *w, int *found) {
    int n = (int)p->cols, info;
    *found = n;
    if (solver == DPT_EIGEN_ALL) {
        info = LAPACKE_dsyevd(LAPACK_COL_MAJOR, 'V', 'L', n, gram, n, w);
    } else {
        int *support = dpt_mem_alloc(2 * (int64_t)n, sizeof *support, "eigenvector supports");
        if (support == NULL)
            return DPT_ERR_OUTPUT;
        info = LAPACKE_dsyevr(LAPACK_COL_MAJOR, 'V', 'I', 'L', n, gram, n, 0.0, 0.0,
                              n - (int)p->rank + 1, n, 0.0, found, w, z, n, support);
        dpt_mem_free(support);
        if (info == 0 && *found != p->rank)
            info = INT_MAX;
    }
    if (info != 0)
        return dpt_error(DPT_ERR_INTERNAL, "%s: the eigensolver of LAPACK gave info %d", p->name,
                         info);
    return DPT_OK;
}

static dpt_status gram_local(const dpt_svd_problem *p, dpt_eigen_solver solver, dpt_eigen *out) {
    const dpt_comm *comm = p->comm;
    int64_t n = p->cols;
    int64_t vectors = comm->rank == 0 && solver == DPT_EIGEN_LEADING ? n * p->rank : 0;
    double *chunk = dpt_mem_alloc(chunk_rows(n) * n, sizeof *chunk, "rows in double");
    double *gram = dpt_mem_alloc(n * n, sizeof *gram, "Gram matrix");
    double *w = dpt_mem_alloc(n, sizeof *w, "eigenvalues");
    double *z = dpt_mem_alloc(vectors, sizeof *z, "eigenvectors");
    dpt_status st =
        chunk == NULL || gram == NULL || w == NULL || z == NULL ? DPT_ERR_OUTPUT : DPT_OK;
    st = dpt_agree(comm, st);
    if (st == DPT_OK)
        st = gram_panel(p, 0, n, chunk, gram);
    int found = 0;
    if (st == DPT_OK)
        st = dpt_agree(comm,
                       comm->rank == 0 ? eigen_solve_here(p, solver, gram, z, w, &found) : DPT_OK);
    int64_t count = 0;
    if (st == DPT_OK) {
        count = comm->rank == 0 ? eigen_wanted(p, found, w) : 0;
        st = dpt_comm_broadcast(comm, &count, sizeof count, 0);
    }
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_eigen_allocate(p, count, out));
    const double *from = solver == DPT_EIGEN_ALL ? gram : z;
    for (int64_t i = 0; st == DPT_OK && comm->rank == 0 && i < count; i++) {
        out->values[i] = w[found - 1 - i];
        memcpy(out->vectors + i * n, from + (found - 1 - i) * n, (size_t)n * sizeof *from);
    }
    if (st == DPT_OK)
        st = dpt_comm_broadcast(comm, out->values, count * (int64_t)sizeof(double), 0);
    if (st == DPT_OK)
        st = dpt_comm_broadcast(comm, out->vectors, count * n * (int64_t)sizeof(double), 0);
    dpt_mem_free(z);
    dpt_mem_free(w);
    dpt_mem_free(gram);
    dpt_mem_free(chunk);
    return st;
}

/* Queried sizes are sometimes short of what the solvers then use: room on top. */
static dpt_status work_size(double queried, int64_t extra, const char *what, int *out) {
    if (!(queried >= 0.0 && queried < 9e15))
        return dpt_error(DPT_ERR_INTERNAL, "%s: the queried size %g makes no sense", what, queried);
    return dpt_grid_int((int64_t)queried + (int64_t)queried / 8 + extra, what, out);
}

/* One call of the solver on the grid; lwork = -1 queries. */
static int call_solver(dpt_eigen_solver solver, int minimum, dpt_grid_matrix *a, dpt_grid_matrix *z,
                       double *w, int *found, double *work, int lwork, int *iwork, int liwork) {
    int one = 1, n = a->rows, info = 0, vectors = 0;
    double unused = 0.0;
    if (solver == DPT_EIGEN_LEADING) {
        pdsyevr_("V", "I", "L", &n, a->values, &one, &one, a->desc, &unused, &unused, &minimum, &n,
                 found, &vectors, w, z->values, &one, &one, z->desc, work, &lwork, iwork, &liwork,
                 &info);
        if (info == 0 && lwork != -1 && (*found != n - minimum + 1 || vectors != *found))
            info = INT_MAX;
    } else {
        *found = n;
        pdsyevd_("V", "L", &n, a->values, &one, &one, a->desc, w, z->values, &one, &one, z->desc,
                 work, &lwork, iwork, &liwork, &info);
    }
    return info;
}

static dpt_status eigen_solve_grid(const dpt_svd_problem *p, dpt_eigen_solver solver,
                                   dpt_grid_matrix *a, dpt_grid_matrix *z, double *w, int *found) {
    const dpt_comm *comm = p->comm;
    int n = a->rows;
    /* PDSYEVR returns wrong vectors with info 0 when asked for fewer pairs than the block size. */
    int64_t pairs = p->rank > a->nb ? p->rank : a->nb;
    int minimum = pairs < n ? n - (int)pairs + 1 : 1;
    double queried = 0.0;
    int lwork = 0, liwork = 0, int_query = 0;
    int info = call_solver(solver, minimum, a, z, w, found, &queried, -1, &int_query, -1);
    dpt_status st = DPT_OK;
    if (info != 0)
        st = dpt_error(DPT_ERR_INTERNAL, "%s: the work query of the eigensolver gave info %d",
                       p->name, info);
    if (st == DPT_OK)
        st = work_size(queried, 8 * (int64_t)n + 1024, "work of the eigensolver", &lwork);
    if (st == DPT_OK)
        st = work_size(int_query, 8 * (int64_t)n + 1024, "work of the eigensolver", &liwork);
    double *work = st == DPT_OK ? dpt_mem_zalloc(lwork, sizeof *work, "eigensolver work") : NULL;
    int *iwork = st == DPT_OK ? dpt_mem_zalloc(liwork, sizeof *iwork, "eigensolver work") : NULL;
    if (st == DPT_OK && (work == NULL || iwork == NULL))
        st = DPT_ERR_OUTPUT;
    st = dpt_agree(comm, st);
    if (st == DPT_OK) {
        info = call_solver(solver, minimum, a, z, w, found, work, lwork, iwork, liwork);
        if (info != 0)
            st = dpt_error(DPT_ERR_INTERNAL, "%s: the eigensolver of ScaLAPACK gave info %d",
                           p->name, info);
        st = dpt_agree(comm, st);
    }
    dpt_mem_free(iwork);
    dpt_mem_free(work);
    return st;
}

/* A Gram matrix that is spread over the ranks of a grid. */
typedef struct grid_gram {
    const dpt_grid *grid;
    dpt_grid_matrix *to;
} grid_gram;

/* The lower triangle, block-cyclic: row r of a panel is row and column first + r of the symmetric matrix. */
static void put_on_grid(void *ctx, int64_t first, int64_t width, const double *panel) {
    const grid_gram *g = ctx;
    int64_t n = g->to->rows;
    dpt_grid_matrix_put(g->grid, g->to, first, n - first, first, width, panel + first, 1, n);
}

static dpt_status gram_grid(const dpt_svd_problem *p, dpt_eigen_solver solver, dpt_eigen *out) {
    const dpt_comm *comm = p->comm;
    int64_t n = p->cols;
    dpt_grid grid;
    dpt_grid_matrix a = {.nb = 0}, z = {.nb = 0};
    double *w = NULL;
    int found = 0;
    dpt_status st = dpt_grid_create(comm, &grid);
    if (st != DPT_OK)
        return st;
    int nb = dpt_grid_block(&grid, n);
    st = dpt_grid_matrix_create(&grid, n, n, nb, &a);
    if (st == DPT_OK)
        st = dpt_grid_matrix_create(&grid, n, n, nb, &z);
    w = dpt_mem_alloc(n, sizeof *w, "eigenvalues");
    if (st == DPT_OK && w == NULL)
        st = DPT_ERR_OUTPUT;
    st = dpt_agree(comm, st);
    if (st == DPT_OK)
        st = dpt_eigen_gram_panels(p, put_on_grid, &(grid_gram){.grid = &grid, .to = &a});
    if (st == DPT_OK)
        st = eigen_solve_grid(p, solver, &a, &z, w, &found);
    if (st == DPT_OK)
        st = dpt_comm_broadcast(comm, w, found * (int64_t)sizeof *w, 0);
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_eigen_allocate(p, eigen_wanted(p, found, w), out));
    if (st == DPT_OK) {
        /* PDSYEVR puts its vectors into the first columns, PDSYEVD into all: both in rising order. */
        for (int64_t i = 0; i < out->count; i++) {
            out->values[i] = w[found - 1 - i];
            dpt_grid_matrix_get(&grid, &z, found - 1 - i, 1, out->vectors + i * n, 1, n);
        }
        st = dpt_comm_sum_f64(comm, out->vectors, out->count * n);
    }
    dpt_mem_free(w);
    dpt_grid_matrix_destroy(&z);
    dpt_grid_matrix_destroy(&a);
    dpt_grid_destroy(&grid);
    return st;
}

dpt_status dpt_eigen_gram(const dpt_svd_problem *problem, dpt_eigen_solver solver, dpt_eigen *out) {
    DPT_ASSERT_SAME(problem->comm, solver);
    *out = (dpt_eigen){.count = 0};
    if (problem->energy > 0.0)
        solver = DPT_EIGEN_ALL;
    bool local = problem->comm->size == 1 || problem->cols <= problem->grid_above;
    bool converged = false;
    dpt_status st = DPT_OK;
    if (solver == DPT_EIGEN_LEADING &&
        dpt_krylov_pays(problem->cols, problem->rank, problem->grid_above)) {
        st = dpt_krylov_gram(problem, out, &converged);
        if (st != DPT_OK || converged)
            return st;
    }
    if (local && problem->cols > LAPACK_SIDE_MAX)
        return dpt_error(DPT_ERR_OUTPUT, "%s: a side of %lld is too long for one rank: use more",
                         problem->name, (long long)problem->cols);
    st = local ? gram_local(problem, solver, out) : gram_grid(problem, solver, out);
    if (st != DPT_OK)
        dpt_eigen_destroy(out);
    return st;
}
