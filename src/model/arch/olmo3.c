#include "olmo.h"

/* OLMo 2 with windows in three of four layers. Source: Olmo3 in transformers (modeling_olmo3). */
static void olmo3_read(dpt_config *in, const dpt_catalog *catalog, dpt_arch *out) {
    (void)catalog;
    static const dpt_decoder_traits traits = {
        .max_positions = 2048,
        .window = DPT_WINDOW_PERIOD,
        .window_default = 4096,
        .window_period = 4,
        .rope = {.theta = 5e5, .by_type = true, .sliding_theta = 5e5},
        .by_attention_bias = DPT_OPTION_QKV_BIAS | DPT_OPTION_O_BIAS,
        .eps = 1e-5};
    dpt_olmo_read(in, &traits, out);
}

const dpt_family dpt_family_olmo3 = {.architecture = "Olmo3ForCausalLM",
                                     .model_type = "olmo3",
                                     .read = olmo3_read,
                                     .ignores = dpt_decoder_ignores,
                                     .knows = dpt_decoder_knows};
