#ifndef DELTAPATH_SRC_STUDY_EDITED_H
#define DELTAPATH_SRC_STUDY_EDITED_H

#include "deltapath/store/quantise.h"
#include "evaluation.h"
#include "inputs.h"
#include "resources.h"

/** The quantised form that a job's edited models take, with `output.quantise: true`. Collective over comm, agreed.
 * @param[out] out  NULL when the job does not ask for it. Errors: those of dpt_quantiser_create. */
dpt_status dpt_edited_form(const dpt_comm *comm, const dpt_inputs *inputs, const dpt_shard *shard,
                           dpt_quantiser **out);

/** Room for an edited model in memory. What passes take besides weights and gradients is freed for it, and where that does
 * not do, the edit that is bound. Collective over comm, agreed. @param[in] evaluation  or NULL. Errors: those of dpt_field_create. */
dpt_status dpt_edited_open(const dpt_comm *comm, const dpt_inputs *inputs, const dpt_shard *shard,
                           const dpt_resources *resources, dpt_evaluation *evaluation,
                           dpt_field **out);

/** Finish an edited model in memory: round it to its quantised form, correct what its report says of E, and write it.
 *
 * Collective over comm, agreed.
 * @param[in,out] edited  all cells of the edited model. @param[in] quantiser  NULL: it is as it is.
 * @param[in] writer, report  or NULL.
 * Errors: those of dpt_quantiser_apply; DPT_ERR_OUTPUT without memory; DPT_INTERRUPTED by a stop.
 * Determinism: same bits for any number of ranks. */
dpt_status dpt_edited_finish(const dpt_comm *comm, const dpt_inputs *inputs, const dpt_shard *shard,
                             dpt_quantiser *quantiser, dpt_field *edited, dpt_store_writer *writer,
                             dpt_edit_report *report);

#endif
