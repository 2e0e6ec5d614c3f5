#ifndef DELTAPATH_SRC_MODEL_ARCH_DINOV2_H
#define DELTAPATH_SRC_MODEL_ARCH_DINOV2_H

#include "image.h"

/** Describe DINOv2 with a class head, which reads the class token and the mean of the patches; out->tower is set. Local.
 * @param[in] registers  tokens besides, whose row is the family's. Errors: in->status. */
void dpt_dinov2_read(dpt_config *in, const dpt_catalog *catalog, int64_t registers, dpt_arch *out);

/** dpt_family.ignores of it: what hides patches in pre-training. Local. */
bool dpt_dinov2_ignores(const dpt_arch *arch, const char *name);

#endif
