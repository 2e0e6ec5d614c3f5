#include "decoder.h"

static void llama_read(dpt_config *in, const dpt_catalog *catalog, dpt_arch *out) {
    (void)catalog;
    static const dpt_decoder_traits traits = {.max_positions = 2048,
                                              .by_attention_bias =
                                                  DPT_OPTION_QKV_BIAS | DPT_OPTION_O_BIAS,
                                              .by_mlp_bias = DPT_OPTION_MLP_BIAS};
    dpt_decoder_read(in, &traits, out);
}

const dpt_family dpt_family_llama = {.architecture = "LlamaForCausalLM",
                                     .model_type = "llama",
                                     .read = llama_read,
                                     .ignores = dpt_decoder_ignores,
                                     .knows = dpt_decoder_knows};
