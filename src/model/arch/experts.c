#include "experts.h"

#include <string.h>

#define MOE "model.layers.*.mlp."

/* As transformers holds them, and writes those that it has no older names for. */
static const dpt_row experts_fused_rows[] = {
    DPT_MATRIX(ROUTER, MOE "gate.weight", EXPERTS, WIDTH, .share = DPT_SHARE_SAME),
    DPT_MATRIX(GATE, MOE "experts.gate_up_proj", EXPERT_UNITS, WIDTH, .expert = true,
               .part = DPT_ROLE_GATE),
    DPT_MATRIX(UP, MOE "experts.gate_up_proj", EXPERT_UNITS, WIDTH, .expert = true,
               .part = DPT_ROLE_UP, .stacked = true),
    DPT_MATRIX(DOWN, MOE "experts.down_proj", WIDTH, EXPERT_UNITS, .expert = true,
               .part = DPT_ROLE_DOWN),
};

enum { EXPERTS_MAX = 1 << 14, EXPERT_UNITS_MAX = 1 << 26 };

void dpt_experts_read(dpt_config *in, const char *units_key, int64_t used, dpt_nn_route_kind kind,
                      dpt_arch *out) {
    static const dpt_slot dense[] = {DPT_SLOT_GATE,    DPT_SLOT_UP,   DPT_SLOT_GATE_BIAS,
                                     DPT_SLOT_UP_BIAS, DPT_SLOT_DOWN, DPT_SLOT_DOWN_BIAS};
    dpt_arch_experts *experts = &out->experts;
    experts->kind = kind;
    bool local = dpt_config_get(in, "num_local_experts") != NULL; /* either name, by version */
    experts->count =
        dpt_config_need_integer(in, local ? "num_local_experts" : "num_experts", 1, EXPERTS_MAX);
    experts->used = dpt_config_integer(in, "num_experts_per_tok", 1, EXPERTS_MAX, used);
    if (in->status == DPT_OK && experts->used > experts->count)
        dpt_config_reject(in, "num_experts_per_tok", "at most as many as there are experts");
    out->length[DPT_AXIS_EXPERTS] = experts->count;
    out->length[DPT_AXIS_EXPERT_UNITS] =
        dpt_config_need_integer(in, units_key, 1, EXPERT_UNITS_MAX);
    out->length[DPT_AXIS_UNITS] = 0;
    for (size_t i = 0; i < sizeof dense / sizeof dense[0]; i++)
        dpt_arch_drop(out, dense[i]);
}

bool dpt_experts_add_fused(const dpt_catalog *catalog, dpt_arch *out) {
    static const char end[] = ".mlp.experts.gate_up_proj";
    bool fused = false;
    for (int i = 0; i < catalog->count && !fused; i++) {
        const char *name = catalog->tensors[i].name;
        size_t n = strlen(name), m = strlen(end);
        fused = n > m && strcmp(name + n - m, end) == 0;
    }
    if (!fused)
        return false;
    dpt_arch_add(out, experts_fused_rows, sizeof experts_fused_rows / sizeof experts_fused_rows[0],
                 0);
    return true;
}
