#ifndef DELTAPATH_SRC_MODEL_ARCH_SIGLIP_H
#define DELTAPATH_SRC_MODEL_ARCH_SIGLIP_H

#include "image.h"

/** Describe the vision tower of SigLIP; its head is the family's, out->tower is set. Local.
 * @param[in] in  the tower's configuration. Errors: in->status. */
void dpt_siglip_read(dpt_config *in, dpt_pool_kind pool, dpt_arch *out);

#endif
