#ifndef DELTAPATH_LINALG_LANCZOS_H
#define DELTAPATH_LINALG_LANCZOS_H

#include "deltapath/comm/comm.h"

#include <stdint.h>

/** y = M x for a symmetric M, of vectors that are spread over the ranks: each has its own elements. Collective, agreed.
 * @param[in] x (own elements). @param[out] y (own elements). */
typedef dpt_status (*dpt_lanczos_fn)(void *ctx, const float *x, float *y);

/** Extreme eigenvalues of M. The same on all ranks. */
typedef struct dpt_lanczos {
    int count;         /**< those that were asked for, or fewer where the space ended before */
    double *values;    /**< (count) of falling size */
    double *residuals; /**< (count) |M y - value y| of the unit vector y of each */
} dpt_lanczos;

/** Eigenvalues of greatest size by Lanczos's method with full reorthogonalisation, twice a step.
 *
 * Collective over comm (same: steps, count).
 * Computes: Ritz values of the Krylov space of `steps` products with the start vector, and their residuals by one product
 * more for each, so that what M x itself is inaccurate by shows in them. Vectors are in fp32, products of them in double.
 * @param[in] n      own elements, 0 allowed. @param[in] start (n), not zero over all ranks.
 * @param[in] steps  at least `count`; a space that ends before takes fewer.
 * @param[out] out   to be destroyed by the caller; empty on error.
 * Errors: those of M; DPT_ERR_OUTPUT without memory; DPT_ERR_INTERNAL for a start vector of zeros or numbers that are not
 *         finite. Determinism: to rounding between ranks.
 */
dpt_status dpt_lanczos_run(const dpt_comm *comm, int64_t n, const float *start, int steps,
                           int count, dpt_lanczos_fn product, void *ctx, dpt_lanczos *out);
void dpt_lanczos_destroy(dpt_lanczos *lanczos); /**< Local; an empty one is allowed. */

/** Bytes of its vectors. Local. */
int64_t dpt_lanczos_bytes(int64_t n, int steps);

#endif
