#ifndef DELTAPATH_SRC_MODEL_VIT_CONFIG_H
#define DELTAPATH_SRC_MODEL_VIT_CONFIG_H

#include "config.h"

#include "deltapath/nn/mlp.h"
#include "deltapath/tensor/catalog.h"

/** Tensors of the whole model, then DPT_VIT_LAYER_TENSORS a layer. */
typedef enum dpt_vit_tensor {
    DPT_VIT_CLASS,
    DPT_VIT_PATCH,
    DPT_VIT_PATCH_BIAS,
    DPT_VIT_POSITION,
    DPT_VIT_PRE_NORM,
    DPT_VIT_PRE_NORM_BIAS,
    DPT_VIT_POST_NORM,
    DPT_VIT_POST_NORM_BIAS,
    DPT_VIT_HEAD, /**< classifier, or projection of the image */
    DPT_VIT_HEAD_BIAS,
    DPT_VIT_TEXT, /**< fixed embedding of each class's text */
    DPT_VIT_LAYERS_AT
} dpt_vit_tensor;

typedef enum dpt_vit_layer_tensor {
    DPT_VIT_NORM1,
    DPT_VIT_NORM1_BIAS,
    DPT_VIT_Q,
    DPT_VIT_K,
    DPT_VIT_V,
    DPT_VIT_Q_BIAS,
    DPT_VIT_K_BIAS,
    DPT_VIT_V_BIAS,
    DPT_VIT_O,
    DPT_VIT_O_BIAS,
    DPT_VIT_NORM2,
    DPT_VIT_NORM2_BIAS,
    DPT_VIT_UP,
    DPT_VIT_UP_BIAS,
    DPT_VIT_DOWN,
    DPT_VIT_DOWN_BIAS,
    DPT_VIT_LAYER_TENSORS
} dpt_vit_layer_tensor;

/** What tells the image families apart. Names that a family has not are NULL. */
typedef struct dpt_vit_family {
    bool
        text_head; /**< logits from a fixed head of text embeddings (CLIP), else a classifier (ViT) */
    double eps;    /**< layer_norm_eps when the key is absent */
    const char *act;
    const char *names[DPT_VIT_LAYERS_AT];
    const char *layer; /**< what stands before the number of a layer */
    const char *layer_names[DPT_VIT_LAYER_TENSORS];
} dpt_vit_family;

extern const dpt_vit_family dpt_vit_vit;
extern const dpt_vit_family dpt_vit_clip;

/** Shape and options: x = [class; patches] + positions, CLIP: norm x; x += o(attention(norm x));
 * x += down(act(up(norm x))); head(norm of the class token). */
typedef struct dpt_vit_config {
    const dpt_vit_family *family;
    int64_t classes;
    int64_t hidden;
    int64_t intermediate;
    int64_t layers;
    int64_t heads;
    int64_t head_dim;
    int64_t channels;
    int64_t side;           /**< of an image [pixels] */
    int64_t patch;          /**< side of a patch [pixels] */
    int64_t patches;        /**< of an image */
    int64_t positions;      /**< patches + 1 */
    int64_t patch_elements; /**< channels * patch * patch */
    int64_t projection;     /**< width of the text embeddings; 0 with a classifier */
    double eps;
    dpt_act_kind act;
    const char *act_name; /**< its name in config.json */
    bool qkv_bias;
} dpt_vit_config;

/** Read and check config.json; the number of classes is that of the head in the catalog. Local.
 * Errors: DPT_ERR_INPUT naming the key or the head's tensor. */
dpt_status dpt_vit_config_read(const dpt_vit_family *family, const json_t *root,
                               const dpt_catalog *catalog, dpt_vit_config *out);

#endif
