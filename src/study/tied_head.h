#ifndef DELTAPATH_SRC_STUDY_TIED_HEAD_H
#define DELTAPATH_SRC_STUDY_TIED_HEAD_H

#include "inputs.h"

/** Check that a head that is tied to the embedding (dpt_model_config_head) is no other one than that in the file: the
 * program would not use the file's, transformers 4 neither, and transformers 5 would. Without losses both stay two
 * tensors. A copy of the post-trained embedding is no tensor of its own: it is not edited, and gets the bytes
 * of the edited embedding (inputs->copy).
 * Collective over comm, agreed. Reads both tensors once where both are there, spread over the ranks.
 * Errors: DPT_ERR_INPUT naming the model; DPT_INTERRUPTED. */
dpt_status dpt_tied_head_check(const dpt_comm *comm, dpt_inputs *inputs);

#endif
