#include "decoder.h"

#include <string.h>

/* What dpt_decoder_read looks at. */
static const char *const decoder_keys[] = {"attention_bias",
                                           "head_dim",
                                           "hidden_act",
                                           "hidden_size",
                                           "intermediate_size",
                                           "is_causal",
                                           "layer_types",
                                           "max_position_embeddings",
                                           "max_window_layers",
                                           "mlp_bias",
                                           "no_rope_layer_interval",
                                           "no_rope_layers",
                                           "num_attention_heads",
                                           "num_hidden_layers",
                                           "num_key_value_heads",
                                           "original_max_position_embeddings",
                                           "partial_rotary_factor",
                                           "pretraining_tp",
                                           "rms_norm_eps",
                                           "rope_interleave",
                                           "rope_interleaved",
                                           "rope_local_base_freq",
                                           "rope_parameters",
                                           "rope_scaling",
                                           "rope_theta",
                                           "rotary_emb_base",
                                           "rotary_pct",
                                           "sliding_window",
                                           "tf_legacy_loss",
                                           "tie_word_embeddings",
                                           "use_sliding_window",
                                           "vocab_size"};

bool dpt_decoder_knows(const char *key) {
    if (dpt_config_is_idle(key))
        return true;
    for (size_t i = 0; i < sizeof decoder_keys / sizeof *decoder_keys; i++)
        if (strcmp(key, decoder_keys[i]) == 0)
            return true;
    return false;
}
