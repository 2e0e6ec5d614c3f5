#ifndef DELTAPATH_PATH_VERDICT_H
#define DELTAPATH_PATH_VERDICT_H

#include "deltapath/base/status.h"

#include <stdbool.h>
#include <stdint.h>

/** Mean of samples with its confidence interval. */
typedef struct dpt_interval {
    int64_t n;
    double mean;
    double se;   /**< standard error of the mean; NaN for n < 2 */
    double low;  /**< lower end of the interval, Student's or of a bootstrap; NaN for n < 2 */
    double high; /**< its upper end */
} dpt_interval;

/** Interval of the mean of a - b, sample by sample.
 *
 * Local. Computes: mean +- t_{(1 + confidence) / 2, n - 1} s / sqrt(n).
 * @param[in] a          (n). @param[in] b (n), or NULL: zeros.
 * @param[in] confidence e.g. 0.95.
 * A sample that is not finite makes mean NaN or infinite and the rest NaN. Equal samples give an
 * interval of no width.
 * Determinism: two passes over the samples in order, in double.
 */
dpt_interval dpt_verdict_paired(int64_t n, const double *a, const double *b, double confidence);

/** Skewness of a - b, sample by sample: third moment over the standard deviation cubed; NaN without spread.
 * Local. @param[in] a (n). @param[in] b (n). */
double dpt_verdict_skew(int64_t n, const double *a, const double *b);

typedef enum dpt_verdict_class {
    DPT_VERDICT_UNDECIDED,   /**< "undecided" */
    DPT_VERDICT_COMPETITIVE, /**< "competitive": equivalent to post-trained within the margin */
    DPT_VERDICT_DECREASED,   /**< "decreased": the loss rises */
    DPT_VERDICT_IMPROVED     /**< "improved": the loss falls */
} dpt_verdict_class;

/** Name of a class as in the results. Local. */
const char *dpt_verdict_name(dpt_verdict_class verdict);

/** All intervals of a mean at once: with level u, end(u) is the end of the one-sided interval that errs below
 * with probability u; it rises. level(v) is where it passes v. Local functions. */
typedef struct dpt_verdict_curve {
    const void *ctx;
    double se; /**< standard error of the mean */
    double (*end)(const void *ctx, double level);
    double (*level)(const void *ctx, double value);
} dpt_verdict_curve;

typedef struct dpt_verdict_options {
    double confidence;      /**< of the printed intervals; 0.95 */
    double alpha;           /**< level of each test; 0.05 */
    double share_margin;    /**< margin as a share of the post-training gain; 0.05 */
    double absolute_margin; /**< margin [nats]; replaces the share when above 0; else NaN or 0 */
    const dpt_verdict_curve
        *curve;       /**< what intervals and p values of the change are of in place of
                                         Student's distribution; NULL: that. Borrowed. */
    double effective; /**< number of independent samples that repeats and weights leave in effect:
                               (sum w)^2 / sum w^2 over the distinct ones; NaN: n of them. Intervals and
                               tests have one degree of freedom less, and below n / 2 no curve judges */
    const char *withheld; /**< reason, a constant string, why no verdict can be given; else NULL */
} dpt_verdict_options;

/** The defaults named above, without an absolute margin. Local. */
dpt_verdict_options dpt_verdict_defaults(void);

/** Check options that a user gave: confidence and alpha inside their ranges, margins above 0 (an absolute
 * one may be NaN: none). Local. Errors: DPT_ERR_USAGE naming the option that is out of range. */
dpt_status dpt_verdict_check(const dpt_verdict_options *options);

/** Whether so many samples in effect are no more than one, from which nothing is judged: below 1.5. NaN is
 * not. Local. */
bool dpt_verdict_is_one(double effective);

/** What an edit does to the loss, and how sure that is. Numbers are NaN where they do not exist. */
typedef struct dpt_verdict {
    dpt_verdict_class verdict;
    const char *reason;       /**< one clause in words; a constant string */
    dpt_interval change;      /**< L(edit) - L(post), paired */
    dpt_interval equivalence; /**< the same at confidence 1 - 2 alpha: the two one-sided tests */
    dpt_interval estimate;    /**< of the per-sample terms along the path; n = 0 without them */
    dpt_interval gain;        /**< L(pre) - L(post), paired; n = 0 without pre */
    bool gain_clear;          /**< the interval of the gain excludes 0 */
    const char
        *doubt;   /**< what limits all verdicts on this data, the gain being measured on two samples
                            or more: it is negative, not distinguishable from 0, or not above the
                            margin; a constant string, else NULL */
    double share; /**< change / gain: 0.2 loses a fifth of the gain; NaN unless clearly positive */
    double share_low;    /**< interval of change / gain, the gain taken as known */
    double share_high;   /**< upper end of that interval */
    double margin;       /**< [nats] that the equivalence test used; NaN without one */
    double p_change;     /**< two-sided p of no change */
    double p_equivalent; /**< larger p of the two one-sided tests; NaN without a margin */
} dpt_verdict;

/** Judge an edit from losses of the same samples.
 *
 * Local. Computes: paired t tests. Two one-sided tests at level alpha inside +-margin:
 * competitive; else the interval of the change above 0: decreased; below 0: improved; else
 * undecided. The margin is absolute_margin, or share_margin * gain when the gain is clearly
 * positive; without either the verdict is undecided and the reason says so. Where the gain is clearly
 * negative nothing is competitive: what was to be kept is worse than what it was made from, as when the
 * two models are swapped. One sample is undecided, and so is all with options->withheld. So is a change, not zero on all samples, that
 * stands on one sample in effect (options->effective), or is the same on every sample: these have means and
 * no intervals. With options->curve its intervals decide, and p values are the levels at which they just do. An infinite loss of the edit is decreased; a NaN is
 * undecided, and so is every edit where a loss of pre or post is not finite.
 * @param[in] pre  (n) or NULL. @param[in] post, edit (n).
 * @param[in] sample_terms (n) per-sample integrated terms, or NULL; any NaN drops their interval.
 * Determinism: samples in order, in double.
 */
dpt_verdict dpt_verdict_judge(int64_t n, const double *pre, const double *post, const double *edit,
                              const double *sample_terms, const dpt_verdict_options *options);

/** Holm's step-down correction for n comparisons.
 *
 * Local. Computes: adjusted p of rank k (from 1) = max over j <= k of min(1, (m - j + 1) p_j), m the
 * number of p that are not NaN; NaN stays NaN.   Source: Holm, Scand. J. Statist. 6 (1979).
 * @param[out] adjusted (n), may be p itself. Errors: DPT_ERR_OUTPUT without memory.
 */
dpt_status dpt_verdict_holm(int64_t n, const double *p, double *adjusted);

#endif
