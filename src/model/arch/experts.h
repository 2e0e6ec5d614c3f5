#ifndef DELTAPATH_SRC_MODEL_ARCH_EXPERTS_H
#define DELTAPATH_SRC_MODEL_ARCH_EXPERTS_H

#include "decoder.h"

/** Give a decoder experts in the place of its MLP; its rows of these are the family's. Local.
 * @param[in] units_key  of the hidden units of one.
 * @param[in] used       num_experts_per_tok when the key is absent.
 * Errors: in->status. */
void dpt_experts_read(dpt_config *in, const char *units_key, int64_t used, dpt_nn_route_kind kind,
                      dpt_arch *out);

/** Give it the rows of experts that are stored together, a tensor a layer, if the catalog has these. Local. */
bool dpt_experts_add_fused(const dpt_catalog *catalog, dpt_arch *out);

#endif
