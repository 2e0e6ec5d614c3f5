#include "image.h"

#include <string.h>

#define TOWER "vision_model."
#define LAYER "vision_model.encoder.layers.*."

static const dpt_row clip_rows[] = {
    DPT_VECTOR(CLASS, TOWER "embeddings.class_embedding", WIDTH, .share = DPT_SHARE_FIRST),
    DPT_MATRIX(PATCH, TOWER "embeddings.patch_embedding.weight", WIDTH, PIXELS,
               .stored = {DPT_AXIS_WIDTH, DPT_AXIS_CHANNELS, DPT_AXIS_PATCH, DPT_AXIS_PATCH}),
    DPT_MATRIX(POSITION, TOWER "embeddings.position_embedding.weight", POSITIONS, WIDTH,
               .share = DPT_SHARE_FIRST),
    DPT_VECTOR(EMBED_NORM, TOWER "pre_layrnorm.weight", WIDTH, .share = DPT_SHARE_SAME),
    DPT_VECTOR(EMBED_NORM_BIAS, TOWER "pre_layrnorm.bias", WIDTH, .share = DPT_SHARE_SAME),
    DPT_VECTOR(NORM1, LAYER "layer_norm1.weight", WIDTH, .share = DPT_SHARE_SAME),
    DPT_VECTOR(NORM1_BIAS, LAYER "layer_norm1.bias", WIDTH, .share = DPT_SHARE_SAME),
    DPT_MATRIX(Q, LAYER "self_attn.q_proj.weight", HEADS, WIDTH),
    DPT_MATRIX(K, LAYER "self_attn.k_proj.weight", KV_HEADS, WIDTH, .stacked = true),
    DPT_MATRIX(V, LAYER "self_attn.v_proj.weight", KV_HEADS, WIDTH, .stacked = true),
    DPT_VECTOR(Q_BIAS, LAYER "self_attn.q_proj.bias", HEADS),
    DPT_VECTOR(K_BIAS, LAYER "self_attn.k_proj.bias", KV_HEADS, .stacked = true),
    DPT_VECTOR(V_BIAS, LAYER "self_attn.v_proj.bias", KV_HEADS, .stacked = true),
    DPT_MATRIX(O, LAYER "self_attn.out_proj.weight", WIDTH, HEADS),
    DPT_VECTOR(O_BIAS, LAYER "self_attn.out_proj.bias", WIDTH, .share = DPT_SHARE_FIRST),
    DPT_VECTOR(NORM2, LAYER "layer_norm2.weight", WIDTH, .share = DPT_SHARE_SAME),
    DPT_VECTOR(NORM2_BIAS, LAYER "layer_norm2.bias", WIDTH, .share = DPT_SHARE_SAME),
    DPT_MATRIX(UP, LAYER "mlp.fc1.weight", UNITS, WIDTH),
    DPT_VECTOR(UP_BIAS, LAYER "mlp.fc1.bias", UNITS),
    DPT_MATRIX(DOWN, LAYER "mlp.fc2.weight", WIDTH, UNITS),
    DPT_VECTOR(DOWN_BIAS, LAYER "mlp.fc2.bias", WIDTH, .share = DPT_SHARE_FIRST),
    DPT_VECTOR(FINAL_NORM, TOWER "post_layernorm.weight", WIDTH, .share = DPT_SHARE_SAME),
    DPT_VECTOR(FINAL_NORM_BIAS, TOWER "post_layernorm.bias", WIDTH, .share = DPT_SHARE_SAME),
    DPT_MATRIX(HEAD, "visual_projection.weight", PROJECTION, INPUTS),
    DPT_MATRIX(TEXT, "text_embeds.weight", VOCABULARY, PROJECTION, .share = DPT_SHARE_FIXED),
};

static void clip_read(dpt_config *in, const dpt_catalog *catalog, dpt_arch *out) {
    static const dpt_image_traits traits = {.eps = 1e-5, .act = "quick_gelu"};
    dpt_image_read(in, &traits, out);
    out->length[DPT_AXIS_PROJECTION] = dpt_config_integer(in, "projection_dim", 1, 1 << 24, 512);
    dpt_arch_add(out, clip_rows, sizeof clip_rows / sizeof clip_rows[0], 0);
    dpt_image_count_classes(in, catalog, out->row[DPT_SLOT_TEXT]->name,
                            "store the embeddings of the class texts [classes, projection_dim], "
                            "normalised and times the logit scale, besides the tower",
                            out);
}

/* A buffer of old checkpoints. */
static bool clip_ignores(const dpt_arch *arch, const char *name) {
    (void)arch;
    return strcmp(name, TOWER "embeddings.position_ids") == 0;
}

static const char *const clip_keys[] = {"projection_dim", NULL};

const dpt_family dpt_family_clip = {.architecture = "CLIPVisionModelWithProjection",
                                    .model_type = "clip_vision_model",
                                    .read = clip_read,
                                    .ignores = clip_ignores,
                                    .knows = dpt_image_knows,
                                    .takes = clip_keys};
