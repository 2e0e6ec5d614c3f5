#include "decoder.h"

static void qwen3_read(dpt_config *in, const dpt_catalog *catalog, dpt_arch *out) {
    (void)catalog;
    static const dpt_decoder_traits traits = {.max_positions = 32768,
                                              .head_dim = 128,
                                              .window = DPT_WINDOW_FROM,
                                              .window_default = 4096,
                                              .options = DPT_OPTION_HEAD_NORMS,
                                              .by_attention_bias =
                                                  DPT_OPTION_QKV_BIAS | DPT_OPTION_O_BIAS};
    dpt_decoder_read(in, &traits, out);
}

const dpt_family dpt_family_qwen3 = {.architecture = "Qwen3ForCausalLM",
                                     .model_type = "qwen3",
                                     .read = qwen3_read,
                                     .ignores = dpt_decoder_ignores,
                                     .knows = dpt_decoder_knows};
