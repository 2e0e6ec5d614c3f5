#ifndef DELTAPATH_SRC_LINALG_SVD_METHODS_H
#define DELTAPATH_SRC_LINALG_SVD_METHODS_H

#include "deltapath/base/rng.h"
#include "deltapath/linalg/svd.h"

/** What every method gets: the arguments of dpt_svd_compute, checked, and what follows from them.
 * Every dimension fits int. */
typedef struct dpt_svd_problem {
    const dpt_comm *comm;
    int64_t rows;
    int64_t cols;
    int64_t local_rows;
    int64_t row0; /**< first global row of this rank */
    const float *slab;
    int64_t rank;  /**< wanted triplets, 1 .. min(rows, cols); 0 when energy decides */
    double energy; /**< 0 when rank decides */
    double tolerance;
    int64_t grid_above; /**< longest side that rank 0 solves alone */
    dpt_rng sketch;
    const char *name;
    double square; /**< of this rank's entries, summed */
    double norm;   /**< |A|_F, finite and positive */
} dpt_svd_problem;

/* Each fills rank, s, u, v, used and iterations of an empty *out, exact s_error too (signs, norm, residual
 * and the errors of the others are the dispatcher's). Collective over problem->comm; status agreed; on error *out may hold blocks that
 * dpt_svd_destroy releases. */
dpt_status dpt_svd_exact(const dpt_svd_problem *problem, dpt_svd *out);
dpt_status dpt_svd_reference(const dpt_svd_problem *problem, dpt_svd *out);

/** @param[out] converged false: the tolerance was not met after the last iteration; *out is empty. */
dpt_status dpt_svd_random(const dpt_svd_problem *problem, dpt_svd *out, bool *converged);

/** Factor that brings a norm to 1; dpt_svd_scale has brought the matrix into the range of fp32. Local. */
static inline double dpt_svd_unit_scale(double norm) {
    return 1.0 / norm;
}

/* svd_judge.c: what the methods are judged by. */

/** Fill s_error of each triplet, in single precision: |A v - s u| where A^T u is s v by construction, |A^T u - s v| where
 * A v is s u. Collective over problem->comm, agreed. Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_svd_errors_right(const dpt_svd_problem *problem, dpt_svd *svd);
dpt_status dpt_svd_errors_left(const dpt_svd_problem *problem, dpt_svd *svd);

/** Multiply-adds of single precision that take about as long as the exact method, and as an iteration of the random
 * one; the same at any number of ranks, though fitted on one and two. Local. */
double dpt_svd_exact_cost(int64_t rows, int64_t cols, int64_t rank);
double dpt_svd_iteration_cost(int64_t rows, int64_t cols, int64_t rank);

/* svd_scale.c: as LAPACK's drivers do, a matrix near the ends of fp32 is scaled before the work. */

/** Sum the squares of the slab into problem->square. When the largest magnitude is outside 2^-61 .. 2^61, put a copy of
 * the slab times 2^-exponent before, which is exact but for what is 2^126 below the largest, in the place of problem->slab.
 * Collective over problem->comm. @param[out] copy NULL, or to be released with dpt_mem_free.
 * Errors: DPT_ERR_OUTPUT without memory for the copy; agreed. */
dpt_status dpt_svd_scale(dpt_svd_problem *problem, float **copy, int *exponent);

/** Bring values, norm and residual back. Local. */
void dpt_svd_unscale(dpt_svd *svd, int exponent);

/** Power of two to take out of the values before they are rounded to fp32 for a product: 0 but where
 * they would leave its range. Local. */
int dpt_svd_product_exponent(const dpt_svd *svd);

/** Columns of the sketch of the random method. Local. */
int64_t dpt_svd_sketch_width(int64_t rows, int64_t cols, int64_t rank);

/** Allocate s, u, v of *out for `rank` triplets. Local; agree afterwards. */
dpt_status dpt_svd_allocate(const dpt_svd_problem *problem, int64_t rank, dpt_svd *out);

/** Least count of leading values whose squares reach `energy` of norm^2; at least 1. Local. */
int64_t dpt_svd_energy_rank(int64_t count, const double *s, double norm, double energy);

/** Largest singular value of A - U diag(s) V^T by power iterations from a fixed random vector; a
 * lower bound. svd may be NULL. Collective over problem->comm. */
dpt_status dpt_svd_deflated_norm(const dpt_svd_problem *problem, const dpt_svd *svd, int iterations,
                                 double *norm);

/** Largest singular value of the matrix, a lower bound: the largest of the bidiagonal form that so many steps of
 * Golub and Kahan find, each two products. Collective over the problem's comm, agreed. */
dpt_status dpt_svd_lanczos_norm(const dpt_svd_problem *problem, int steps, double *norm);

#endif
