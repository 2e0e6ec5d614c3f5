#include "gemma.h"

/* Source: arXiv:2503.19786 section 2. */
static void gemma3_read(dpt_config *in, const dpt_catalog *catalog, dpt_arch *out) {
    (void)catalog;
    /* Published multimodal models leave out what is transformers' default. */
    static const dpt_decoder_traits traits = {.sizes = {262208, 2304, 9216, 26, 8, 4},
                                              .max_positions = 131072,
                                              .head_dim = 256,
                                              .window = DPT_WINDOW_PERIOD,
                                              .window_default = 4096,
                                              .window_period = 6,
                                              .rope = {.theta = 1e6,
                                                       .by_type = true,
                                                       .sliding_theta = 1e4,
                                                       .sliding_theta_key = "rope_local_base_freq"},
                                              .options = DPT_OPTION_HEAD_NORMS,
                                              .by_attention_bias =
                                                  DPT_OPTION_QKV_BIAS | DPT_OPTION_O_BIAS,
                                              .tied = true,
                                              .norm = DPT_NORM_RMS_UNIT,
                                              .act_key = "hidden_activation",
                                              .act = "gelu_pytorch_tanh"};
    dpt_gemma_read(in, &traits, 0.0, 0.0, out);
}

static const char *const gemma3_keys[] = {
    "hidden_activation",       "query_pre_attn_scalar", "attn_logit_softcapping",
    "final_logit_softcapping", "rope_local_base_freq",  "sliding_window_pattern",
    "_sliding_window_pattern", "cache_implementation",  NULL};

const dpt_family dpt_family_gemma3 = {.architecture = "Gemma3ForCausalLM",
                                      .model_type = "gemma3_text",
                                      .read = gemma3_read,
                                      .ignores = dpt_decoder_ignores,
                                      .knows = dpt_decoder_knows,
                                      .takes = gemma3_keys};
