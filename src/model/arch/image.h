#ifndef DELTAPATH_SRC_MODEL_ARCH_IMAGE_H
#define DELTAPATH_SRC_MODEL_ARCH_IMAGE_H

#include "arch.h"

/** What a family of image towers has where config.json is silent, and in which it differs from a ViT. */
typedef struct dpt_image_traits {
    double eps;      /**< of layer_norm_eps */
    const char *act; /**< of hidden_act */
    /** Of the keys of the same meaning; 0: the key must be there. */
    int64_t width, units, layers, heads, side, patch;
    bool own_units;     /**< the family says itself how many hidden units there are */
    bool classless;     /**< no class token */
    int64_t registers;  /**< tokens besides */
    dpt_pool_kind pool; /**< what the head reads */
} dpt_image_traits;

/** Describe an image tower: widths, patches and activation; rows are the family's. Local.
 * Errors: in->status. */
void dpt_image_read(dpt_config *in, const dpt_image_traits *traits, dpt_arch *out);

/** Whether dpt_image_read or dpt_arch_read reads a key, or it changes nothing (`knows` of the families). Local. */
bool dpt_image_knows(const char *key);

/** The number of classes is the rows of the tensor `name` of the catalog. Local.
 * @param[in] remedy  what to do when there is no such tensor. Errors: in->status. */
void dpt_image_count_classes(dpt_config *in, const dpt_catalog *catalog, const char *name,
                             const char *remedy, dpt_arch *out);

#endif
