#include "gemma.h"

#include <math.h>

#define LAYER "model.layers.*."

/* Source: arXiv:2408.00118 section 2. */
static const dpt_row gemma_rows[] = {
    DPT_VECTOR(OUT_NORM1, LAYER "post_attention_layernorm.weight", WIDTH, .share = DPT_SHARE_SAME),
    DPT_VECTOR(NORM2, LAYER "pre_feedforward_layernorm.weight", WIDTH, .share = DPT_SHARE_SAME),
    DPT_VECTOR(OUT_NORM2, LAYER "post_feedforward_layernorm.weight", WIDTH,
               .share = DPT_SHARE_SAME),
};

/* An explicit null switches a cap off. */
static double gemma_read_cap(dpt_config *in, const char *key, double default_value) {
    bool present = json_object_get(in->object, key) != NULL;
    return dpt_config_number(in, key, 0.0, 1e9, present ? 0.0 : default_value);
}

void dpt_gemma_read(dpt_config *in, const dpt_decoder_traits *traits, double attention_cap,
                    double logit_cap, dpt_arch *out) {
    dpt_decoder_read(in, traits, out);
    out->embed_scale = sqrt((double)out->length[DPT_AXIS_WIDTH]);
    out->attention_scale =
        1.0 / sqrt(dpt_config_number(in, "query_pre_attn_scalar", 0.0, 1e9, 256.0));
    out->attention_cap = gemma_read_cap(in, "attn_logit_softcapping", attention_cap);
    out->logit_cap = gemma_read_cap(in, "final_logit_softcapping", logit_cap);
    dpt_arch_add(out, gemma_rows, sizeof gemma_rows / sizeof gemma_rows[0], 0);
}

static void gemma2_read(dpt_config *in, const dpt_catalog *catalog, dpt_arch *out) {
    (void)catalog;
    static const dpt_decoder_traits traits = {.max_positions = 8192,
                                              .head_dim = 256,
                                              .window = DPT_WINDOW_PERIOD,
                                              .window_default = 4096,
                                              .window_period = 2,
                                              .by_attention_bias =
                                                  DPT_OPTION_QKV_BIAS | DPT_OPTION_O_BIAS,
                                              .tied = true,
                                              .norm = DPT_NORM_RMS_UNIT,
                                              .act_key = "hidden_activation",
                                              .act = "gelu_pytorch_tanh"};
    dpt_gemma_read(in, &traits, 50.0, 30.0, out);
}

static const char *const gemma2_keys[] = {"hidden_activation",      "query_pre_attn_scalar",
                                          "attn_logit_softcapping", "final_logit_softcapping",
                                          "cache_implementation",   NULL};

const dpt_family dpt_family_gemma2 = {.architecture = "Gemma2ForCausalLM",
                                      .model_type = "gemma2",
                                      .read = gemma2_read,
                                      .ignores = dpt_decoder_ignores,
                                      .knows = dpt_decoder_knows,
                                      .takes = gemma2_keys};
