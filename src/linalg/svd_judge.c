/* What the methods are judged by: the errors of single triplets, and what a method costs. */
#include "svd_methods.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "eigen.h"
#include "panel.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

/* Squares of |image - s vector| of each triplet, on so many rows. */
static void residual_squares(const dpt_svd *svd, int64_t rows, double scale, const float *image,
                             const float *vectors, double *squares) {
    int64_t k = svd->rank;
    memset(squares, 0, (size_t)k * sizeof *squares);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < k; j++) {
            double d = image[i * k + j] - svd->s[j] * scale * vectors[i * k + j];
            squares[j] += d * d;
        }
}

static dpt_status residuals_from_squares(const dpt_comm *comm, double scale, dpt_svd *svd) {
    dpt_status st = dpt_comm_sum_f64(comm, svd->s_error, svd->rank);
    for (int64_t i = 0; st == DPT_OK && i < svd->rank; i++)
        svd->s_error[i] = sqrt(svd->s_error[i]) / scale;
    return st;
}

dpt_status dpt_svd_errors_right(const dpt_svd_problem *problem, dpt_svd *svd) {
    const dpt_svd_problem *p = problem;
    int m = (int)p->local_rows, n = (int)p->cols, k = (int)svd->rank;
    double scale = dpt_svd_unit_scale(p->norm);
    float *image = dpt_mem_alloc(p->local_rows * svd->rank, sizeof *image, "images of vectors");
    dpt_status st = dpt_agree(p->comm, image == NULL ? DPT_ERR_OUTPUT : DPT_OK);
    if (st == DPT_OK) {
        if (m > 0)
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, k, n, (float)scale, p->slab,
                        n, svd->v, k, 0.0f, image, k);
        residual_squares(svd, p->local_rows, scale, image, svd->u, svd->s_error);
        st = residuals_from_squares(p->comm, scale, svd);
    }
    dpt_mem_free(image);
    return st;
}

dpt_status dpt_svd_errors_left(const dpt_svd_problem *problem, dpt_svd *svd) {
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
        residual_squares(svd, own, scale, share, svd->v + first * k, svd->s_error);
        st = residuals_from_squares(comm, scale, svd);
    }
    dpt_mem_free(counts);
    dpt_mem_free(share);
    dpt_mem_free(back);
    return st;
}

/* Fitted to times on one and two ranks of one machine, sides 512 to 4096, and a guess elsewhere: what is not a product
 * (bases, Gram matrices, eigenvectors) takes 0.6 of the two products of an iteration; a multiply-add of a reduction to
 * tridiagonal form, and of what follows it, ten of single precision; one of a Lanczos step, which reads the Gram matrix
 * for a few columns, fifteen. */
double dpt_svd_iteration_cost(int64_t rows, int64_t cols, int64_t rank) {
    return 3.2 * (double)rows * (double)cols * (double)dpt_svd_sketch_width(rows, cols, rank);
}

double dpt_svd_exact_cost(int64_t rows, int64_t cols, int64_t rank) {
    double side = (double)(rows < cols ? rows : cols), longer = (double)(rows > cols ? rows : cols);
    double pairs = 10.0 * side;
    if (dpt_krylov_pays((int64_t)side, rank, DPT_SVD_GRID_ABOVE))
        pairs = fmin(pairs, 15.0 * (8.0 * (double)rank + 500.0));
    return side * side * (longer + pairs);
}
