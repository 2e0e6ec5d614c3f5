#include "decoder.h"

#include <string.h>

#define LAYER "gpt_neox.layers.*."
#define QKV   LAYER "attention.query_key_value."

/* Source: arXiv:2204.06745; Pythia is of this family. Queries, keys and values are stored a head at a time. */
static const dpt_row gpt_neox_rows[] = {
    DPT_MATRIX(TOKENS, "gpt_neox.embed_in.weight", VOCABULARY, WIDTH),
    DPT_VECTOR(NORM1, LAYER "input_layernorm.weight", WIDTH, .share = DPT_SHARE_SAME),
    DPT_VECTOR(NORM1_BIAS, LAYER "input_layernorm.bias", WIDTH, .share = DPT_SHARE_SAME),
    DPT_MATRIX(Q, QKV "weight", HEADS, WIDTH, .part = DPT_ROLE_Q),
    DPT_MATRIX(K, QKV "weight", KV_HEADS, WIDTH, .part = DPT_ROLE_K, .stacked = true),
    DPT_MATRIX(V, QKV "weight", KV_HEADS, WIDTH, .part = DPT_ROLE_V, .stacked = true),
    DPT_VECTOR(Q_BIAS, QKV "bias", HEADS, .part = DPT_ROLE_Q, .option = DPT_OPTION_QKV_BIAS),
    DPT_VECTOR(K_BIAS, QKV "bias", KV_HEADS, .part = DPT_ROLE_K, .option = DPT_OPTION_QKV_BIAS,
               .stacked = true),
    DPT_VECTOR(V_BIAS, QKV "bias", KV_HEADS, .part = DPT_ROLE_V, .option = DPT_OPTION_QKV_BIAS,
               .stacked = true),
    DPT_MATRIX(O, LAYER "attention.dense.weight", WIDTH, HEADS),
    DPT_VECTOR(O_BIAS, LAYER "attention.dense.bias", WIDTH, .share = DPT_SHARE_FIRST,
               .option = DPT_OPTION_O_BIAS),
    DPT_VECTOR(NORM2, LAYER "post_attention_layernorm.weight", WIDTH, .share = DPT_SHARE_SAME),
    DPT_VECTOR(NORM2_BIAS, LAYER "post_attention_layernorm.bias", WIDTH, .share = DPT_SHARE_SAME),
    DPT_MATRIX(UP, LAYER "mlp.dense_h_to_4h.weight", UNITS, WIDTH),
    DPT_VECTOR(UP_BIAS, LAYER "mlp.dense_h_to_4h.bias", UNITS),
    DPT_MATRIX(DOWN, LAYER "mlp.dense_4h_to_h.weight", WIDTH, UNITS),
    DPT_VECTOR(DOWN_BIAS, LAYER "mlp.dense_4h_to_h.bias", WIDTH, .share = DPT_SHARE_FIRST),
    DPT_VECTOR(FINAL_NORM, "gpt_neox.final_layer_norm.weight", WIDTH, .share = DPT_SHARE_SAME),
    DPT_VECTOR(FINAL_NORM_BIAS, "gpt_neox.final_layer_norm.bias", WIDTH, .share = DPT_SHARE_SAME),
    DPT_MATRIX(HEAD, "embed_out.weight", VOCABULARY, WIDTH, .option = DPT_OPTION_HEAD),
};

static void gpt_neox_read(dpt_config *in, const dpt_catalog *catalog, dpt_arch *out) {
    (void)catalog;
    static const dpt_decoder_traits traits = {
        .max_positions = 2048,
        .rope = {.theta_key = "rotary_emb_base", .partial_key = "rotary_pct", .partial = 0.25},
        .by_attention_bias = DPT_OPTION_QKV_BIAS | DPT_OPTION_O_BIAS,
        .attention_bias = true,
        .norm = DPT_NORM_LAYER,
        .eps_key = "layer_norm_eps",
        .eps = 1e-5,
        .act = "gelu",
        .rows = gpt_neox_rows,
        .row_count = sizeof gpt_neox_rows / sizeof gpt_neox_rows[0]};
    dpt_decoder_read(in, &traits, out);
    out->parallel = dpt_config_bool(in, "use_parallel_residual", true);
}

/* Buffers of old checkpoints: the causal mask and rotary frequencies. */
static bool gpt_neox_ignores(const dpt_arch *arch, const char *name) {
    const char *end = strrchr(name, '.');
    return dpt_decoder_ignores(arch, name) ||
           strcmp(end != NULL ? end : name, ".masked_bias") == 0 ||
           (end != NULL && end - name > 10 && strncmp(end - 10, ".attention.bias", 15) == 0);
}

static const char *const gpt_neox_keys[] = {
    "layer_norm_eps",        "rotary_pct",     "rotary_emb_base",    "use_parallel_residual",
    "partial_rotary_factor", "hidden_dropout", "classifier_dropout", NULL};

const dpt_family dpt_family_gpt_neox = {.architecture = "GPTNeoXForCausalLM",
                                        .model_type = "gpt_neox",
                                        .read = gpt_neox_read,
                                        .ignores = gpt_neox_ignores,
                                        .knows = dpt_decoder_knows,
                                        .takes = gpt_neox_keys};
