#ifndef DELTAPATH_SRC_STUDY_UNIT_H
#define DELTAPATH_SRC_STUDY_UNIT_H

#include "deltapath/edit/edit.h"
#include "deltapath/results/results.h"
#include "auto_alpha.h"
#include "evaluation.h"
#include "inputs.h"

/** Put together the record of a finished unit. `path` is NULL for an edit alone; d is then -1.
 * @param[in] found  of `alpha: auto`, else NULL.
 * Local. Errors: DPT_ERR_OUTPUT without memory; out is empty then. */
dpt_status dpt_unit_record(const dpt_inputs *inputs, const dpt_job_edit *edit,
                           const dpt_auto_alpha *found, const dpt_edit_report *report,
                           const dpt_evaluation *evaluation, int d, const dpt_evaluation_path *path,
                           double seconds, dpt_result *out);

/** Warn of a model whose loss on data set d is not finite, with the first such sample. Local; call it on all
 * ranks. */
void dpt_unit_warn_broken(const dpt_inputs *inputs, int d, const dpt_baseline *base);

/** Warn once of a gain that is negative, cannot be told from zero or is not above the margin, before any edit is made; of one sample in effect nothing is known. Local; call
 * it on all ranks. Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_unit_warn_gain(const dpt_inputs *inputs, int d, const dpt_baseline *base);

#endif
