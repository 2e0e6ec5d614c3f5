#ifndef DELTAPATH_SRC_STUDY_DECOMPOSED_H
#define DELTAPATH_SRC_STUDY_DECOMPOSED_H

#include "resources.h"

/** Decompositions of low rank that the edits of a sweep share. */
typedef struct dpt_decomposed {
    dpt_edit_factors *factors;
    const dpt_edit_spec **specs; /**< (edits) those that are expected */
} dpt_decomposed;

/** None kept yet. Local. @param[in] room  bytes that a rank may keep. Errors: DPT_ERR_OUTPUT without memory; out is
 * empty. */
dpt_status dpt_decomposed_create(const dpt_inputs *inputs, int64_t room, dpt_decomposed *out);
void dpt_decomposed_destroy(dpt_decomposed *decomposed); /**< Local; an empty one is allowed. */

/** Before edit e is made: keep what it and the unfinished ones after it can take. Local.
 * @param[in] e  of the job; nedits: no edit comes. @param[in] finished (edits) or NULL. */
void dpt_decomposed_begin(const dpt_inputs *inputs, int e, const bool *finished,
                          dpt_decomposed *decomposed);

/** Say how many matrices were decomposed. Collective, agreed. */
dpt_status dpt_decomposed_log(const dpt_comm *comm, const dpt_decomposed *decomposed);

/** Whether an edit of the job decomposes a matrix. Local. */
bool dpt_decomposed_any(const dpt_inputs *inputs);

/** Count the decompositions of a whole study, their arithmetic, and what is not read for those that are shared. Local.
 * @param[in,out] resources  ranks, svd_room; decomposed and what follows it. Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_decomposed_plan(const dpt_inputs *inputs, int64_t room, dpt_resources *resources);

#endif
