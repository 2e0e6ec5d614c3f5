#include "decoder.h"

#include <math.h>

/* LLaMA's tensors; norms with factors 1 + w, GeGLU, embeddings times sqrt(C). Source: arXiv:2403.08295 section 2. */
static void gemma_read(dpt_config *in, const dpt_catalog *catalog, dpt_arch *out) {
    (void)catalog;
    static const dpt_decoder_traits traits = {.max_positions = 8192,
                                              .head_dim = 256,
                                              .by_attention_bias =
                                                  DPT_OPTION_QKV_BIAS | DPT_OPTION_O_BIAS,
                                              .tied = true,
                                              .norm = DPT_NORM_RMS_UNIT,
                                              .act = "gelu_pytorch_tanh"};
    dpt_decoder_read(in, &traits, out);
    if (out->act == DPT_ACT_GELU) /* what first releases wrote for the approximation */
        out->act = DPT_ACT_GELU_TANH;
    out->embed_scale = sqrt((double)out->length[DPT_AXIS_WIDTH]);
}

static const char *const gemma_keys[] = {"hidden_activation", NULL};

const dpt_family dpt_family_gemma = {.architecture = "GemmaForCausalLM",
                                     .model_type = "gemma",
                                     .read = gemma_read,
                                     .ignores = dpt_decoder_ignores,
                                     .knows = dpt_decoder_knows,
                                     .takes = gemma_keys};
