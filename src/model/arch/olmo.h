#ifndef DELTAPATH_SRC_MODEL_ARCH_OLMO_H
#define DELTAPATH_SRC_MODEL_ARCH_OLMO_H

#include "decoder.h"

/** Describe OLMo 2, whose norms follow attention and MLP, and whose q and k norms are over all heads together; OLMo 3
 * has windows besides. Local. Errors: in->status. */
void dpt_olmo_read(dpt_config *in, const dpt_decoder_traits *traits, dpt_arch *out);

#endif
