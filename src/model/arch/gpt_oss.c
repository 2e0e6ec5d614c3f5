#include "experts.h"

#include <math.h>

#define LAYER "model.layers.*."
#define MOE   LAYER "mlp."

/* Attention with a sink a head, experts of clamped units. Source: arXiv:2508.10925 section 2. */
static const dpt_row gpt_oss_rows[] = {
    DPT_VECTOR(SINKS, LAYER "self_attn.sinks", HEAD_COUNT),
    DPT_MATRIX(ROUTER, MOE "router.weight", EXPERTS, WIDTH, .share = DPT_SHARE_SAME),
    DPT_VECTOR(ROUTER_BIAS, MOE "router.bias", EXPERTS, .share = DPT_SHARE_SAME),
    DPT_MATRIX(GATE, MOE "experts.gate_up_proj", EXPERT_UNITS, WIDTH, .expert = true,
               .part = DPT_ROLE_GATE),
    DPT_MATRIX(UP, MOE "experts.gate_up_proj", EXPERT_UNITS, WIDTH, .expert = true,
               .part = DPT_ROLE_UP, .stacked = true),
    DPT_VECTOR(GATE_BIAS, MOE "experts.gate_up_proj_bias", EXPERT_UNITS, .expert = true,
               .part = DPT_ROLE_GATE),
    DPT_VECTOR(UP_BIAS, MOE "experts.gate_up_proj_bias", EXPERT_UNITS, .expert = true,
               .part = DPT_ROLE_UP, .stacked = true),
    DPT_MATRIX(DOWN, MOE "experts.down_proj", WIDTH, EXPERT_UNITS, .expert = true,
               .part = DPT_ROLE_DOWN),
    DPT_VECTOR(DOWN_BIAS, MOE "experts.down_proj_bias", WIDTH, .expert = true,
               .part = DPT_ROLE_DOWN),
};

static void gpt_oss_read(dpt_config *in, const dpt_catalog *catalog, dpt_arch *out) {
    (void)catalog;
    static const dpt_rope_params gpt_oss_scaling = {.kind = DPT_ROPE_YARN,
                                                    .factor = 32.0,
                                                    .beta_fast = 32.0,
                                                    .beta_slow = 1.0,
                                                    .original_max_position = 4096};
    static const dpt_decoder_traits traits = {
        .max_positions = 131072,
        .head_dim = 64,
        .window = DPT_WINDOW_PERIOD,
        .window_default = 128,
        .window_period = 2,
        .rope = {.theta = 150000.0, .scaling = &gpt_oss_scaling},
        .by_attention_bias = DPT_OPTION_QKV_BIAS | DPT_OPTION_O_BIAS,
        .attention_bias = true,
        .eps = 1e-5};
    dpt_decoder_read(in, &traits, out);
    dpt_experts_read(in, "intermediate_size", 4, DPT_ROUTE_CHOSEN, out);
    out->act = DPT_ACT_CLAMPED_SWIGLU;
    out->act_limit = dpt_config_number(in, "swiglu_limit", 0.0, 1e9, 7.0);
    if (fabs(dpt_config_number(in, "swiglu_alpha", 0.0, 1e9, 1.702) - 1.702) > 1e-6)
        dpt_config_reject(in, "swiglu_alpha", "1.702");
    out->length[DPT_AXIS_HEAD_COUNT] = out->heads;
    dpt_arch_add(out, gpt_oss_rows, sizeof gpt_oss_rows / sizeof gpt_oss_rows[0], 0);
}

static const char *const gpt_oss_keys[] = {
    "num_local_experts",    "num_experts_per_tok",    "experts_per_token",
    "swiglu_limit",         "swiglu_alpha",           "router_aux_loss_coef",
    "output_router_logits", "initial_context_length", NULL};

const dpt_family dpt_family_gpt_oss = {.architecture = "GptOssForCausalLM",
                                       .model_type = "gpt_oss",
                                       .read = gpt_oss_read,
                                       .ignores = dpt_decoder_ignores,
                                       .knows = dpt_decoder_knows,
                                       .takes = gpt_oss_keys};
