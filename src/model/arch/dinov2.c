#include "dinov2.h"

#include <string.h>

#define LAYER "^encoder.layer.*."

/* Source: arXiv:2304.07193. */
static const dpt_row dinov2_rows[] = {
    DPT_MATRIX(CLASS, "^embeddings.cls_token", ONE, WIDTH, .share = DPT_SHARE_FIRST,
               .stored = {DPT_AXIS_ONE, DPT_AXIS_ONE, DPT_AXIS_WIDTH}),
    DPT_MATRIX(PATCH, "^embeddings.patch_embeddings.projection.weight", WIDTH, PIXELS,
               .stored = {DPT_AXIS_WIDTH, DPT_AXIS_CHANNELS, DPT_AXIS_PATCH, DPT_AXIS_PATCH}),
    DPT_VECTOR(PATCH_BIAS, "^embeddings.patch_embeddings.projection.bias", WIDTH,
               .share = DPT_SHARE_FIRST),
    DPT_MATRIX(POSITION, "^embeddings.position_embeddings", POSITIONS, WIDTH,
               .share = DPT_SHARE_FIRST,
               .stored = {DPT_AXIS_ONE, DPT_AXIS_POSITIONS, DPT_AXIS_WIDTH}),
    DPT_VECTOR(NORM1, LAYER "norm1.weight", WIDTH, .share = DPT_SHARE_SAME),
    DPT_VECTOR(NORM1_BIAS, LAYER "norm1.bias", WIDTH, .share = DPT_SHARE_SAME),
    DPT_MATRIX(Q, LAYER "attention.attention.query.weight", HEADS, WIDTH),
    DPT_MATRIX(K, LAYER "attention.attention.key.weight", KV_HEADS, WIDTH, .stacked = true),
    DPT_MATRIX(V, LAYER "attention.attention.value.weight", KV_HEADS, WIDTH, .stacked = true),
    DPT_VECTOR(Q_BIAS, LAYER "attention.attention.query.bias", HEADS,
               .option = DPT_OPTION_QKV_BIAS),
    DPT_VECTOR(K_BIAS, LAYER "attention.attention.key.bias", KV_HEADS,
               .option = DPT_OPTION_QKV_BIAS, .stacked = true),
    DPT_VECTOR(V_BIAS, LAYER "attention.attention.value.bias", KV_HEADS,
               .option = DPT_OPTION_QKV_BIAS, .stacked = true),
    DPT_MATRIX(O, LAYER "attention.output.dense.weight", WIDTH, HEADS),
    DPT_VECTOR(O_BIAS, LAYER "attention.output.dense.bias", WIDTH, .share = DPT_SHARE_FIRST),
    DPT_VECTOR(SCALE1, LAYER "layer_scale1.lambda1", WIDTH, .share = DPT_SHARE_SAME),
    DPT_VECTOR(NORM2, LAYER "norm2.weight", WIDTH, .share = DPT_SHARE_SAME),
    DPT_VECTOR(NORM2_BIAS, LAYER "norm2.bias", WIDTH, .share = DPT_SHARE_SAME),
    DPT_MATRIX(UP, LAYER "mlp.fc1.weight", UNITS, WIDTH),
    DPT_VECTOR(UP_BIAS, LAYER "mlp.fc1.bias", UNITS),
    DPT_MATRIX(DOWN, LAYER "mlp.fc2.weight", WIDTH, UNITS),
    DPT_VECTOR(DOWN_BIAS, LAYER "mlp.fc2.bias", WIDTH, .share = DPT_SHARE_FIRST),
    DPT_VECTOR(SCALE2, LAYER "layer_scale2.lambda1", WIDTH, .share = DPT_SHARE_SAME),
    DPT_VECTOR(FINAL_NORM, "^layernorm.weight", WIDTH, .share = DPT_SHARE_SAME),
    DPT_VECTOR(FINAL_NORM_BIAS, "^layernorm.bias", WIDTH, .share = DPT_SHARE_SAME),
    DPT_MATRIX(HEAD, "classifier.weight", VOCABULARY, FEATURES),
    DPT_VECTOR(HEAD_BIAS, "classifier.bias", VOCABULARY),
};

/* Gate and up in one tensor, in place of fc1. */
static const dpt_row dinov2_swiglu[] = {
    DPT_MATRIX(GATE, LAYER "mlp.weights_in.weight", UNITS, WIDTH, .part = DPT_ROLE_GATE),
    DPT_MATRIX(UP, LAYER "mlp.weights_in.weight", UNITS, WIDTH, .part = DPT_ROLE_UP,
               .stacked = true),
    DPT_VECTOR(GATE_BIAS, LAYER "mlp.weights_in.bias", UNITS, .part = DPT_ROLE_GATE),
    DPT_VECTOR(UP_BIAS, LAYER "mlp.weights_in.bias", UNITS, .part = DPT_ROLE_UP, .stacked = true),
    DPT_MATRIX(DOWN, LAYER "mlp.weights_out.weight", WIDTH, UNITS),
    DPT_VECTOR(DOWN_BIAS, LAYER "mlp.weights_out.bias", WIDTH, .share = DPT_SHARE_FIRST),
};

/* The configuration gives hidden units as a multiple of the width, of which SwiGLU takes two thirds, rounded up to a
 * multiple of 8. */
static void dinov2_read_units(dpt_config *in, dpt_arch *out) {
    int64_t width = out->length[DPT_AXIS_WIDTH];
    double units = (double)width * dpt_config_number(in, "mlp_ratio", 0.0, 1 << 10, 4.0);
    if (in->status == DPT_OK && (units < 1.0 || units > 1 << 26))
        dpt_config_reject(in, "mlp_ratio", "1 to 2^26 hidden units");
    if (in->status != DPT_OK)
        return;
    out->length[DPT_AXIS_UNITS] = (int64_t)units;
    if (!dpt_config_bool(in, "use_swiglu_ffn", false))
        return;
    out->length[DPT_AXIS_UNITS] = (out->length[DPT_AXIS_UNITS] * 2 / 3 + 7) / 8 * 8;
    out->act = DPT_ACT_SILU;
    out->act_name = "silu";
    dpt_arch_add(out, dinov2_swiglu, sizeof dinov2_swiglu / sizeof dinov2_swiglu[0], 0);
}

void dpt_dinov2_read(dpt_config *in, const dpt_catalog *catalog, int64_t registers, dpt_arch *out) {
    dpt_image_traits traits = {.eps = 1e-6,
                               .act = "gelu",
                               .own_units = true,
                               .registers = registers,
                               .pool = DPT_POOL_CLASS_MEAN};
    dpt_image_read(in, &traits, out);
    dpt_arch_add(out, dinov2_rows, sizeof dinov2_rows / sizeof dinov2_rows[0],
                 dpt_config_bool(in, "qkv_bias", true) ? DPT_OPTION_QKV_BIAS : 0);
    dinov2_read_units(in, out);
    dpt_image_count_classes(in, catalog, out->row[DPT_SLOT_HEAD]->name,
                            "give a model with its classifier", out);
}

static void dinov2_read(dpt_config *in, const dpt_catalog *catalog, dpt_arch *out) {
    out->tower = "dinov2.";
    dpt_dinov2_read(in, catalog, 0, out);
}

bool dpt_dinov2_ignores(const dpt_arch *arch, const char *name) {
    size_t tower = strlen(arch->tower);
    return strncmp(name, arch->tower, tower) == 0 &&
           strcmp(name + tower, "embeddings.mask_token") == 0;
}

static const char *const dinov2_keys[] = {"mlp_ratio", "qkv_bias", "use_swiglu_ffn",
                                          "use_mask_token", NULL};

const dpt_family dpt_family_dinov2 = {.architecture = "Dinov2ForImageClassification",
                                      .model_type = "dinov2",
                                      .read = dinov2_read,
                                      .ignores = dpt_dinov2_ignores,
                                      .knows = dpt_image_knows,
                                      .takes = dinov2_keys};
