#ifndef DELTAPATH_LINALG_SVD_H
#define DELTAPATH_LINALG_SVD_H

#include "deltapath/comm/comm.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum dpt_svd_method {
    DPT_SVD_AUTO,   /**< random where it is cheaper and its residual holds, else exact */
    DPT_SVD_RANDOM, /**< block Krylov or subspace iteration from a random start, measured residual */
    DPT_SVD_EXACT,  /**< Gram matrix in double, then Lanczos steps or a symmetric eigensolver */
    DPT_SVD_REFERENCE /**< P?GESVD in double, for tests */
} dpt_svd_method;

/** Measured on two ranks: up to this side one rank's LAPACK beats the messages of ScaLAPACK, and the
 * Gram matrix (32 MB) may be whole on every rank. */
enum { DPT_SVD_GRID_ABOVE = 2048 };

typedef struct dpt_svd_options {
    dpt_svd_method method;
    int64_t rank;  /**< wanted singular triplets; <= min(rows, cols); 0 when energy is given */
    double energy; /**< or: the least rank with sum_{i<=r} s_i^2 >= energy * |A|^2; 0 when unused */
    double tolerance; /**< random only: allowed excess of the residual over the best, relative to
                            |A| (0: 1e-3); not met after the last iteration: falls back to exact */
    uint64_t seed;    /**< of the sketch (Philox stream DPT_RNG_SKETCH of `name`) */
    const char *name; /**< tensor name: stream of the sketch, and messages */
    int64_t
        grid_above; /**< exact: sides above this are solved on a BLACS grid; 0: DPT_SVD_GRID_ABOVE */
} dpt_svd_options;

/** Truncated singular value decomposition A ~ U diag(s) V^T of a matrix whose rows are spread over
 * the ranks of a group. */
typedef struct dpt_svd {
    int64_t rank; /**< triplets returned, r */
    double *s;    /**< (r) falling, the same on all ranks */
    double *
        s_error; /**< (r) |A v - s u| of each triplet where A^T u is s v by construction (random), |A^T u - s v| where A v is
                          s u; of s = 0 at least the residual; the same on all ranks: so close to s lies a singular
                          value, up to a rounding of 1e-6 s_1 */
    float *u;    /**< (local rows, r) row-major: this rank's rows of U */
    float *v;    /**< (cols, r) row-major, whole on every rank */
    double norm; /**< |A|_F */
    double residual; /**< |A - U S V^T|_F: sqrt(|A|^2 - sum s^2), or summed entry by entry where
                          that difference would lose it in rounding (below 3e-2 |A|) */
    dpt_svd_method used;
    int iterations; /**< of the random method: products with A^T A beyond the first */
} dpt_svd;

/** Decompose a matrix (rows x cols) held in row slabs.
 *
 * Collective over comm (same: rows, cols, options).
 * Computes: the leading options.rank triplets. Signs are fixed: the entry of largest magnitude of
 * each column of V is positive (the first such on ties). Columns of U and V are orthonormal to 1e-6,
 * also those of zero singular values.
 * Accuracy: exact: s to 1e-6 of s_1 (Gram matrix in double; values below 1e-7 s_1 come out as 0), and
 * the residual within 1e-6 |A| of the best. random: the residual within about tolerance |A| of the
 * best (what a geometric series of the measured ratio leaves), s to s_error, values below 1e-6 s_1 as 0. reference: as LAPACK in double, vectors rounded
 * to fp32.
 * Choice: auto is random when min(rows, cols) >= 256 and five iterations cost less than exact; random
 * falls back to exact when after two iterations or later the rest of them would cost more than exact,
 * and when the residual does not converge in 32; energy needs
 * all values and is always exact (or reference). The zero matrix has s = 0 at the wanted rank (1 for
 * an energy). dpt_svd.used tells what was used.
 * Scale: any that fp32 holds, subnormal numbers too. Where the largest magnitude is outside 2^-61 ..
 * 2^61 a copy of the slab, scaled by a power of two, is decomposed (4 bytes an element more).
 * Source: Musco, Musco, NeurIPS 28 (2015); Halko, Martinsson, Tropp, SIAM Review 53 (2011); this project.
 * @param[in] slab       (local_rows, cols) row-major fp32, this rank's rows; borrowed, unchanged.
 * @param[in] local_rows rows of this rank, any split incl. 0; slabs are in rank order.
 * Errors: DPT_ERR_INTERNAL when an argument is wrong or a factorisation fails (info and residuals are
 *         checked on all ranks); DPT_ERR_INPUT for NaN or infinity; DPT_ERR_OUTPUT without memory;
 *         *out empty on error.
 * Determinism: same bits at the same number of ranks and threads; else the product agrees to 1e-6 of |A|, where
 * s_r is not also the next value: of equal ones another may be kept.
 */
dpt_status dpt_svd_compute(const dpt_comm *comm, int64_t rows, int64_t cols, int64_t local_rows,
                           const float *slab, const dpt_svd_options *options, dpt_svd *out);
void dpt_svd_destroy(dpt_svd *svd); /**< Local; an empty one is allowed. */

/** Product of the factors for a run of this rank's rows: out = U[il0 : il0 + n] diag(s) V^T,
 * (n, cols) row-major fp32. Local. */
void dpt_svd_product(const dpt_svd *svd, int64_t cols, int64_t il0, int64_t n, float *out);

/** Least rank whose triplets have a share of the squared norm, of those that there are; at least 1. Local. */
int64_t dpt_svd_rank_of(const dpt_svd *svd, double energy);

/** |A - U S V^T|_F of the leading triplets alone: what is left of all, and the squares of the others. Local. */
double dpt_svd_residual_of(const dpt_svd *svd, int64_t rank);

/** Keep the leading triplets alone. Local.
 * @param[in] rank  1 .. svd->rank. @param[in] cols, local_rows  as of dpt_svd_compute. */
void dpt_svd_cut(dpt_svd *svd, int64_t cols, int64_t local_rows, int64_t rank);

/** Bytes per rank that dpt_svd_compute needs at most, besides the slab, its result included; at the
 * default grid_above. rank 0 stands for an energy. Local.
 * random: five blocks of a basis and their images, a panel (cols, 1.25 rank) whole and once more in double, Gram matrices
 * of six times the rank; or one block of twice the rank where that is more than a twelfth of the shorter side; exact: the Gram matrix of the shorter
 * side (whole up to DPT_SVD_GRID_ABOVE or in a group of one, else its share), a Lanczos basis of up to
 * 2 rank + 192 columns where few vectors of a large matrix are wanted, the wanted vectors in
 * double, and three more slabs when the matrix is wide. auto and random count their fall back. */
int64_t dpt_svd_bytes(int64_t rows, int64_t cols, int64_t rank, dpt_svd_method method, int ranks);

/** The same where a random method converges, as it does but where two values next to each other settle too slowly to
 * pay. Local. */
int64_t dpt_svd_bytes_expected(int64_t rows, int64_t cols, int64_t rank, dpt_svd_method method,
                               int ranks);

/** Multiply-adds of single precision that take about as long as dpt_svd_compute, as auto counts them to choose; the same
 * at any number of ranks. rank 0 stands for an energy. Local. */
double dpt_svd_cost(int64_t rows, int64_t cols, int64_t rank, dpt_svd_method method);

/** Largest singular value by Lanczos steps on row slabs, for reports: a lower bound, from a fixed
 * random start. Collective over comm (same: rows, cols, iterations). Errors as dpt_svd_compute. */
dpt_status dpt_svd_spectral_norm(const dpt_comm *comm, int64_t rows, int64_t cols,
                                 int64_t local_rows, const float *slab, int iterations,
                                 double *norm);

#endif
