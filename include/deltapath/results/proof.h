#ifndef DELTAPATH_RESULTS_PROOF_H
#define DELTAPATH_RESULTS_PROOF_H

#include "deltapath/results/results.h"

/** A number and its 95 % interval over edits, or over groups of tensors; NaN where it is not known. */
typedef struct dpt_proof_number {
    double value, low, high;
} dpt_proof_number;

/** Which predictions are compared: all, those in range, or of these the first and second order of E as it was drawn in
 * place of the mean over masks. */
typedef enum dpt_proof_kind {
    DPT_PROOF_ALL,
    DPT_PROOF_IN_RANGE,
    DPT_PROOF_AS_DRAWN
} dpt_proof_kind;

/** With what the terms of groups of tensors are compared: what leaving the group out of the edit changes, what its part
 * of the edit changes alone, or the middle of both, which to second order in E is the term. */
typedef enum dpt_proof_of_groups {
    DPT_PROOF_LEFT_OUT,
    DPT_PROOF_ALONE,
    DPT_PROOF_MIDDLE
} dpt_proof_of_groups;

/** Edits, or groups, of which fewer have no intervals; fewer edits with predictions have no numbers either. */
enum { DPT_PROOF_LEAST = 4 };

/** How well the predicted changes of edits on a data set are the true ones, or terms of groups what these change. */
typedef struct dpt_proof {
    int64_t edits;  /**< with a prediction and a finite change; with groups that were left out */
    int64_t groups; /**< of all these edits together; 0 of predictions */
    int64_t
        independent; /**< that intervals are over: edits, those that are one together, or the groups of a single one */
    int64_t seeds; /**< of what several edits draw alike; 0: no two edits have one in common */
    dpt_proof_number correlation;      /**< Pearson's */
    dpt_proof_number rank_correlation; /**< Spearman's */
    dpt_proof_number
        slope; /**< of the true change on the predicted one, least squares: 1 is calibrated */
    double
        ratio; /**< median of true over predicted change, edits that have neither left out; NaN when not finite */
    bool
        few; /**< fewer than eight edits (those that are one together) or groups, or fewer than a third of them carry the
                 spread, 1 / sum h^2 of their shares h of its squares, or all that is drawn is of one seed: intervals may
                 cover less than 95 % */
} dpt_proof;

/** Compare predicted_change, or predicted_first + predicted_second, with change.
 *
 * Local. Intervals take edits as independent; those that differ in their seed alone are one, and so are those whose losses
 * are the same on every sample. Edits with a seed in common draw alike, and are not independent over draws: the square of the
 * reach over edits has that of the jackknife over seeds added (Student's quantile of one less than the seeds), without
 * seeds that edits share nothing. That of the slope, and by
 * Fisher's z that of Pearson's correlation, are by the jackknife with Student's quantile of one less than the edits that
 * carry the spread, at least 1. That of ranks has Bonett and Wright's variance of z, or from eight edits on the jackknife's
 * where it is wider. Fewer than four edits have no numbers.
 *   Source: Bonett and Wright, Psychometrika 65 (2000) 23; Howe, J. Am. Stat. Assoc. 69 (1974) 789.
 * @param[in] units (count) of one data set.
 * Errors: DPT_ERR_OUTPUT without memory. Determinism: the same bits everywhere. */
dpt_status dpt_proof_measure(int64_t count, const dpt_result *const *units, dpt_proof_kind kind,
                             dpt_proof *out);

/** Compare proof_term with proof_change, proof_alone or the middle of both over the groups of the units.
 *
 * Local. Of several units intervals are as above, over edits with all their groups. Where one unit alone has groups they are over these, in
 * the same way; below eight groups Fisher's z has the variance of normal ones, and the slope Student's distribution with
 * the HC3 standard error. Fewer than four groups have no numbers, fewer than four edits no intervals.
 *   Source: MacKinnon and White, J. Econometrics 29 (1985) 305.
 * @param[in] units (count) of one data set. Errors and determinism: as dpt_proof_measure. */
dpt_status dpt_proof_measure_groups(int64_t count, const dpt_result *const *units,
                                    dpt_proof_of_groups of, dpt_proof *out);

/** How well the predicted accuracies of random edits on a data set are the true ones. */
typedef struct dpt_proof_accuracy {
    int64_t edits; /**< with a predicted and a true one */
    double error;  /**< mean of |true - predicted| [share]; NaN without edits, as the others */
    double bias;   /**< mean of true - predicted */
    double
        inside; /**< share of the edits that lie within 1.96 standard deviations over masks of the prediction, but for rounding */
} dpt_proof_accuracy;

/** Compare predicted_accuracy with accuracy_edit. Local. @param[in] units (count) of one data set.
 * @param[in] in_range leave out those whose predictions are not. */
dpt_proof_accuracy dpt_proof_measure_accuracy(int64_t count, const dpt_result *const *units,
                                              bool in_range);

#endif
