#include "decoder.h"

static void mistral_read(dpt_config *in, const dpt_catalog *catalog, dpt_arch *out) {
    (void)catalog;
    static const dpt_decoder_traits traits = {
        .max_positions = 4096 * 32, .window = DPT_WINDOW_ALL, .window_default = 4096};
    dpt_decoder_read(in, &traits, out);
}

const dpt_family dpt_family_mistral = {.architecture = "MistralForCausalLM",
                                       .model_type = "mistral",
                                       .read = mistral_read,
                                       .ignores = dpt_decoder_ignores,
                                       .knows = dpt_decoder_knows};
