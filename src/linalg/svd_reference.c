#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"

#include "grid.h"
#include "scalapack.h"
#include "svd_methods.h"

#include <lapacke.h>
#include <string.h>

enum { ROWS_AT_ONCE = 64 };

/* Singular values and vectors in double: s (side), u (rows, side) and vt (side, cols), both
 * column-major and whole on every rank. */
typedef struct reference_factors {
    int64_t side;
    double *s;
    double *u;
    double *vt;
} reference_factors;

static dpt_status factors_create(const dpt_svd_problem *p, reference_factors *f) {
    f->side = p->rows < p->cols ? p->rows : p->cols;
    f->s = dpt_mem_zalloc(f->side, sizeof *f->s, "reference singular values");
    f->u = dpt_mem_zalloc(p->rows * f->side, sizeof *f->u, "reference left vectors");
    f->vt = dpt_mem_zalloc(f->side * p->cols, sizeof *f->vt, "reference right vectors");
    return f->s == NULL || f->u == NULL || f->vt == NULL ? DPT_ERR_OUTPUT : DPT_OK;
}

static void factors_destroy(reference_factors *f) {
    dpt_mem_free(f->s);
    dpt_mem_free(f->u);
    dpt_mem_free(f->vt);
}

static dpt_status solve_alone(const dpt_svd_problem *p, reference_factors *f) {
    int m = (int)p->rows, n = (int)p->cols, side = (int)f->side;
    double *a = dpt_mem_alloc(p->rows * p->cols, sizeof *a, "matrix in double");
    double *superb = dpt_mem_alloc(f->side, sizeof *superb, "superdiagonal");
    dpt_status st = a == NULL || superb == NULL ? DPT_ERR_OUTPUT : DPT_OK;
    if (st == DPT_OK) {
        for (int64_t i = 0; i < p->rows; i++)
            for (int64_t j = 0; j < p->cols; j++)
                a[j * p->rows + i] = p->slab[i * p->cols + j];
        int info = LAPACKE_dgesvd(LAPACK_COL_MAJOR, 'S', 'S', m, n, a, m, f->s, f->u, m, f->vt,
                                  side, superb);
        if (info != 0)
            st = dpt_error(DPT_ERR_INTERNAL, "%s: DGESVD gave info %d", p->name, info);
    }
    dpt_mem_free(superb);
    dpt_mem_free(a);
    return st;
}

/* Slabs to block-cyclic: a few rows at a time, summed onto every rank. */
static dpt_status deal_rows(const dpt_svd_problem *p, const dpt_grid *grid, dpt_grid_matrix *a) {
    double *rows = dpt_mem_alloc(ROWS_AT_ONCE * p->cols, sizeof *rows, "rows in double");
    dpt_status st = dpt_agree(p->comm, rows == NULL ? DPT_ERR_OUTPUT : DPT_OK);
    for (int64_t i = 0; st == DPT_OK && i < p->rows; i += ROWS_AT_ONCE) {
        int64_t n = p->rows - i < ROWS_AT_ONCE ? p->rows - i : ROWS_AT_ONCE;
        memset(rows, 0, (size_t)(n * p->cols) * sizeof *rows);
        for (int64_t r = 0; r < n; r++) {
            int64_t il = i + r - p->row0;
            for (int64_t j = 0; il >= 0 && il < p->local_rows && j < p->cols; j++)
                rows[r * p->cols + j] = p->slab[il * p->cols + j];
        }
        st = dpt_comm_sum_f64(p->comm, rows, n * p->cols);
        dpt_grid_matrix_put(grid, a, i, n, 0, p->cols, rows, p->cols, 1);
    }
    dpt_mem_free(rows);
    return st;
}

static dpt_status call_gesvd(const dpt_svd_problem *p, dpt_grid_matrix *a, dpt_grid_matrix *u,
                             dpt_grid_matrix *vt, double *s) {
    int one = 1, lwork = -1, info = 0;
    double queried = 0.0;
    pdgesvd_("V", "V", &a->rows, &a->cols, a->values, &one, &one, a->desc, s, u->values, &one, &one,
             u->desc, vt->values, &one, &one, vt->desc, &queried, &lwork, &info);
    dpt_status st = info == 0 ? DPT_OK
                              : dpt_error(DPT_ERR_INTERNAL, "%s: the query of PDGESVD gave info %d",
                                          p->name, info);
    /* The queried size is too small for some shapes. */
    if (st == DPT_OK)
        st = dpt_grid_int((int64_t)(queried * 1.25) + 16 * (p->rows + p->cols) + 4096,
                          "work of PDGESVD", &lwork);
    double *work = st == DPT_OK ? dpt_mem_zalloc(lwork, sizeof *work, "PDGESVD work") : NULL;
    if (st == DPT_OK && work == NULL)
        st = DPT_ERR_OUTPUT;
    st = dpt_agree(p->comm, st);
    if (st == DPT_OK) {
        pdgesvd_("V", "V", &a->rows, &a->cols, a->values, &one, &one, a->desc, s, u->values, &one,
                 &one, u->desc, vt->values, &one, &one, vt->desc, work, &lwork, &info);
        if (info != 0)
            st = dpt_error(DPT_ERR_INTERNAL, "%s: PDGESVD gave info %d", p->name, info);
        st = dpt_agree(p->comm, st);
    }
    dpt_mem_free(work);
    return st;
}

static dpt_status svd_reference_solve_grid(const dpt_svd_problem *p, reference_factors *f) {
    dpt_grid grid;
    dpt_grid_matrix a = {.nb = 0}, u = {.nb = 0}, vt = {.nb = 0};
    dpt_status st = dpt_grid_create(p->comm, &grid);
    if (st != DPT_OK)
        return st;
    int nb = dpt_grid_block(&grid, f->side);
    st = dpt_grid_matrix_create(&grid, p->rows, p->cols, nb, &a);
    if (st == DPT_OK)
        st = dpt_grid_matrix_create(&grid, p->rows, f->side, nb, &u);
    if (st == DPT_OK)
        st = dpt_grid_matrix_create(&grid, f->side, p->cols, nb, &vt);
    st = dpt_agree(p->comm, st);
    if (st == DPT_OK)
        st = deal_rows(p, &grid, &a);
    if (st == DPT_OK)
        st = call_gesvd(p, &a, &u, &vt, f->s);
    if (st == DPT_OK) {
        dpt_grid_matrix_get(&grid, &u, 0, f->side, f->u, 1, p->rows);
        dpt_grid_matrix_get(&grid, &vt, 0, p->cols, f->vt, 1, f->side);
        st = dpt_comm_sum_f64(p->comm, f->u, p->rows * f->side);
    }
    if (st == DPT_OK)
        st = dpt_comm_sum_f64(p->comm, f->vt, f->side * p->cols);
    if (st == DPT_OK)
        st = dpt_comm_broadcast(p->comm, f->s, f->side * (int64_t)sizeof *f->s, 0);
    dpt_grid_matrix_destroy(&vt);
    dpt_grid_matrix_destroy(&u);
    dpt_grid_matrix_destroy(&a);
    dpt_grid_destroy(&grid);
    return st;
}

dpt_status dpt_svd_reference(const dpt_svd_problem *problem, dpt_svd *out) {
    const dpt_svd_problem *p = problem;
    reference_factors f = {.side = 0};
    dpt_status st = dpt_agree(p->comm, factors_create(p, &f));
    if (st == DPT_OK)
        st = p->comm->size == 1 ? solve_alone(p, &f) : svd_reference_solve_grid(p, &f);
    int64_t rank = p->rank;
    if (st == DPT_OK && rank == 0)
        rank = dpt_svd_energy_rank(f.side, f.s, p->norm, p->energy);
    if (st == DPT_OK)
        st = dpt_agree(p->comm, dpt_svd_allocate(p, rank, out));
    for (int64_t k = 0; st == DPT_OK && k < rank; k++) {
        out->s[k] = f.s[k];
        for (int64_t i = 0; i < p->local_rows; i++)
            out->u[i * rank + k] = (float)f.u[k * p->rows + p->row0 + i];
        for (int64_t j = 0; j < p->cols; j++)
            out->v[j * rank + k] = (float)f.vt[j * f.side + k];
    }
    out->used = DPT_SVD_REFERENCE;
    factors_destroy(&f);
    return st;
}
