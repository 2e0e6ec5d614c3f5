#ifndef DELTAPATH_SRC_STUDY_PREDICTION_H
#define DELTAPATH_SRC_STUDY_PREDICTION_H

#include "deltapath/comm/comm.h"
#include "deltapath/path/riemann.h"
#include "deltapath/results/results.h"
#include "law.h"
#include "logits.h"
#include "outputs.h"

enum { DPT_PREDICTION_AT = 48, DPT_PREDICTION_RANGE = 256 };

/** What is known of an edit's change before a loss of it is evaluated. */
typedef struct dpt_prediction {
    bool made;     /**< false, and all else NaN or empty: the law is not measured */
    double first;  /**< <g, E> at W_post, E as written; NaN where that gradient is not kept */
    double second; /**< sum over tensors of c_l |E_l|^2 / |Delta_l|^2; of dare s c */
    double
        change; /**< first + second; of dare its mean over masks, second; NaN without what it needs */
    double se; /**< standard error of second over the draws of labels */
    double s;  /**< second / c: what variance for each Delta_i^2 would do the same */
    bool
        in_range; /**< entries of E are independent, s is small, rounding leaves E as it is, and the
                      loss is no nearly zero one; nothing that is found later changes it */
    dpt_logits_prediction accuracy; /**< of random edits, where the logits are measured, else NaN */
    char range[DPT_PREDICTION_RANGE]; /**< "in range", or why not; and what the path shows */
    char at[DPT_PREDICTION_AT];       /**< time and hash of its line in predictions.csv */
} dpt_prediction;

/** Predict an edit that is made, from its law and report. Local; the same on all ranks.
 * @param[in] start (tensors) <g, E> of each; NULL: not known. @param[in] loss at W_post, mean.
 * @param[in] rounding of the edit, as dpt_guards_rounding. */
void dpt_prediction_make(const dpt_law *law, const dpt_edit_spec *spec,
                         const dpt_edit_report *report, const double *start, double loss,
                         double rounding, dpt_prediction *out);

/** Say after the range that the path is not quadratic: that its third order is more than two thirds of the predicted
 * change. In range or not stays as it was before the path. Nothing for rules of fewer than three points. Local. */
void dpt_prediction_see_path(const dpt_riemann *path, dpt_prediction *prediction);

/** The largest p of dare with this k whose predicted change is at most `margin` as far as the law holds. Local.
 * @param[in] loss at W_post. @return NaN without a law or a margin, and where the loss is nearly zero. */
double dpt_prediction_safe_rate(const dpt_law *law, double loss, double margin, double k);

/** A prediction that is to be made before a path is walked. */
typedef struct dpt_prediction_task {
    const dpt_comm *comm;
    dpt_outputs *outputs;    /**< the first file of a study replaces an earlier one */
    const char *edit, *data; /**< ids */
    const dpt_law *law;
    const dpt_logits *logits;
    const dpt_edit_spec *spec;
    const dpt_edit_report *report;
    double loss;         /**< at W_post, mean */
    double rounding;     /**< of the edit, as dpt_guards_rounding */
    dpt_prediction made; /**< by dpt_prediction_run */
} dpt_prediction_task;

/** Make it, say it, and put its line into predictions.csv in the study's directory, in place of an earlier one of this
 * edit and data set, which sets `at`. Rank 0 writes.
 * Collective over the task's comm (same: edit, data). @param[in] start as dpt_prediction_make.
 * Errors: DPT_ERR_OUTPUT naming the file; those of dpt_outputs_replace. */
dpt_status dpt_prediction_run(dpt_prediction_task *task, const double *start);

/** Have the manifest of the study list the file, when there is one. Local, for rank 0. Errors: DPT_ERR_OUTPUT naming it. */
dpt_status dpt_prediction_list(const char *directory);

/** Check that the file still has the line with time and hash of each unit that was predicted. Local, for rank 0.
 * @param[in] units (count) empty ones are left out. Errors: DPT_ERR_OUTPUT naming file and edit. */
dpt_status dpt_prediction_check(const char *directory, const dpt_result *units, int64_t count);

/** Copy it into the columns of a unit; nothing where none was made. Local. Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_prediction_record(const dpt_prediction *prediction, dpt_result *out);

#endif
