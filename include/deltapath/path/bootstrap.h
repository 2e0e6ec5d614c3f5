#ifndef DELTAPATH_PATH_BOOTSTRAP_H
#define DELTAPATH_PATH_BOOTSTRAP_H

#include "deltapath/base/status.h"

#include <stdint.h>

/** Where resamples come from. */
typedef struct dpt_bootstrap {
    uint64_t seed;
    const char
        *stream;   /**< name of the random stream, such as that of the data set: edits that share
                             it are judged on the same resamples */
    int resamples; /**< at least DPT_BOOTSTRAP_LEAST */
} dpt_bootstrap;

enum { DPT_BOOTSTRAP_LEAST = 100, DPT_BOOTSTRAP_MOST = 1000000, DPT_BOOTSTRAP_DEFAULT = 2000 };

/** How the ends of intervals come from resamples. */
typedef enum dpt_bootstrap_kind {
    DPT_BOOTSTRAP_BCA, /**< bias-corrected and accelerated quantiles of the means.
                            Source: Efron, J. Am. Stat. Assoc. 82 (1987) 171 */
    DPT_BOOTSTRAP_T /**< quantiles of the studentised means, (mean* - mean) / se*: wider, and closer to
                            what it says where a few samples have most of the change.
                            Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 12 */
} dpt_bootstrap_kind;

/** Resampled means of a - b. Owned; an empty one holds nothing. */
typedef struct dpt_bootstrap_draws {
    dpt_bootstrap_kind kind; /**< what ends and levels are of; BCA at first */
    int64_t n;
    int resamples; /**< 0: there is no spread to resample */
    int flat;      /**< resamples without spread, whose studentised mean is infinite */
    double mean;
    double se;                 /**< Student's standard error of the mean */
    double spread;             /**< standard deviation of the resampled means */
    double bias, acceleration; /**< of BCa */
    double *means;             /**< (resamples) rising */
    double *ratios;            /**< (resamples) studentised, rising */
} dpt_bootstrap_draws;

/** Resample the differences with replacement.
 *
 * Local. Sample i of resample r is (words[r n + i] n) >> 32 of stream (seed, stream, DPT_RNG_BOOTSTRAP).
 * @param[in]  a   (n). @param[in] b (n), or NULL: zeros.
 * @param[out] out to be destroyed. Without resamples when a sample is not finite, n < 2, or all are alike.
 * Errors: DPT_ERR_OUTPUT without memory; out is empty.
 * Determinism: depends on its arguments alone: the same bits at any number of ranks for the same
 * bits of a and b; rounding in them moves the bounds by about as much.
 */
dpt_status dpt_bootstrap_draw(int64_t n, const double *a, const double *b,
                              const dpt_bootstrap *options, dpt_bootstrap_draws *out);
void dpt_bootstrap_destroy(dpt_bootstrap_draws *draws); /**< Local. */

/** Confidence curve of draws (dpt_verdict_curve): the end of a one-sided interval whose error is `level` from
 * below, and the level at which that end is `value`. Local; ctx is dpt_bootstrap_draws with resamples.
 *
 * Beyond the level of the outermost resamples, the smaller of 0.005 and 10 / (resamples + 1), ends are
 * Student's quantiles, scaled to meet the resamples there: p values do not stop at one over the resamples. */
double dpt_bootstrap_end(const void *draws, double level);
double dpt_bootstrap_level(const void *draws, double value);

/** Interval of mean(d) / mean(g) by studentised resamples: the ratios rho for which the statistic of d - rho g
 * lies within the quantiles of its resamples (dpt_paired_ratio). Local.
 * @param[in,out] low, high an interval to start from; unchanged where bisection finds no end of this one.
 * Errors: DPT_ERR_OUTPUT without memory. Determinism: as dpt_bootstrap_draw. */
dpt_status dpt_bootstrap_ratio(int64_t n, const double *d, const double *g,
                               const dpt_bootstrap *options, double confidence, double *low,
                               double *high);

#endif
