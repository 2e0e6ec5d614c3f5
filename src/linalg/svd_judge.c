/* What the methods are judged by: the errors of single triplets, and what a method costs. */
#include "svd_methods.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "eigen.h"
#include "panel.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

/* Squares of |A^T u - s v|, whose columns are `part` (own rows, rank). */
static void residual_squares(const dpt_svd *svd, int64_t first, int64_t own, double scale,
                             const float *part, double *squares) {
    int64_t k = svd->rank;
    memset(squares, 0, (size_t)k * sizeof *squares);
    for (int64_t i = 0; i < own; i++)
        for (int64_t j = 0; j < k; j++) {
            double d = part[i * k + j] - svd->s[j] * scale * svd->v[(first + i) * k + j];
            squares[j] += d * d;
        }
}

dpt_status dpt_svd_errors(const dpt_svd_problem *problem, dpt_svd *svd) {
    const dpt_svd_problem *p = problem;
    const dpt_comm *comm = p->comm;
    int n = (int)p->cols, k = (int)svd->rank;
    int64_t first = dpt_panel_share(n, comm->rank, comm->size);
    int64_t own = dpt_panel_share(n, comm->rank + 1, comm->size) - first;
    float *back = dpt_mem_zalloc(p->cols * svd->rank, sizeof *back, "images of left vectors");
    float *share = dpt_mem_alloc(own * svd->rank, sizeof *share, "images of left vectors");
    int *counts = dpt_mem_alloc(2 * (int64_t)comm->size, sizeof *counts, "counts of shares");
    double scale = dpt_svd_unit_scale(p->norm);
    dpt_status st = back == NULL || share == NULL || counts == NULL ? DPT_ERR_OUTPUT : DPT_OK;
    st = dpt_agree(comm, st);
    if (st == DPT_OK) {
        if (p->local_rows > 0)
            cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, n, k, (int)p->local_rows,
                        (float)scale, p->slab, n, svd->u, k, 0.0f, back, k);
        st = dpt_panel_sum_to_shares(comm, n, k, back, share, counts);
    }
    if (st == DPT_OK) {
        residual_squares(svd, first, own, scale, share, svd->s_error);
        st = dpt_comm_sum_f64(comm, svd->s_error, k);
    }
    for (int64_t i = 0; st == DPT_OK && i < k; i++)
        svd->s_error[i] = sqrt(svd->s_error[i]) / scale;
    dpt_mem_free(counts);
    dpt_mem_free(share);
    dpt_mem_free(back);
    return st;
}

/* Fitted to times on one and two ranks of one machine, sides 512 to 4096, and a guess elsewhere: what is not a product
 * (orthonormal bases, factors) takes 0.4 of the two products of an iteration; a multiply-add of a reduction to
 * tridiagonal form, and of what follows it, ten of single precision; one of a Lanczos step, which reads the Gram matrix
 * for a few columns, fifteen. */
double dpt_svd_iteration_cost(int64_t rows, int64_t cols, int64_t rank) {
    return 2.8 * (double)rows * (double)cols * (double)dpt_svd_sketch_width(rows, cols, rank);
}

double dpt_svd_exact_cost(int64_t rows, int64_t cols, int64_t rank) {
    double side = (double)(rows < cols ? rows : cols), longer = (double)(rows > cols ? rows : cols);
    double pairs = 10.0 * side;
    if (dpt_krylov_pays((int64_t)side, rank, DPT_SVD_GRID_ABOVE))
        pairs = fmin(pairs, 15.0 * (8.0 * (double)rank + 500.0));
    return side * side * (longer + pairs);
}
