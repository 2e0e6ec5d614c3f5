#include "decoder.h"

#define LAYER "model.layers.*."
#define QKV   LAYER "self_attn.qkv_proj.weight"
#define GATES LAYER "mlp.gate_up_proj.weight"

/* Queries, keys and values in one tensor, gate and up in another. Source: arXiv:2404.14219, arXiv:2412.08905. */
static const dpt_row phi3_rows[] = {
    DPT_MATRIX(Q, QKV, HEADS, WIDTH, .part = DPT_ROLE_Q),
    DPT_MATRIX(K, QKV, KV_HEADS, WIDTH, .part = DPT_ROLE_K, .stacked = true),
    DPT_MATRIX(V, QKV, KV_HEADS, WIDTH, .part = DPT_ROLE_V, .stacked = true),
    DPT_MATRIX(GATE, GATES, UNITS, WIDTH, .part = DPT_ROLE_GATE),
    DPT_MATRIX(UP, GATES, UNITS, WIDTH, .part = DPT_ROLE_UP, .stacked = true),
};

static void phi3_read(dpt_config *in, const dpt_catalog *catalog, dpt_arch *out) {
    (void)catalog;
    static const dpt_decoder_traits traits = {
        .max_positions = 4096,
        .window = DPT_WINDOW_ALL,
        .rope = {.partial_key = "partial_rotary_factor", .longrope_positions = 4096},
        .eps = 1e-5};
    dpt_decoder_read(in, &traits, out);
    dpt_arch_add(out, phi3_rows, sizeof phi3_rows / sizeof phi3_rows[0], 0);
}

static const char *const phi3_keys[] = {"partial_rotary_factor", "original_max_position_embeddings",
                                        "resid_pdrop", "embd_pdrop", NULL};

const dpt_family dpt_family_phi3 = {.architecture = "Phi3ForCausalLM",
                                    .model_type = "phi3",
                                    .read = phi3_read,
                                    .ignores = dpt_decoder_ignores,
                                    .knows = dpt_decoder_knows,
                                    .takes = phi3_keys};
