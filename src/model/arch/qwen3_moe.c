#include "experts.h"

#define MOE "model.layers.*.mlp."

/* Source: arXiv:2505.09388. */
static const dpt_row qwen3_moe_rows[] = {
    DPT_MATRIX(ROUTER, MOE "gate.weight", EXPERTS, WIDTH, .share = DPT_SHARE_SAME),
    DPT_MATRIX(GATE, MOE "experts.*.gate_proj.weight", EXPERT_UNITS, WIDTH, .expert = true),
    DPT_MATRIX(UP, MOE "experts.*.up_proj.weight", EXPERT_UNITS, WIDTH, .expert = true,
               .stacked = true),
    DPT_MATRIX(DOWN, MOE "experts.*.down_proj.weight", WIDTH, EXPERT_UNITS, .expert = true),
};

/* Layers with one MLP among those with experts. */
static void qwen3_moe_reject_dense(dpt_config *in) {
    if (dpt_config_integer(in, "decoder_sparse_step", 0, 1 << 16, 1) != 1)
        dpt_config_reject(in, "decoder_sparse_step", "1");
    const json_t *dense = dpt_config_get(in, "mlp_only_layers");
    if (dense != NULL && (!json_is_array(dense) || json_array_size(dense) > 0))
        dpt_config_reject(in, "mlp_only_layers", "experts in every layer");
}

static void qwen3_moe_read(dpt_config *in, const dpt_catalog *catalog, dpt_arch *out) {
    static const dpt_decoder_traits traits = {.max_positions = 32768,
                                              .window = DPT_WINDOW_SWITCHED,
                                              .window_default = 4096,
                                              .options = DPT_OPTION_HEAD_NORMS,
                                              .by_attention_bias =
                                                  DPT_OPTION_QKV_BIAS | DPT_OPTION_O_BIAS};
    dpt_decoder_read(in, &traits, out);
    dpt_experts_read(
        in, "moe_intermediate_size", 8,
        dpt_config_bool(in, "norm_topk_prob", false) ? DPT_ROUTE_CHOSEN : DPT_ROUTE_ALL, out);
    qwen3_moe_reject_dense(in);
    dpt_arch_add(out, qwen3_moe_rows, sizeof qwen3_moe_rows / sizeof qwen3_moe_rows[0], 0);
    dpt_experts_add_fused(catalog, out);
}

static const char *const qwen3_moe_keys[] = {"num_experts",          "num_local_experts",
                                             "num_experts_per_tok",  "moe_intermediate_size",
                                             "norm_topk_prob",       "decoder_sparse_step",
                                             "mlp_only_layers",      "router_aux_loss_coef",
                                             "output_router_logits", NULL};

const dpt_family dpt_family_qwen3_moe = {.architecture = "Qwen3MoeForCausalLM",
                                         .model_type = "qwen3_moe",
                                         .read = qwen3_moe_read,
                                         .ignores = dpt_decoder_ignores,
                                         .knows = dpt_decoder_knows,
                                         .takes = qwen3_moe_keys};
