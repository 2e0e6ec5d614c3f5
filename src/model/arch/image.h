#ifndef DELTAPATH_SRC_MODEL_ARCH_IMAGE_H
#define DELTAPATH_SRC_MODEL_ARCH_IMAGE_H

#include "arch.h"

/** Describe an image tower: widths, patches and activation; rows are the family's. Local.
 * @param[in] eps, act  of layer_norm_eps and hidden_act when the keys are absent.
 * Errors: in->status. */
void dpt_image_read(dpt_config *in, double eps, const char *act, dpt_arch *out);

/** The number of classes is the rows of the tensor `name` of the catalog. Local.
 * @param[in] remedy  what to do when there is no such tensor. Errors: in->status. */
void dpt_image_count_classes(dpt_config *in, const dpt_catalog *catalog, const char *name,
                             const char *remedy, dpt_arch *out);

#endif
