#include "image.h"

#include <string.h>

#define LAYER "vit.encoder.layer.*."

static const dpt_row vit_rows[] = {
    DPT_MATRIX(CLASS, "vit.embeddings.cls_token", ONE, WIDTH, .share = DPT_SHARE_FIRST,
               .stored = {DPT_AXIS_ONE, DPT_AXIS_ONE, DPT_AXIS_WIDTH}),
    DPT_MATRIX(PATCH, "vit.embeddings.patch_embeddings.projection.weight", WIDTH, PIXELS,
               .stored = {DPT_AXIS_WIDTH, DPT_AXIS_CHANNELS, DPT_AXIS_PATCH, DPT_AXIS_PATCH}),
    DPT_VECTOR(PATCH_BIAS, "vit.embeddings.patch_embeddings.projection.bias", WIDTH,
               .share = DPT_SHARE_FIRST),
    DPT_MATRIX(POSITION, "vit.embeddings.position_embeddings", POSITIONS, WIDTH,
               .share = DPT_SHARE_FIRST,
               .stored = {DPT_AXIS_ONE, DPT_AXIS_POSITIONS, DPT_AXIS_WIDTH}),
    DPT_VECTOR(NORM1, LAYER "layernorm_before.weight", WIDTH, .share = DPT_SHARE_SAME),
    DPT_VECTOR(NORM1_BIAS, LAYER "layernorm_before.bias", WIDTH, .share = DPT_SHARE_SAME),
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
    DPT_VECTOR(NORM2, LAYER "layernorm_after.weight", WIDTH, .share = DPT_SHARE_SAME),
    DPT_VECTOR(NORM2_BIAS, LAYER "layernorm_after.bias", WIDTH, .share = DPT_SHARE_SAME),
    DPT_MATRIX(UP, LAYER "intermediate.dense.weight", UNITS, WIDTH),
    DPT_VECTOR(UP_BIAS, LAYER "intermediate.dense.bias", UNITS),
    DPT_MATRIX(DOWN, LAYER "output.dense.weight", WIDTH, UNITS),
    DPT_VECTOR(DOWN_BIAS, LAYER "output.dense.bias", WIDTH, .share = DPT_SHARE_FIRST),
    DPT_VECTOR(FINAL_NORM, "vit.layernorm.weight", WIDTH, .share = DPT_SHARE_SAME),
    DPT_VECTOR(FINAL_NORM_BIAS, "vit.layernorm.bias", WIDTH, .share = DPT_SHARE_SAME),
    DPT_MATRIX(HEAD, "classifier.weight", VOCABULARY, WIDTH),
    DPT_VECTOR(HEAD_BIAS, "classifier.bias", VOCABULARY),
};

static void vit_read(dpt_config *in, const dpt_catalog *catalog, dpt_arch *out) {
    static const dpt_image_traits traits = {.eps = 1e-12, .act = "gelu"};
    dpt_image_read(in, &traits, out);
    dpt_arch_add(out, vit_rows, sizeof vit_rows / sizeof vit_rows[0],
                 dpt_config_bool(in, "qkv_bias", true) ? DPT_OPTION_QKV_BIAS : 0);
    dpt_image_count_classes(in, catalog, out->row[DPT_SLOT_HEAD]->name,
                            "give a model with its classifier", out);
}

/* A pooler, which classification does not use. */
static bool vit_ignores(const dpt_arch *arch, const char *name) {
    (void)arch;
    return strncmp(name, "vit.pooler.", strlen("vit.pooler.")) == 0;
}

static const char *const vit_keys[] = {"qkv_bias", NULL};

const dpt_family dpt_family_vit = {.architecture = "ViTForImageClassification",
                                   .model_type = "vit",
                                   .read = vit_read,
                                   .ignores = vit_ignores,
                                   .knows = dpt_image_knows,
                                   .takes = vit_keys};
