#ifndef DELTAPATH_SRC_LINALG_SVD_PRODUCTS_H
#define DELTAPATH_SRC_LINALG_SVD_PRODUCTS_H

#include "svd_methods.h"

/** Room for the products of a matrix with panels up to a width. */
typedef struct dpt_svd_products {
    const dpt_svd_problem *problem; /**< borrowed */
    double *sums; /**< (cols, width) sums over rows; on one rank of a tile of columns */
    float *tile;  /**< (columns of a tile, width) sums over a block of rows */
    double *slab; /**< small matrices: this rank's rows, else NULL */
    double *v;    /**< small matrices: (cols, width) */
    double *y;    /**< small matrices: (local rows, width) */
    int *counts;
} dpt_svd_products;

/** Collective over problem->comm (same: width). Errors: DPT_ERR_OUTPUT on all ranks; *out empty then. */
dpt_status dpt_svd_products_create(const dpt_svd_problem *problem, int64_t width,
                                   dpt_svd_products *out);
void dpt_svd_products_destroy(dpt_svd_products *products);

/** Bytes of a rank for them. Local. */
double dpt_svd_products_bytes(int64_t rows, int64_t cols, int64_t width, int ranks);

/** y (local rows, width) = A v / |A| of v (cols, width), whole on every rank. Local. */
void dpt_svd_forward(const dpt_svd_products *products, int64_t width, const float *v, float *y);

/** share (own columns by dpt_panel_share, width) = A^T y / |A|, summed over the ranks.
 * Collective over problem->comm. Determinism: svd_products.c says what depends on the slabs. */
dpt_status dpt_svd_backward(const dpt_svd_products *products, int64_t width, const float *y,
                            float *share);

#endif
