#ifndef DELTAPATH_SRC_MODEL_ARCH_DECODER_H
#define DELTAPATH_SRC_MODEL_ARCH_DECODER_H

#include "decoder_rope.h"

/** Where sliding_window holds. */
typedef enum dpt_window_rule {
    DPT_WINDOW_NONE,     /**< nowhere (LLaMA) */
    DPT_WINDOW_ALL,      /**< in every layer (Mistral) */
    DPT_WINDOW_SWITCHED, /**< in every layer, where use_sliding_window says so (Qwen3-MoE) */
    DPT_WINDOW_FROM, /**< from layer max_window_layers on, where use_sliding_window says so (Qwen) */
    DPT_WINDOW_PERIOD, /**< in all layers but every n-th (Gemma, OLMo 3) */
    DPT_WINDOW_UNROTATED /**< in layers without rotation, where use_sliding_window says so (SmolLM3) */
} dpt_window_rule;

/** Sizes of a model when their keys are absent; 0: required, and as many key-value heads as query heads. */
typedef struct dpt_decoder_sizes {
    int64_t vocabulary, width, units, layers, heads, kv_heads;
} dpt_decoder_sizes;

/** What tells the families of LLaMA's relatives apart besides their rows. */
typedef struct dpt_decoder_traits {
    dpt_decoder_sizes sizes;
    int64_t max_positions; /**< max_position_embeddings when the key is absent */
    int64_t head_dim;      /**< the same of head_dim; 0: hidden_size / num_attention_heads */
    dpt_window_rule window;
    int64_t window_default; /**< the same of sliding_window; 0: none */
    int64_t window_period;  /**< the same of sliding_window_pattern, for families that take it */
    dpt_rope_traits rope;
    unsigned options; /**< dpt_option of what is always there */
    unsigned by_attention_bias,
        by_mlp_bias;     /**< of what these keys switch on; 0: refused when on */
    bool tied;           /**< tie_word_embeddings when the key is absent */
    bool attention_bias; /**< the same of attention_bias */
    dpt_norm_kind norm;
    const char *eps_key; /**< NULL: rms_norm_eps */
    double eps;          /**< when that key is absent; 0: 1e-6 */
    const char *act_key; /**< NULL: hidden_act */
    const char *act;     /**< when that key is absent; NULL: silu */
    const dpt_row *rows; /**< in place of LLaMA's; NULL: these */
    size_t row_count;
} dpt_decoder_traits;

/** Describe a decoder with the tensors and keys of LLaMA's relatives. Local. Errors: in->status. */
void dpt_decoder_read(dpt_config *in, const dpt_decoder_traits *traits, dpt_arch *out);

/** Rotary frequencies of old checkpoints. Local. */
bool dpt_decoder_ignores(const dpt_arch *arch, const char *name);

/** Whether a key is read, refused where it is on, or changes no result. Local. */
bool dpt_decoder_knows(const char *key);

#endif
