#ifndef DELTAPATH_STORE_PART_H
#define DELTAPATH_STORE_PART_H

/** Which kind of module a tensor belongs to. */
typedef enum dpt_part_kind {
    DPT_PART_EMBED, /**< token, patch, position and class embeddings */
    DPT_PART_Q,
    DPT_PART_K,
    DPT_PART_V,
    DPT_PART_O,
    DPT_PART_GATE,
    DPT_PART_UP,   /**< also the first linear of a plain MLP (fc1) */
    DPT_PART_DOWN, /**< also the second (fc2) */
    DPT_PART_NORM,
    DPT_PART_HEAD, /**< output head, classifier, projection */
    DPT_PART_OTHER,
    DPT_PART_COUNT
} dpt_part_kind;

/** Place of a tensor in a model. */
typedef struct dpt_part {
    int layer; /**< from 0; -1 outside the layers */
    dpt_part_kind kind;
} dpt_part;

/** Layer and kind of module from a HuggingFace tensor name: LLaMA, Mistral, Qwen, ViT, CLIP. Names
 * that follow none of them are DPT_PART_OTHER. Local. */
dpt_part dpt_part_of(const char *name);

/** "embed", "q", "k", "v", "o", "gate", "up", "down", "norm", "head", "other". Local. */
const char *dpt_part_name(dpt_part_kind kind);

#endif
