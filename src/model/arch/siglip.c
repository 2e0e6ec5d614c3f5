#include "siglip.h"

#include <string.h>

#define LAYER "^encoder.layers.*."

/* Source: arXiv:2303.15343. */
static const dpt_row siglip_rows[] = {
    DPT_MATRIX(PATCH, "^embeddings.patch_embedding.weight", WIDTH, PIXELS,
               .stored = {DPT_AXIS_WIDTH, DPT_AXIS_CHANNELS, DPT_AXIS_PATCH, DPT_AXIS_PATCH}),
    DPT_VECTOR(PATCH_BIAS, "^embeddings.patch_embedding.bias", WIDTH, .share = DPT_SHARE_FIRST),
    DPT_MATRIX(POSITION, "^embeddings.position_embedding.weight", POSITIONS, WIDTH,
               .share = DPT_SHARE_FIRST),
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
    DPT_VECTOR(FINAL_NORM, "^post_layernorm.weight", WIDTH, .share = DPT_SHARE_SAME),
    DPT_VECTOR(FINAL_NORM_BIAS, "^post_layernorm.bias", WIDTH, .share = DPT_SHARE_SAME),
};

static const dpt_row siglip_classifier[] = {
    DPT_MATRIX(HEAD, "classifier.weight", VOCABULARY, WIDTH),
    DPT_VECTOR(HEAD_BIAS, "classifier.bias", VOCABULARY),
};

void dpt_siglip_read(dpt_config *in, dpt_pool_kind pool, dpt_arch *out) {
    const dpt_image_traits traits = {.eps = 1e-6,
                                     .act = "gelu_pytorch_tanh",
                                     .width = 768,
                                     .units = 3072,
                                     .layers = 12,
                                     .heads = 12,
                                     .side = 224,
                                     .patch = 16,
                                     .classless = true,
                                     .pool = pool};
    dpt_image_read(in, &traits, out);
    dpt_arch_add(out, siglip_rows, sizeof siglip_rows / sizeof siglip_rows[0], 0);
}

static void siglip_read(dpt_config *in, const dpt_catalog *catalog, dpt_arch *out) {
    dpt_config tower = {.object = dpt_config_get(in, "vision_config"),
                        .where = "config.json: vision_config",
                        .status = in->status};
    out->tower = "vision_model.";
    if (!json_is_object(tower.object)) {
        in->status = dpt_error(DPT_ERR_INPUT, "config.json: vision_config is missing: copy the "
                                              "model's whole config.json");
        return;
    }
    dpt_config_reject_quantised(in);
    dpt_siglip_read(&tower, DPT_POOL_MEAN, out);
    in->status = dpt_status_worse(in->status, tower.status);
    dpt_arch_add(out, siglip_classifier, sizeof siglip_classifier / sizeof siglip_classifier[0], 0);
    dpt_image_count_classes(in, catalog, out->row[DPT_SLOT_HEAD]->name,
                            "give a model with its classifier", out);
}

/* The tower's own head, which classification does not use, and a buffer of old checkpoints. */
static bool siglip_ignores(const dpt_arch *arch, const char *name) {
    (void)arch;
    return strncmp(name, "vision_model.head.", strlen("vision_model.head.")) == 0 ||
           strcmp(name, "vision_model.embeddings.position_ids") == 0;
}

static const char *const siglip_keys[] = {"vision_config", "text_config", "vision_use_head", NULL};

const dpt_family dpt_family_siglip = {.architecture = "SiglipForImageClassification",
                                      .model_type = "siglip",
                                      .read = siglip_read,
                                      .ignores = siglip_ignores,
                                      .knows = dpt_image_knows,
                                      .takes = siglip_keys,
                                      .inner = "vision_config"};
