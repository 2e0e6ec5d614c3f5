#ifndef DELTAPATH_SRC_STUDY_TIED_HEAD_H
#define DELTAPATH_SRC_STUDY_TIED_HEAD_H

#include "inputs.h"

/** Check that a head tied to the embedding by config.json is no other one than that in the file: the
 * program would not use the file's, transformers 4 neither, and transformers 5 would. A copy is said: edits
 * of it change no loss.
 * Collective over comm, agreed. Reads both tensors once where both are there, spread over the ranks.
 * Errors: DPT_ERR_INPUT naming the model; DPT_INTERRUPTED. */
dpt_status dpt_tied_head_check(const dpt_comm *comm, const dpt_inputs *inputs);

#endif
