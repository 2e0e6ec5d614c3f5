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

/** Resampled means of a - b, for bias-corrected and accelerated intervals (BCa).
 *   Source: Efron, J. Am. Stat. Assoc. 82 (1987) 171. Owned; an empty one holds nothing. */
typedef struct dpt_bootstrap_draws {
    int64_t n;
    int resamples; /**< 0: there is no spread to resample */
    double mean;
    double spread;             /**< standard deviation of the resampled means */
    double bias, acceleration; /**< of BCa */
    double *means;             /**< (resamples) rising */
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

#endif
