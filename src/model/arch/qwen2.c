#include "decoder.h"

static void qwen2_read(dpt_config *in, const dpt_catalog *catalog, dpt_arch *out) {
    (void)catalog;
    static const dpt_decoder_traits traits = {.max_positions = 32768,
                                              .window = DPT_WINDOW_FROM,
                                              .window_default = 4096,
                                              .options = DPT_OPTION_QKV_BIAS};
    dpt_decoder_read(in, &traits, out);
}

const dpt_family dpt_family_qwen2 = {.architecture = "Qwen2ForCausalLM",
                                     .model_type = "qwen2",
                                     .read = qwen2_read,
                                     .ignores = dpt_decoder_ignores,
                                     .knows = dpt_decoder_knows};
