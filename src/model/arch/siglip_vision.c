#include "siglip.h"

#include <string.h>

#define IN "^head.attention.in_proj_"

/* Attention of a learned query over the tokens, and an MLP; the classes are fixed texts. Source: arXiv:2303.15343. */
static const dpt_row siglip_vision_rows[] = {
    DPT_MATRIX(POOL_PROBE, "^head.probe", ONE, WIDTH,
               .stored = {DPT_AXIS_ONE, DPT_AXIS_ONE, DPT_AXIS_WIDTH}),
    DPT_MATRIX(POOL_Q, IN "weight", HEADS, WIDTH, .part = DPT_ROLE_Q),
    DPT_MATRIX(POOL_K, IN "weight", KV_HEADS, WIDTH, .part = DPT_ROLE_K),
    DPT_MATRIX(POOL_V, IN "weight", KV_HEADS, WIDTH, .part = DPT_ROLE_V, .stacked = true),
    DPT_VECTOR(POOL_Q_BIAS, IN "bias", HEADS, .part = DPT_ROLE_Q),
    DPT_VECTOR(POOL_K_BIAS, IN "bias", KV_HEADS, .part = DPT_ROLE_K),
    DPT_VECTOR(POOL_V_BIAS, IN "bias", KV_HEADS, .part = DPT_ROLE_V, .stacked = true),
    DPT_MATRIX(POOL_O, "^head.attention.out_proj.weight", WIDTH, HEADS),
    DPT_VECTOR(POOL_O_BIAS, "^head.attention.out_proj.bias", WIDTH, .share = DPT_SHARE_FIRST),
    DPT_VECTOR(POOL_NORM, "^head.layernorm.weight", WIDTH, .share = DPT_SHARE_SAME),
    DPT_VECTOR(POOL_NORM_BIAS, "^head.layernorm.bias", WIDTH, .share = DPT_SHARE_SAME),
    DPT_MATRIX(POOL_UP, "^head.mlp.fc1.weight", UNITS, WIDTH),
    DPT_VECTOR(POOL_UP_BIAS, "^head.mlp.fc1.bias", UNITS),
    DPT_MATRIX(POOL_DOWN, "^head.mlp.fc2.weight", WIDTH, UNITS),
    DPT_VECTOR(POOL_DOWN_BIAS, "^head.mlp.fc2.bias", WIDTH, .share = DPT_SHARE_FIRST),
    DPT_MATRIX(TEXT, "text_embeds.weight", VOCABULARY, PROJECTION, .share = DPT_SHARE_FIXED),
};

static void siglip_vision_read(dpt_config *in, const dpt_catalog *catalog, dpt_arch *out) {
    /* transformers 4 saves the tower under its name in the whole model, 5 without. */
    bool named =
        dpt_catalog_find_alias(catalog, "vision_model.embeddings.patch_embedding.weight") >= 0;
    out->tower = named ? "vision_model." : "";
    if (!dpt_config_bool(in, "vision_use_head", true))
        dpt_config_reject(in, "vision_use_head", "a tower with its head (true)");
    dpt_siglip_read(in, DPT_POOL_ATTENTION, out);
    out->length[DPT_AXIS_PROJECTION] = out->length[DPT_AXIS_WIDTH];
    dpt_arch_add(out, siglip_vision_rows, sizeof siglip_vision_rows / sizeof siglip_vision_rows[0],
                 0);
    dpt_image_count_classes(in, catalog, out->row[DPT_SLOT_TEXT]->name,
                            "store the embeddings of the class texts [classes, hidden_size], "
                            "normalised and times the logit scale, besides the tower",
                            out);
}

/* A buffer of old checkpoints. */
static bool siglip_vision_ignores(const dpt_arch *arch, const char *name) {
    size_t tower = strlen(arch->tower);
    return strncmp(name, arch->tower, tower) == 0 &&
           strcmp(name + tower, "embeddings.position_ids") == 0;
}

static const char *const siglip_vision_keys[] = {"vision_use_head", NULL};

const dpt_family dpt_family_siglip_vision = {.architecture = "SiglipVisionModel",
                                             .model_type = "siglip_vision_model",
                                             .read = siglip_vision_read,
                                             .ignores = siglip_vision_ignores,
                                             .knows = dpt_image_knows,
                                             .takes = siglip_vision_keys};
