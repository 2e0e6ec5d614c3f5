#include "dinov2.h"

/* Tokens without position after the class token, which the head does not read. Source: arXiv:2309.16588. */
static const dpt_row registers_rows[] = {
    DPT_MATRIX(REGISTERS, "^embeddings.register_tokens", REGISTERS, WIDTH, .share = DPT_SHARE_FIRST,
               .stored = {DPT_AXIS_ONE, DPT_AXIS_REGISTERS, DPT_AXIS_WIDTH}),
};

static void registers_read(dpt_config *in, const dpt_catalog *catalog, dpt_arch *out) {
    out->tower = "dinov2_with_registers.";
    dpt_dinov2_read(in, catalog, dpt_config_integer(in, "num_register_tokens", 1, 1 << 16, 4), out);
    dpt_arch_add(out, registers_rows, sizeof registers_rows / sizeof registers_rows[0], 0);
}

static const char *const dinov2_with_registers_keys[] = {"mlp_ratio", "qkv_bias", "use_swiglu_ffn",
                                                         "num_register_tokens", NULL};

const dpt_family dpt_family_dinov2_with_registers = {
    .architecture = "Dinov2WithRegistersForImageClassification",
    .model_type = "dinov2_with_registers",
    .read = registers_read,
    .ignores = dpt_dinov2_ignores,
    .knows = dpt_image_knows,
    .takes = dinov2_with_registers_keys};
