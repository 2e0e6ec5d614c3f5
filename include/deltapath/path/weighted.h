#ifndef DELTAPATH_PATH_WEIGHTED_H
#define DELTAPATH_PATH_WEIGHTED_H

#include <stdint.h>

/** Mean over samples.
 *
 * Local. Computes: sum_s share[s] x[s], in order.
 * @param[in] shares (n) of sum 1, or NULL: all alike.
 */
double dpt_weighted_mean(const double *shares, int64_t n, const double *x);

/** Values whose plain mean is the weighted mean of x, and whose spread over samples is, to first order,
 * that of the weighted mean.
 *
 * Local. Computes: out[s] = m + n share[s] (x[s] - m), m the weighted mean; x itself without shares. The
 *   map is linear: for paired a and b the differences of the results are the result of the difference,
 *   so that a paired test or bootstrap of them is one of weighted means.
 *   Source: linearised ratio estimator, Cochran, Sampling Techniques (1977), chapter 6.
 * @param[out] out (n), may be x.
 */
void dpt_weighted_linearise(const double *shares, int64_t n, const double *x, double *out);

#endif
