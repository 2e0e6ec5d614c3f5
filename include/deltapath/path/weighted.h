#ifndef DELTAPATH_PATH_WEIGHTED_H
#define DELTAPATH_PATH_WEIGHTED_H

#include <stdint.h>

/** Mean over samples.
 *
 * Local. Computes: sum_s share[s] x[s], in order.
 * @param[in] shares (n) of sum 1, or NULL: all alike.
 */
double dpt_weighted_mean(const double *shares, int64_t n, const double *x);

/** Values whose plain mean is the weighted mean of x, and whose spread over samples is that of the
 * weighted mean. Samples without weight have none: a file with weights 0 and 1 is judged as one without
 * the samples of weight 0.
 *
 * Local. Computes: with c the number of shares above 0 and m the weighted mean, the jackknife's
 *   pseudo-values d[s] = (c - 1) share[s] / (1 - share[s]) (x[s] - m), moved to the mean m; x itself
 *   without shares or when all are alike. The map is linear: for paired a and b the differences of the
 *   results are the result of the difference, so that a paired test or bootstrap of them is one of
 *   weighted means. The first-order form n share[s] (x[s] - m) is too narrow where a sample has much
 *   of the weight, for m then follows that sample.
 *   Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 11.
 * @param[out] out (n), may be x; the first c are set.
 * @return c.
 */
int64_t dpt_weighted_values(const double *shares, int64_t n, const double *x, double *out);

#endif
