#ifndef DELTAPATH_SRC_STUDY_LEAVE_OUT_H
#define DELTAPATH_SRC_STUDY_LEAVE_OUT_H

#include "evaluation.h"

/** Leave the groups of tensors that the job's section names out of the bound edit, one at a time, and measure the loss on
 * data set d; then, where asked, that of each group alone. All other weights are those of the bound edit, and those of
 * the group W_post, to the bit. Forward passes, no weights besides those that are bound.
 * Collective over the mesh (same: d, edit), agreed. Errors: those of dpt_loss_evaluate; DPT_ERR_OUTPUT without memory.
 * @param[in] report of the edit: groups in which it changes nothing take no pass.
 * @param[out] out empty where the job does not ask; dpt_evaluation_path_destroy ends it.
 * Determinism: the same bits on the same mesh, to rounding on others. */
dpt_status dpt_leave_out_measure(dpt_evaluation *evaluation, int d, const dpt_job_edit *edit,
                                 const dpt_edit_report *report, dpt_leave_out *out);

/** Passes over a data set that all edits take at most. Local. */
int64_t dpt_leave_out_passes(const dpt_inputs *inputs);

#endif
