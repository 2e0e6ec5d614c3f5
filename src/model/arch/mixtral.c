#include "experts.h"

#define MOE "model.layers.*.block_sparse_moe."

/* Source: arXiv:2401.04088. */
static const dpt_row mixtral_rows[] = {
    DPT_MATRIX(ROUTER, MOE "gate.weight", EXPERTS, WIDTH, .share = DPT_SHARE_SAME),
    DPT_MATRIX(GATE, MOE "experts.*.w1.weight", EXPERT_UNITS, WIDTH, .expert = true),
    DPT_MATRIX(UP, MOE "experts.*.w3.weight", EXPERT_UNITS, WIDTH, .expert = true, .stacked = true),
    DPT_MATRIX(DOWN, MOE "experts.*.w2.weight", WIDTH, EXPERT_UNITS, .expert = true),
};

static void mixtral_read(dpt_config *in, const dpt_catalog *catalog, dpt_arch *out) {
    static const dpt_decoder_traits traits = {
        .max_positions = 4096 * 32, .window = DPT_WINDOW_ALL, .rope = {.theta = 1e6}, .eps = 1e-5};
    dpt_decoder_read(in, &traits, out);
    dpt_experts_read(in, "intermediate_size", 2, DPT_ROUTE_CHOSEN, out);
    if (!dpt_experts_add_fused(catalog, out))
        dpt_arch_add(out, mixtral_rows, sizeof mixtral_rows / sizeof mixtral_rows[0], 0);
}

static const char *const mixtral_keys[] = {"num_experts",
                                           "num_local_experts",
                                           "num_experts_per_tok",
                                           "router_aux_loss_coef",
                                           "router_jitter_noise",
                                           "output_router_logits",
                                           NULL};

const dpt_family dpt_family_mixtral = {.architecture = "MixtralForCausalLM",
                                       .model_type = "mixtral",
                                       .read = mixtral_read,
                                       .ignores = dpt_decoder_ignores,
                                       .knows = dpt_decoder_knows,
                                       .takes = mixtral_keys};
