#include "decoder.h"

#include <math.h>
#include <string.h>

#define LAYER "transformer.h.*."

/* Source: Radford et al., Language Models are Unsupervised Multitask Learners, 2019. Matrices are stored as
 * (inputs, outputs), those of queries, keys and values in one. */
static const dpt_row gpt2_rows[] = {
    DPT_MATRIX(TOKENS, "transformer.wte.weight", VOCABULARY, WIDTH),
    DPT_MATRIX(POSITION, "transformer.wpe.weight", POSITIONS, WIDTH, .share = DPT_SHARE_FIRST),
    DPT_VECTOR(NORM1, LAYER "ln_1.weight", WIDTH, .share = DPT_SHARE_SAME),
    DPT_VECTOR(NORM1_BIAS, LAYER "ln_1.bias", WIDTH, .share = DPT_SHARE_SAME),
    DPT_MATRIX(Q, LAYER "attn.c_attn.weight", HEADS, WIDTH, .part = DPT_ROLE_Q),
    DPT_MATRIX(K, LAYER "attn.c_attn.weight", KV_HEADS, WIDTH, .part = DPT_ROLE_K, .stacked = true),
    DPT_MATRIX(V, LAYER "attn.c_attn.weight", KV_HEADS, WIDTH, .part = DPT_ROLE_V, .stacked = true),
    DPT_VECTOR(Q_BIAS, LAYER "attn.c_attn.bias", HEADS, .part = DPT_ROLE_Q),
    DPT_VECTOR(K_BIAS, LAYER "attn.c_attn.bias", KV_HEADS, .part = DPT_ROLE_K, .stacked = true),
    DPT_VECTOR(V_BIAS, LAYER "attn.c_attn.bias", KV_HEADS, .part = DPT_ROLE_V, .stacked = true),
    DPT_MATRIX(O, LAYER "attn.c_proj.weight", WIDTH, HEADS, .part = DPT_ROLE_O),
    DPT_VECTOR(O_BIAS, LAYER "attn.c_proj.bias", WIDTH, .share = DPT_SHARE_FIRST),
    DPT_VECTOR(NORM2, LAYER "ln_2.weight", WIDTH, .share = DPT_SHARE_SAME),
    DPT_VECTOR(NORM2_BIAS, LAYER "ln_2.bias", WIDTH, .share = DPT_SHARE_SAME),
    DPT_MATRIX(UP, LAYER "mlp.c_fc.weight", UNITS, WIDTH, .part = DPT_ROLE_UP),
    DPT_VECTOR(UP_BIAS, LAYER "mlp.c_fc.bias", UNITS),
    DPT_MATRIX(DOWN, LAYER "mlp.c_proj.weight", WIDTH, UNITS, .part = DPT_ROLE_DOWN),
    DPT_VECTOR(DOWN_BIAS, LAYER "mlp.c_proj.bias", WIDTH, .share = DPT_SHARE_FIRST),
    DPT_VECTOR(FINAL_NORM, "transformer.ln_f.weight", WIDTH, .share = DPT_SHARE_SAME),
    DPT_VECTOR(FINAL_NORM_BIAS, "transformer.ln_f.bias", WIDTH, .share = DPT_SHARE_SAME),
    DPT_MATRIX(HEAD, "lm_head.weight", VOCABULARY, WIDTH, .option = DPT_OPTION_HEAD),
};

enum { GPT2_WIDTH_MAX = 1 << 26, GPT2_LAYERS_MAX = 1 << 16, GPT2_POSITIONS_MAX = 1 << 26 };

static void gpt2_read(dpt_config *in, const dpt_catalog *catalog, dpt_arch *out) {
    (void)catalog;
    int64_t *length = out->length;
    dpt_config_reject_quantised(in);
    if (!dpt_config_is_off(dpt_config_get(in, "add_cross_attention")))
        dpt_config_reject(in, "add_cross_attention", "a model without this option");
    length[DPT_AXIS_VOCABULARY] = dpt_config_need_integer(in, "vocab_size", 1, INT32_MAX);
    length[DPT_AXIS_WIDTH] = dpt_config_need_integer(in, "n_embd", 1, GPT2_WIDTH_MAX);
    length[DPT_AXIS_UNITS] =
        dpt_config_integer(in, "n_inner", 1, GPT2_WIDTH_MAX, 4 * length[DPT_AXIS_WIDTH]);
    length[DPT_AXIS_HEADS] = length[DPT_AXIS_KV_HEADS] = length[DPT_AXIS_WIDTH];
    out->layers = dpt_config_need_integer(in, "n_layer", 1, GPT2_LAYERS_MAX);
    out->heads = out->kv_heads = dpt_config_need_integer(in, "n_head", 1, 1 << 16);
    out->max_positions = dpt_config_integer(in, "n_positions", 1, GPT2_POSITIONS_MAX, 1024);
    length[DPT_AXIS_POSITIONS] = out->max_positions;
    out->norm = DPT_NORM_LAYER;
    out->eps = dpt_config_number(in, "layer_norm_epsilon", 0.0, 1.0, 1e-5);
    out->tied = dpt_config_bool(in, "tie_word_embeddings", true);
    out->causal = true;
    out->attention_scale = dpt_config_bool(in, "scale_attn_weights", true) ? 0.0 : 1.0;
    out->attention_by_layer = dpt_config_bool(in, "scale_attn_by_inverse_layer_idx", false);
    dpt_arch_read_act(in, "activation_function", "gelu_new", out);
    if (in->status == DPT_OK && length[DPT_AXIS_WIDTH] % out->heads != 0)
        dpt_config_reject(in, "n_embd", "a multiple of n_head");
    if (in->status == DPT_OK)
        out->head_dim = length[DPT_AXIS_WIDTH] / out->heads;
    dpt_arch_add(out, gpt2_rows, sizeof gpt2_rows / sizeof gpt2_rows[0],
                 out->tied ? 0 : DPT_OPTION_HEAD);
}

/* Buffers of old checkpoints: the causal mask. */
static bool gpt2_ignores(const dpt_arch *arch, const char *name) {
    size_t length = strlen(name), bias = strlen(".attn.bias");
    return dpt_decoder_ignores(arch, name) ||
           (length > bias && strcmp(name + length - bias, ".attn.bias") == 0) ||
           strstr(name, ".attn.masked_bias") != NULL;
}

static const char *const gpt2_keys[] = {"n_embd",
                                        "n_head",
                                        "n_inner",
                                        "n_layer",
                                        "n_positions",
                                        "n_ctx",
                                        "activation_function",
                                        "layer_norm_epsilon",
                                        "scale_attn_weights",
                                        "scale_attn_by_inverse_layer_idx",
                                        "reorder_and_upcast_attn",
                                        "attn_pdrop",
                                        "embd_pdrop",
                                        "resid_pdrop",
                                        "summary_activation",
                                        "summary_first_dropout",
                                        "summary_proj_to_labels",
                                        "summary_type",
                                        "summary_use_proj",
                                        NULL};

const dpt_family dpt_family_gpt2 = {.architecture = "GPT2LMHeadModel",
                                    .model_type = "gpt2",
                                    .read = gpt2_read,
                                    .ignores = gpt2_ignores,
                                    .knows = dpt_decoder_knows,
                                    .takes = gpt2_keys};
