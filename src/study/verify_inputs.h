#ifndef DELTAPATH_SRC_STUDY_VERIFY_INPUTS_H
#define DELTAPATH_SRC_STUDY_VERIFY_INPUTS_H

#include "inputs.h"

/** Hashes of all tensors of pre and post, as `--verify-inputs` read them whole. */
typedef struct dpt_verified {
    uint64_t *read[2]; /**< (count), or NULL: not read */
    int count[2];
} dpt_verified;

/** Check all models of a job, each as `deltapath verify` sees it. Collective over comm, agreed (same: job).
 * @param[out] out  to be forgotten, on an error too. Errors: those of dpt_store_verify. */
dpt_status dpt_verify_inputs(const dpt_comm *comm, const dpt_job *job, dpt_verified *out);

/** Set the digests of inputs that are open to those of models that were read whole. Collective over comm, agreed.
 * Errors: those of dpt_inputs_set_digest. */
dpt_status dpt_verify_inputs_take(const dpt_comm *comm, const dpt_verified *verified,
                                  dpt_inputs *inputs);
void dpt_verify_inputs_forget(dpt_verified *verified); /**< Local. */

#endif
