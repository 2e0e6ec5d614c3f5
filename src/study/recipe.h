#ifndef DELTAPATH_SRC_STUDY_RECIPE_H
#define DELTAPATH_SRC_STUDY_RECIPE_H

#include "inputs.h"

/** Hash of all that an edited model depends on: version, both models, selection, edit with what it takes
 * from data, type and format of the output. A model carries it in its provenance, a unit as an attribute: they
 * belong together only when it agrees. Local; the same on all ranks. */
uint64_t dpt_recipe_of(const dpt_inputs *inputs, const dpt_job_edit *edit);

/** Whether the model at `path` is there, whole as far as its headers go, and of this recipe; when it is
 * there and is not, a warning says why. Rank 0 reads. Collective over comm (same: path, recipe).
 * @param[out] digest  of its tensor hashes, the same on all ranks.
 * Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_recipe_find_model(const dpt_comm *comm, const char *path, uint64_t recipe,
                                 bool *found, uint64_t *digest);

/** Hash of all that the bytes of an edited model in memory depend on, besides the ranks. Local.
 * @param[in] spec  the edit's own, or what a search made of it. */
uint64_t dpt_recipe_in_memory(const dpt_inputs *inputs, const dpt_job_edit *edit,
                              const dpt_edit_spec *spec);

#endif
