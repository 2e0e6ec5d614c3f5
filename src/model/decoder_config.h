#ifndef DELTAPATH_SRC_MODEL_DECODER_CONFIG_H
#define DELTAPATH_SRC_MODEL_DECODER_CONFIG_H

#include "config.h"

#include "deltapath/nn/rope.h"

/** What tells the decoder families apart. */
typedef struct dpt_decoder_family {
    bool bias_options; /**< attention_bias and mlp_bias are keys (LLaMA) */
    bool qkv_bias;     /**< q, k and v always have a bias, o never (Qwen2) */
    bool window;       /**< sliding_window holds for every layer (Mistral) */
    bool window_types; /**< sliding_window goes by use_sliding_window and layer_types (Qwen2) */
    int64_t max_positions;
    int64_t window_default; /**< sliding_window when the key is absent; 0: none */
} dpt_decoder_family;

extern const dpt_decoder_family dpt_decoder_llama;
extern const dpt_decoder_family dpt_decoder_mistral;
extern const dpt_decoder_family dpt_decoder_qwen2;

/** Shape and options of a decoder: x += o(attention(rope(qkv(norm x)))); x += down(swiglu(norm x)). */
typedef struct dpt_decoder_config {
    int64_t vocabulary;
    int64_t hidden;
    int64_t intermediate;
    int64_t layers;
    int64_t heads;
    int64_t kv_heads;
    int64_t head_dim;
    int64_t max_positions;
    double rms_eps;
    bool tied; /**< the head is the embedding */
    bool qkv_bias;
    bool o_bias;
    bool mlp_bias;
    dpt_rope_params rope;
    int64_t *window; /**< (layers) keys that a query sees; 0: all before it. Owned */
} dpt_decoder_config;

/** Read and check config.json. Local.
 * Errors: DPT_ERR_INPUT naming the key; options that change the computation and are not implemented
 *         are refused by name. */
dpt_status dpt_decoder_config_read(const dpt_decoder_family *family, const json_t *root,
                                   dpt_decoder_config *out);

/** Append to a text of at most `size` bytes the options in which two decoders of the same tensors
 * compute differently. Local. */
void dpt_decoder_config_compare(const dpt_decoder_config *a, const dpt_decoder_config *b,
                                char *text, size_t size);
void dpt_decoder_config_destroy(dpt_decoder_config *config);

/** Whether a key is read, refused where it is on, or changes no result. Local. */
bool dpt_decoder_config_knows(const char *key);

#endif
