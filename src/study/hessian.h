#ifndef DELTAPATH_SRC_STUDY_HESSIAN_H
#define DELTAPATH_SRC_STUDY_HESSIAN_H

#include "evaluation.h"

/* Second derivatives of the loss at W_post along directions that are made of the bound edit, as central differences of
 * slopes: two passes a direction, no gradient in memory. */

/** What the job's section takes of the delta, with W_pre bound in place of an edit: random signs, then eigenvalues, into
 * ev->data; what is bound is left open. Collective.
 * Determinism: the same bits on the same mesh, to rounding on others. */
dpt_status dpt_hessian_measure_data(dpt_evaluation *evaluation, const dpt_shard *shard);

/** What it takes of the bound edit on data set d: E^T H E tensor by tensor, and blocks. Collective.
 * @param[out] hessian, blocks empty where the job does not ask; to be destroyed. */
dpt_status dpt_hessian_measure_unit(dpt_evaluation *evaluation, int d,
                                    const dpt_edit_report *report, dpt_central *hessian,
                                    dpt_blocks *blocks);

/** Passes over a data set that the job's section takes before the edits, and with each edit, when the first two
 * steps are accurate enough. Local. */
int64_t dpt_hessian_passes(const dpt_job *job);
int64_t dpt_hessian_edit_passes(const dpt_inputs *inputs);

#endif
