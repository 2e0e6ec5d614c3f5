#ifndef DELTAPATH_SRC_MODEL_ARCH_GEMMA_H
#define DELTAPATH_SRC_MODEL_ARCH_GEMMA_H

#include "decoder.h"

/** Describe what Gemma 2 and 3 share: norms with factors 1 + w before and after attention and MLP, GeGLU, embeddings
 * times sqrt(C), and soft caps. Local. Errors: in->status.
 * @param[in] attention_cap, logit_cap  when the keys are absent; 0: none. */
void dpt_gemma_read(dpt_config *in, const dpt_decoder_traits *traits, double attention_cap,
                    double logit_cap, dpt_arch *out);

#endif
