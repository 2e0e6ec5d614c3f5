#include "decoder.h"

#define LAYER "model.layers.*.self_attn."

/* Each rank has the gradient that its own heads give. */
static const dpt_row qwen3_rows[] = {
    DPT_VECTOR(Q_NORM, LAYER "q_norm.weight", HEAD_DIM),
    DPT_VECTOR(K_NORM, LAYER "k_norm.weight", HEAD_DIM),
};

static void qwen3_read(dpt_config *in, const dpt_catalog *catalog, dpt_arch *out) {
    (void)catalog;
    static const dpt_decoder_traits traits = {.max_positions = 32768,
                                              .head_dim = 128,
                                              .window = DPT_WINDOW_FROM,
                                              .window_default = 4096,
                                              .by_attention_bias =
                                                  DPT_OPTION_QKV_BIAS | DPT_OPTION_O_BIAS};
    dpt_decoder_read(in, &traits, out);
    out->length[DPT_AXIS_HEAD_DIM] = out->head_dim;
    dpt_arch_add(out, qwen3_rows, sizeof qwen3_rows / sizeof qwen3_rows[0], 0);
}

const dpt_family dpt_family_qwen3 = {.architecture = "Qwen3ForCausalLM",
                                     .model_type = "qwen3",
                                     .read = qwen3_read,
                                     .ignores = dpt_decoder_ignores,
                                     .knows = dpt_decoder_knows};
