#ifndef DELTAPATH_PATH_WEIGHTED_H
#define DELTAPATH_PATH_WEIGHTED_H

#include "deltapath/base/status.h"
#include "deltapath/path/interval.h"

#include <stdint.h>

/** Mean over samples.
 *
 * Local. Computes: sum_s share[s] x[s], in order.
 * @param[in] shares (n) of sum 1, or NULL: all alike.
 */
double dpt_weighted_mean(const double *shares, int64_t n, const double *x);

/** Samples of a mean, some of which may belong together: sentences of one document, answers to one question.
 * What is judged then is clusters, as independent values of their own. */
typedef struct dpt_weighted {
    int64_t n;              /**< samples */
    int64_t count;          /**< values: samples, or clusters, with weight */
    const double *shares;   /**< (n) of the samples, borrowed; NULL: all alike */
    double *cluster_shares; /**< (count) of clusters, sum 1; NULL: each sample stands for itself */
    int64_t *value_of; /**< (n) value that a sample is part of, -1 without weight; NULL as above */
    double *means;     /**< (count) room for the means of clusters */
    double
        effective; /**< values that the shares leave in effect: 1 / sum of squares of their shares */
} dpt_weighted;

/** Begin. Local.
 * @param[in] shares   (n) of sum 1, or NULL; outlives it.
 * @param[in] clusters (n) numbers from 0 below n, or NULL: each sample is a cluster of its own.
 * Errors: DPT_ERR_OUTPUT without memory; out is empty. */
dpt_status dpt_weighted_create(int64_t n, const double *shares, const int64_t *clusters,
                               dpt_weighted *out);
void dpt_weighted_destroy(dpt_weighted *weighted); /**< Local; an empty one is allowed. */

/** Values whose plain mean is the weighted mean of x, and whose spread is that of the weighted mean over samples, or
 * over clusters. What has no weight has none: a file with weights 0 and 1 is judged as one without the samples of
 * weight 0.
 *
 * Local. Computes: with m the weighted mean and c values of shares w and means x (those of the samples themselves, or
 *   of clusters), the jackknife's pseudo-values d = (c - 1) w / (1 - w) (x - m), moved to the mean m; x itself when all
 *   shares are alike. The map is linear: for paired a and b the differences of the results are the result of
 *   the difference, so that a paired test or bootstrap of them is one of weighted means. The first-order form
 *   c w (x - m) is too narrow where a value has much of the weight, for m then follows that value. With clusters
 *   intervals are robust against any dependence inside them.
 *   Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 11; MacKinnon and Webb,
 *   J. Appl. Econometrics 32 (2017) 233 (CV3).
 * @param[in]  x   (n).
 * @param[out] out room for n, of which the first `count` are set; may be x. */
void dpt_weighted_apply(const dpt_weighted *weighted, const double *x, double *out);

/** Student's interval of a weighted mean: its ends are NaN where the samples are one in effect. Local.
 * @param[in] effective  independent samples that repeats leave in effect (data/dataset.h); NaN: all.
 * @param[in] x (n). @param[out] room for n; may be x.
 * Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_weighted_interval(const dpt_weighted *weighted, double effective, const double *x,
                                 double *room, double confidence, dpt_interval *out);

#endif
