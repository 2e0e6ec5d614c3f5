#include "decoder.h"

/* LLaMA's tensors; some layers have no rotation. Source: SmolLM3 in transformers (modeling_smollm3). */
static void smollm3_read(dpt_config *in, const dpt_catalog *catalog, dpt_arch *out) {
    (void)catalog;
    static const dpt_decoder_traits traits = {.max_positions = 32768,
                                              .window = DPT_WINDOW_UNROTATED,
                                              .rope = {.theta = 2e6, .no_rope_interval = 4},
                                              .by_attention_bias =
                                                  DPT_OPTION_QKV_BIAS | DPT_OPTION_O_BIAS,
                                              .by_mlp_bias = DPT_OPTION_MLP_BIAS,
                                              .tied = true};
    dpt_decoder_read(in, &traits, out);
}

static const char *const smollm3_keys[] = {"no_rope_layers", "no_rope_layer_interval", NULL};

const dpt_family dpt_family_smollm3 = {.architecture = "SmolLM3ForCausalLM",
                                       .model_type = "smollm3",
                                       .read = smollm3_read,
                                       .ignores = dpt_decoder_ignores,
                                       .knows = dpt_decoder_knows,
                                       .takes = smollm3_keys};
