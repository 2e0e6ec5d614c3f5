#ifndef DELTAPATH_RESULTS_PROOF_H
#define DELTAPATH_RESULTS_PROOF_H

#include "deltapath/results/results.h"

/** A number and its 95 % interval by a bootstrap over edits; NaN where it is not known. */
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

/** How well the predicted changes of edits on a data set are the true ones. */
typedef struct dpt_proof {
    int64_t edits;                     /**< with a prediction and a finite change */
    dpt_proof_number correlation;      /**< Pearson's */
    dpt_proof_number rank_correlation; /**< Spearman's */
    dpt_proof_number
        slope;    /**< of the true change on the predicted one, least squares: 1 is calibrated */
    double ratio; /**< median of true over predicted change */
} dpt_proof;

/** Compare predicted_change, or predicted_first + predicted_second, with change.
 *
 * Local. Intervals are the 2.5 and 97.5 % quantiles over 2000 resamples of the edits, which take edits as independent:
 * those that differ in their seed alone are resampled together.
 * @param[in] units (count) of one data set.
 * Errors: DPT_ERR_OUTPUT without memory. Determinism: the same bits everywhere. */
dpt_status dpt_proof_measure(int64_t count, const dpt_result *const *units, dpt_proof_kind kind,
                             dpt_proof *out);

#endif
