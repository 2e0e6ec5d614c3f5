#ifndef DELTAPATH_SRC_STUDY_NEWER_H
#define DELTAPATH_SRC_STUDY_NEWER_H

#include "inputs.h"

/** Warn of models whose files were changed, copied or moved after what a resumed study keeps was made: a
 * fingerprint looks at samples of each tensor, and another model could pass for the same. Models with a stored
 * hash of each tensor are told apart in full. Local, on rank 0.
 * @param[in] finished (job->nedits) edits whose units are kept. @param[in] units per edit. */
void dpt_warn_of_newer(const dpt_inputs *inputs, const bool *finished, int units);

/** Warn when a tokenizer, generation or licence file of the post-trained model is not the one that edited models of
 * finished edits have: these keep theirs. Local, on rank 0. @param[in] finished (job->nedits) edits that are kept. */
void dpt_warn_of_companions(const dpt_inputs *inputs, const bool *finished);

#endif
