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

/** Eigenpairs of A^T A, which is summed in double over the row slabs. Few leading ones of a large matrix come from
 * dpt_krylov_gram where dpt_krylov_pays and the steps converge. Else sides up to problem->grid_above
 * and groups of one are solved by LAPACK on rank 0; larger ones on a BLACS grid, where the Gram matrix is
 * formed panel by panel and never held whole.
 *
 * Collective over problem->comm (same: solver). With problem->energy every value is found, and
 * count is the rank that the energy needs; else it is problem->rank.
 * Errors: DPT_ERR_INTERNAL from the solver's info, agreed; DPT_ERR_OUTPUT; *out empty then.
 */
dpt_status dpt_eigen_gram(const dpt_svd_problem *problem, dpt_eigen_solver solver, dpt_eigen *out);
void dpt_eigen_destroy(dpt_eigen *eigen);

/** Room for so many pairs. Local; agree afterwards. */
dpt_status dpt_eigen_allocate(const dpt_svd_problem *p, int64_t count, dpt_eigen *out);

/** Gets a panel (width, cols) of A^T A: its rows [first, first + width), of which the columns from `first` on are set. Local. */
typedef void (*dpt_eigen_panel_fn)(void *ctx, int64_t first, int64_t width, const double *panel);

/** The upper triangle of A^T A, summed in double over the row slabs, one panel after the other: the matrix is never held
 * whole. Collective over p->comm. Errors: DPT_ERR_OUTPUT without memory, agreed. */
dpt_status dpt_eigen_gram_panels(const dpt_svd_problem *p, dpt_eigen_panel_fn put, void *ctx);

/** Columns of the basis of dpt_krylov_gram. Local. */
int64_t dpt_krylov_columns(int64_t rank);

/** Whether so few pairs are faster found so than by a reduction to tridiagonal form, as one and two ranks of one machine
 * were with sides 512 to 4096; above grid_above more often, where ScaLAPACK would make it. Local. */
bool dpt_krylov_pays(int64_t side, int64_t rank, int64_t grid_above);

/** The problem->rank leading eigenpairs of A^T A by block Lanczos steps, each rank with its share of the rows of A^T A.
 * Residuals |G v - s_j^2 v| are at most 1e-9 s_1 s_j. Collective over problem->comm.
 * @param[out] converged false: the steps do not end in time, or a block is dependent; *out is empty.
 * Errors: as dpt_eigen_gram. */
dpt_status dpt_krylov_gram(const dpt_svd_problem *problem, dpt_eigen *out, bool *converged);

#endif
