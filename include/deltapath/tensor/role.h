#ifndef DELTAPATH_TENSOR_ROLE_H
#define DELTAPATH_TENSOR_ROLE_H

#include "deltapath/tensor/catalog.h"

#include <stdbool.h>

/** Names in the files of language models, as HuggingFace writes them. */
#define DPT_NAME_HEAD      "lm_head.weight"
#define DPT_NAME_EMBEDDING "model.embed_tokens.weight"

/** Which kind of module a tensor belongs to. */
typedef enum dpt_role_kind {
    DPT_ROLE_EMBED, /**< token, patch, position and class embeddings */
    DPT_ROLE_Q,
    DPT_ROLE_K,
    DPT_ROLE_V,
    DPT_ROLE_QKV, /**< q, k and v in one tensor (tensor/part.h) */
    DPT_ROLE_O,
    DPT_ROLE_GATE,
    DPT_ROLE_UP,      /**< also the first linear of a plain MLP (fc1) */
    DPT_ROLE_GATE_UP, /**< gate and up in one tensor */
    DPT_ROLE_DOWN,    /**< also the second linear (fc2) */
    DPT_ROLE_ROUTER,  /**< of experts */
    DPT_ROLE_NORM,
    DPT_ROLE_HEAD, /**< output head, classifier, projection, pooling before them */
    DPT_ROLE_OTHER,
    DPT_ROLE_COUNT
} dpt_role_kind;

/** Place of a tensor in a model. */
typedef struct dpt_role {
    int layer; /**< from 0; -1 outside the layers */
    dpt_role_kind kind;
} dpt_role;

/** Layer and kind of module from a tensor name, as HuggingFace writes those of decoders (LLaMA and its kin, Phi,
 * OLMo, Gemma, GPT-NeoX, GPT-2, Mixtral, Qwen, gpt-oss) and image towers (ViT, CLIP, SigLIP, DINOv2). Names
 * that follow none of them are DPT_ROLE_OTHER, and so are factors of channels and attention sinks. Local. */
dpt_role dpt_role_of(const char *name);

/** "embed", "q", "k", "v", "qkv", "o", "gate", "up", "gate_up", "down", "router", "norm", "head", "other". Local. */
const char *dpt_role_name(dpt_role_kind kind);

/** Its layer, "outside" or "0", or its kind of module. Local. */
enum { DPT_ROLE_LABEL = 16 };
void dpt_role_label(dpt_role role, bool by_layer, char label[DPT_ROLE_LABEL]);

/** What takes a dpt_tensor_info goes by its alias where it has one.
 *
 * Whether it is a matrix, or those of all experts in one tensor. Local. */
bool dpt_role_is_matrix(const dpt_tensor_info *info);

/** Whether it is the weight of a linear map of attention or MLP: a matrix that is no
 * router and whose name has none of embed, lm_head, wte, wpe, norm, classifier, score. Local. */
bool dpt_role_is_linear(const dpt_tensor_info *info);

/** Whether a tensor of that name has a row for each token of the vocabulary. Local. */
bool dpt_role_has_vocabulary(const char *name);

/** Whether it is a constant that old versions of transformers wrote next to the weights: a causal mask [1, 1, n, n],
 * the value under it, the frequencies of a rotation, numbers of positions. Local. */
bool dpt_role_is_buffer(const dpt_tensor_info *info);

/** dpt_role_name of its name, or "buffer". Local. */
const char *dpt_role_module(const dpt_tensor_info *info);

/** Number of the expert that a tensor belongs to alone (`experts.7.w1.weight`); -1: of none. Local. */
int dpt_role_expert(const char *name);

/** Whether a tensor has one item of its first side for each expert: a name with `experts`, and no number after
 * it. Local. */
bool dpt_role_has_experts(const dpt_tensor_info *info);

#endif
