#ifndef DELTAPATH_SRC_LINALG_EIGEN_H
#define DELTAPATH_SRC_LINALG_EIGEN_H

#include "svd_methods.h"

/** Which solver finds the pairs of a Gram matrix. */
typedef enum dpt_eigen_solver {
    DPT_EIGEN_LEADING, /**< DSYEVR / PDSYEVR: the leading pairs alone */
    DPT_EIGEN_ALL      /**< DSYEVD / PDSYEVD: every pair, the surer one */
} dpt_eigen_solver;

/** Leading eigenpairs of a Gram matrix, the same on all ranks. */
typedef struct dpt_eigen {
    int64_t count;
    double *values;  /**< (count) falling */
    double *vectors; /**< (count, cols): row i belongs to value i */
} dpt_eigen;

/** Eigenpairs of A^T A, which is summed in double over the row slabs. Sides up to problem->grid_above
 * and groups of one are solved by LAPACK on rank 0; larger ones on a BLACS grid, where the Gram matrix is
 * formed panel by panel and never held whole.
 *
 * Collective over problem->comm (same: solver). With problem->energy every value is found, and
 * count is the rank that the energy needs; else it is problem->rank.
 * Errors: DPT_ERR_INTERNAL from the solver's info, agreed; DPT_ERR_OUTPUT; *out empty then.
 */
dpt_status dpt_eigen_gram(const dpt_svd_problem *problem, dpt_eigen_solver solver, dpt_eigen *out);
void dpt_eigen_destroy(dpt_eigen *eigen);

#endif
