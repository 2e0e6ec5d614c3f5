#ifndef DELTAPATH_SRC_STUDY_LAW_H
#define DELTAPATH_SRC_STUDY_LAW_H

#include "deltapath/base/rng.h"
#include "deltapath/job/job.h"

#include <stdbool.h>

/** The law of random edits (doc/science.md): an edit E whose entries are independent, of mean zero and of
 * variance s Delta_i^2 raises the loss by s c on average, c = 1/2 sum_i Delta_i^2 H_ii. H is the
 * Gauss-Newton matrix of the mean loss at W_post; its diagonal comes from labels that the model draws. */
typedef struct dpt_law {
    int tensors, repeats;
    double *draws; /**< (repeats, tensors) sum Delta_i^2 G_i^2, and after dpt_law_finish c of each
                               draw; the one allocation */
    double *mean, *se;      /**< (tensors) c of each; NULL when it is not measured */
    double *totals;         /**< (repeats) c of each draw */
    double total, total_se; /**< c; a standard error needs 2 repeats, else it is NaN */
    bool exact;             /**< of all labels: one draw, whose errors are 0 */
} dpt_law;

/** Whether a job measures it, and how many passes over a data set that takes of a model with so many classes. Local. */
int64_t dpt_law_passes(const dpt_job *job, int64_t classes);

/** Room for all draws. Local. Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_law_create(int tensors, int repeats, dpt_law *out);
void dpt_law_destroy(dpt_law *law); /**< Local; an empty one is allowed. */

/** Stream of the labels of repeat r on a data set. Local. */
dpt_rng dpt_law_labels(const dpt_job *job, const char *data, int r);

/** Where the sums of repeat r go, (tensors). Local. */
double *dpt_law_draw(dpt_law *law, int r);

/** Standard error over the draws of a sum over tensors. Local. @param[in] off sum of the squares of what draws are off its mean.
 * @return 0 of all labels, NaN of one draw. */
double dpt_law_error(const dpt_law *law, double off);

/** Means and standard errors over the draws. Local. @param[in] selected (tensors) those that edits touch: the
 * others have no share. */
void dpt_law_finish(dpt_law *law, const bool *selected);

/** s up to which the second order is most of the change: measured, see doc/science.md. */
#define DPT_LAW_RANGE 0.1

/** What the law says of an edit before it is measured. */
typedef struct dpt_law_prediction {
    double s;      /**< (k-1)^2 p/(1-p); where tensors have a p of their own, its mean by their c */
    double change; /**< s c [nats], or the sum of it over the tensors */
    double se;     /**< standard error: of the draws of labels, not of masks or samples */
    bool in_range; /**< s <= 0.1 */
} dpt_law_prediction;

/** Local. @return whether the law is measured and the edit is one of its kind: a single dare with exact rescaling,
 * not calibrated. */
bool dpt_law_predict(const dpt_law *law, const dpt_edit_spec *spec, dpt_law_prediction *out);

/** Say what was measured; nothing without it. Local. */
void dpt_law_log(const char *data, const dpt_law *law);

/** "0.27 +- 0.01", or without the error of a single draw. Local. @return text. */
const char *dpt_law_number(double mean, double se, char text[64]);

#endif
