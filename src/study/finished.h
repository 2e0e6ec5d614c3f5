#ifndef DELTAPATH_SRC_STUDY_FINISHED_H
#define DELTAPATH_SRC_STUDY_FINISHED_H

#include "inputs.h"
#include "outputs.h"

/** What earlier runs have finished of a study. */
typedef struct dpt_finished {
    bool *edits;         /**< (edits) all of its units and its model are there */
    int count;           /**< of them */
    uint64_t digests[2]; /**< of the models of finished units; 0: they do not say */
} dpt_finished;

/** Nothing yet. Local. Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_finished_create(const dpt_job *job, dpt_finished *out);
void dpt_finished_destroy(dpt_finished *finished); /**< Local. */

/** Find it. Collective over comm (same: units), agreed.
 * @param[in] units  of an edit. @param[out] finished  made by dpt_finished_create.
 * Errors: those of dpt_finished_compare, dpt_outputs_has_model and dpt_results_load_unit. */
dpt_status dpt_finished_find(const dpt_comm *comm, const dpt_inputs *inputs,
                             const dpt_outputs *outputs, int units, dpt_finished *finished);

/** Compare what finished units say of the whole models with what was read of them, where both are known: fingerprints look
 * at samples. Local. Errors: DPT_ERR_INPUT naming the model and the remedy. */
dpt_status dpt_finished_compare(const dpt_inputs *inputs, const dpt_finished *finished,
                                const uint64_t found[2]);

#endif
