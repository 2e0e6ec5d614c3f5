#include "olmo.h"

#define LAYER "model.layers.*."

/* Source: arXiv:2501.00656 section 3. */
static const dpt_row olmo_rows[] = {
    DPT_VECTOR(Q_NORM, LAYER "self_attn.q_norm.weight", HEADS),
    DPT_VECTOR(K_NORM, LAYER "self_attn.k_norm.weight", KV_HEADS),
    DPT_VECTOR(OUT_NORM1, LAYER "post_attention_layernorm.weight", WIDTH, .share = DPT_SHARE_SAME),
    DPT_VECTOR(OUT_NORM2, LAYER "post_feedforward_layernorm.weight", WIDTH,
               .share = DPT_SHARE_SAME),
};

void dpt_olmo_read(dpt_config *in, const dpt_decoder_traits *traits, dpt_arch *out) {
    dpt_decoder_read(in, traits, out);
    out->norm_qk_whole = true;
    dpt_arch_drop(out, DPT_SLOT_NORM1);
    dpt_arch_drop(out, DPT_SLOT_NORM2);
    dpt_arch_add(out, olmo_rows, sizeof olmo_rows / sizeof olmo_rows[0], 0);
}

static void olmo2_read(dpt_config *in, const dpt_catalog *catalog, dpt_arch *out) {
    (void)catalog;
    static const dpt_decoder_traits traits = {.max_positions = 2048,
                                              .by_attention_bias =
                                                  DPT_OPTION_QKV_BIAS | DPT_OPTION_O_BIAS,
                                              .eps = 1e-5};
    dpt_olmo_read(in, &traits, out);
}

const dpt_family dpt_family_olmo2 = {.architecture = "Olmo2ForCausalLM",
                                     .model_type = "olmo2",
                                     .read = olmo2_read,
                                     .ignores = dpt_decoder_ignores,
                                     .knows = dpt_decoder_knows};
