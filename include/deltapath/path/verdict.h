#ifndef DELTAPATH_PATH_VERDICT_H
#define DELTAPATH_PATH_VERDICT_H

#include "deltapath/base/status.h"
#include "deltapath/path/accuracy.h"
#include "deltapath/path/paired.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum dpt_verdict_class {
    DPT_VERDICT_UNDECIDED,   /**< "undecided" */
    DPT_VERDICT_COMPETITIVE, /**< "competitive": equivalent to post-trained within the margin */
    DPT_VERDICT_DECREASED,   /**< "decreased": the loss rises */
    DPT_VERDICT_IMPROVED     /**< "improved": the loss falls */
} dpt_verdict_class;

/** Name of a class as in the results. Local. */
const char *dpt_verdict_name(dpt_verdict_class verdict);

/** Margins within which an edit counts as equivalent. */
typedef struct dpt_verdict_margins {
    double
        share; /**< of the loss that post-training removed; 0.05; any where `absolute` is above 0 */
    double
        absolute; /**< [nats]; replaces the other margins of the loss when above 0; else NaN or 0 */
    double accuracy; /**< share of the samples; 0 leaves the accuracy out; 0.02 */
    double
        guess; /**< loss of one that knows nothing [nats], to which the pre-trained loss counts at most; NaN:
                          whatever that is */
} dpt_verdict_margins;

typedef struct dpt_verdict_options {
    double confidence; /**< of the printed intervals; 0.95 */
    double alpha;      /**< level of each test; 0.05 */
    dpt_verdict_margins margins;
    dpt_paired_options paired; /**< how intervals are made */
    const char *withheld; /**< reason, a constant string, why no verdict can be given; else NULL */
} dpt_verdict_options;

/** The defaults named above, Student's intervals, without an absolute margin or a guess. Local. */
dpt_verdict_options dpt_verdict_defaults(void);

/** Check options that a user gave: confidence and alpha inside their ranges, margins above 0 (an absolute
 * one may be NaN: none; that of the accuracy 0). Local. Errors: DPT_ERR_USAGE naming the option that is out of
 * range. */
dpt_status dpt_verdict_check(const dpt_verdict_options *options);

/** Whether so many samples in effect are no more than one, from which nothing is judged: below 1.5. NaN is
 * not. Local. */
bool dpt_verdict_is_one(double effective);

/** Whether the differences a - b of paired losses say more than one sample does, so that there are intervals of their mean:
 * more than one is there in effect, and they are not all alike to within rounding. Zero on every sample is as sure as it
 * looks. Local. @param[in] a, b (n). @param[in] effective as in dpt_paired_options. */
bool dpt_verdict_has_spread(int64_t n, const double *a, const double *b, double effective);

/** What a verdict stands on, each (n): values whose plain means are those of the samples (path/weighted). */
typedef struct dpt_verdict_samples {
    int64_t n;
    const double *pre; /**< losses; or NULL */
    const double *post, *edit;
    const double *terms; /**< integrated terms, or NULL; any NaN drops their interval */
    const double *right_pre, *right_post; /**< 1 where that model is right, or NULL */
    const dpt_accuracy_pairs *gained;     /**< post against pre; with right_pre */
    const dpt_accuracy_pairs
        *pairs; /**< edit against post; NULL: nothing is known of the accuracy */
} dpt_verdict_samples;

/** What is known of an edit's accuracy. */
typedef enum dpt_verdict_accuracy {
    DPT_ACCURACY_OUT,    /**< it is left out */
    DPT_ACCURACY_HOLDS,  /**< a fall by the margin or more is excluded */
    DPT_ACCURACY_UNSURE, /**< it is not */
    DPT_ACCURACY_FALLS   /**< it is not, and the interval of the change lies below 0 */
} dpt_verdict_accuracy;

/** What an edit does to the loss, and how sure that is. Numbers are NaN where they do not exist. */
typedef struct dpt_verdict {
    dpt_verdict_class verdict;
    const char *reason;  /**< one clause in words; a constant string */
    dpt_interval change; /**< L(edit) - L(post), paired */
    double skew;         /**< of the change */
    double enough;       /**< of the change, as in dpt_paired */
    bool resampled, few; /**< likewise */
    bool
        tail; /**< only the long tail of samples that are few for it keeps the loss from being equivalent */
    dpt_interval
        equivalence; /**< the same at confidence 1 - 2 alpha, wider by what is not known of the margin:
                                   the two one-sided tests hold where it lies within +- margin */
    dpt_interval estimate; /**< of the per-sample terms along the path; n = 0 without them */
    dpt_interval gain;     /**< L(pre) - L(post), paired; n = 0 without pre */
    bool gain_clear;       /**< the interval of the gain excludes 0 */
    const char
        *doubt;   /**< what limits all verdicts on this data, the gain being measured on two samples
                            or more: it is negative, not distinguishable from 0, or not above the
                            margin; a constant string, else NULL */
    double share; /**< change / gain: 0.2 loses a fifth of the gain; NaN unless clearly positive */
    double share_low;  /**< its interval by Fieller, of the gain as little known as of the change */
    double share_high; /**< upper end of that interval */
    double margin;     /**< [nats] that the equivalence test used; NaN without one */
    double
        margin_accuracy; /**< [nats] that a fall of the accuracy by its margin costs; NaN where not known */
    dpt_verdict_accuracy accuracy_is;
    dpt_accuracy accuracy; /**< of the edit; NaN throughout where it is not known */
    double p_change;       /**< two-sided p of no change */
    double p_equivalent;   /**< larger p of the two one-sided tests; NaN without a margin or where
                              the gain is below zero, 0 where no sample changes */
} dpt_verdict;

/** Judge an edit from losses of the same samples, and from whether each is right.
 *
 * Local. Computes: paired tests at level alpha. Loss: two one-sided tests of the change against the margin, which is
 * `absolute`; else the smaller of `share` times the room, min(L(pre), guess) - L(post), and of what a fall of the
 * accuracy by its margin costs, room / (accuracy(post) - accuracy(pre)) times that margin, where the post-trained
 * model is clearly more accurate. Such a margin is measured on the same samples: the tests are of the change less,
 * and plus, each sample's part of it. Accuracy: dpt_accuracy_judge. Competitive where both hold (each at alpha: their
 * intersection errs no more often); undecided where only the long tail of few samples keeps the loss from it; else the
 * interval of the change above 0, and not within the margin, or the
 * accuracy within it but clearly lower: decreased; the interval of the change below 0: improved, unless the accuracy falls;
 * else undecided. Without a margin the verdict is undecided and the reason says so. Where the gain is clearly
 * negative nothing is competitive: what was to be kept is worse than what it was made from, as when the
 * two models are swapped. One sample is undecided, and so is all with options->withheld. So is a change, not zero on
 * all samples, that stands on one sample in effect, or is the same on every sample: these have means and
 * no intervals. An edit that changes no sample's loss is competitive whatever is known of the accuracy.
 * An infinite loss of the edit is decreased; a NaN is undecided, and so is every edit where a loss of pre or post is
 * not finite.
 * Errors: DPT_ERR_OUTPUT without memory.
 * Determinism: samples in order, in double.
 */
dpt_status dpt_verdict_judge(const dpt_verdict_samples *samples, const dpt_verdict_options *options,
                             dpt_verdict *out);

/** Holm's step-down correction for n comparisons.
 *
 * Local. Computes: adjusted p of rank k (from 1) = max over j <= k of min(1, (m - j + 1) p_j), m the
 * number of p that are not NaN; NaN stays NaN.   Source: Holm, Scand. J. Statist. 6 (1979).
 * @param[out] adjusted (n), may be p itself. Errors: DPT_ERR_OUTPUT without memory.
 */
dpt_status dpt_verdict_holm(int64_t n, const double *p, double *adjusted);

#endif
