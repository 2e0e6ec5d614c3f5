#ifndef DELTAPATH_PATH_BOOTSTRAP_H
#define DELTAPATH_PATH_BOOTSTRAP_H

#include "deltapath/base/status.h"
#include "deltapath/path/verdict.h"

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

/** Bootstrap intervals of the mean of a - b, sample by sample, at several confidences from the same
 * resamples.
 *
 * Local. Computes: means of resamples with replacement of the differences; the interval is the
 * bias-corrected and accelerated one (BCa), which follows the skew that losses have where a
 * percentile interval or Student's does not.   Source: Efron, J. Am. Stat. Assoc. 82 (1987) 171.
 * Sample i of resample r is (words[r n + i] n) >> 32 of stream (seed, stream, DPT_RNG_BOOTSTRAP).
 * @param[in]  a          (n). @param[in] b (n), or NULL: zeros.
 * @param[in]  confidence (levels) e.g. 0.95.
 * @param[out] out        (levels) se is the spread of the resampled means. A sample that is not
 *                        finite, or n < 2, gives what dpt_verdict_paired gives.
 * Errors: DPT_ERR_OUTPUT without memory; out undefined.
 * Determinism: depends on its arguments alone: the same bits at any number of ranks for the same
 * bits of a and b; rounding in them moves the bounds by about as much.
 */
dpt_status dpt_bootstrap_paired(int64_t n, const double *a, const double *b, int levels,
                                const double *confidence, const dpt_bootstrap *options,
                                dpt_interval *out);

#endif
