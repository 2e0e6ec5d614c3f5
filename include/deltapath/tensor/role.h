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
    DPT_ROLE_O,
    DPT_ROLE_GATE,
    DPT_ROLE_UP,   /**< also the first linear of a plain MLP (fc1) */
    DPT_ROLE_DOWN, /**< also the second (fc2) */
    DPT_ROLE_NORM,
    DPT_ROLE_HEAD, /**< output head, classifier, projection */
    DPT_ROLE_OTHER,
    DPT_ROLE_COUNT
} dpt_role_kind;

/** Place of a tensor in a model. */
typedef struct dpt_role {
    int layer; /**< from 0; -1 outside the layers */
    dpt_role_kind kind;
} dpt_role;

/** Layer and kind of module from a HuggingFace tensor name: LLaMA, Mistral, Qwen, ViT, CLIP. Names
 * that follow none of them are DPT_ROLE_OTHER. Local. */
dpt_role dpt_role_of(const char *name);

/** "embed", "q", "k", "v", "o", "gate", "up", "down", "norm", "head", "other". Local. */
const char *dpt_role_name(dpt_role_kind kind);

/** Its layer, "outside" or "0", or its kind of module. Local. */
enum { DPT_ROLE_LABEL = 16 };
void dpt_role_label(dpt_role role, bool by_layer, char label[DPT_ROLE_LABEL]);

/** Whether it is the weight of a linear map of attention or MLP: a matrix whose name has none of embed,
 * lm_head, wte, wpe, norm, classifier, score. Local. */
bool dpt_role_is_linear(const dpt_tensor_info *info);

/** Whether a tensor of that name has a row for each token of the vocabulary. Local. */
bool dpt_role_has_vocabulary(const char *name);

#endif
