#include "vit_config.h"

#include <string.h>

/* Sides beyond these are not models but broken files; products of two of them fit int64. */
enum { WIDTH_MAX = 1 << 24, LAYERS_MAX = 1 << 16, SIDE_MAX = 1 << 14, CHANNELS_MAX = 1 << 10 };

const dpt_vit_family dpt_vit_vit = {
    .eps = 1e-12,
    .act = "gelu",
    .names = {[DPT_VIT_CLASS] = "vit.embeddings.cls_token",
              [DPT_VIT_PATCH] = "vit.embeddings.patch_embeddings.projection.weight",
              [DPT_VIT_PATCH_BIAS] = "vit.embeddings.patch_embeddings.projection.bias",
              [DPT_VIT_POSITION] = "vit.embeddings.position_embeddings",
              [DPT_VIT_POST_NORM] = "vit.layernorm.weight",
              [DPT_VIT_POST_NORM_BIAS] = "vit.layernorm.bias",
              [DPT_VIT_HEAD] = "classifier.weight",
              [DPT_VIT_HEAD_BIAS] = "classifier.bias"},
    .layer = "vit.encoder.layer",
    .layer_names = {[DPT_VIT_NORM1] = "layernorm_before.weight",
                    [DPT_VIT_NORM1_BIAS] = "layernorm_before.bias",
                    [DPT_VIT_Q] = "attention.attention.query.weight",
                    [DPT_VIT_K] = "attention.attention.key.weight",
                    [DPT_VIT_V] = "attention.attention.value.weight",
                    [DPT_VIT_Q_BIAS] = "attention.attention.query.bias",
                    [DPT_VIT_K_BIAS] = "attention.attention.key.bias",
                    [DPT_VIT_V_BIAS] = "attention.attention.value.bias",
                    [DPT_VIT_O] = "attention.output.dense.weight",
                    [DPT_VIT_O_BIAS] = "attention.output.dense.bias",
                    [DPT_VIT_NORM2] = "layernorm_after.weight",
                    [DPT_VIT_NORM2_BIAS] = "layernorm_after.bias",
                    [DPT_VIT_UP] = "intermediate.dense.weight",
                    [DPT_VIT_UP_BIAS] = "intermediate.dense.bias",
                    [DPT_VIT_DOWN] = "output.dense.weight",
                    [DPT_VIT_DOWN_BIAS] = "output.dense.bias"},
};

const dpt_vit_family dpt_vit_clip = {
    .text_head = true,
    .eps = 1e-5,
    .act = "quick_gelu",
    .names = {[DPT_VIT_CLASS] = "vision_model.embeddings.class_embedding",
              [DPT_VIT_PATCH] = "vision_model.embeddings.patch_embedding.weight",
              [DPT_VIT_POSITION] = "vision_model.embeddings.position_embedding.weight",
              [DPT_VIT_PRE_NORM] = "vision_model.pre_layrnorm.weight",
              [DPT_VIT_PRE_NORM_BIAS] = "vision_model.pre_layrnorm.bias",
              [DPT_VIT_POST_NORM] = "vision_model.post_layernorm.weight",
              [DPT_VIT_POST_NORM_BIAS] = "vision_model.post_layernorm.bias",
              [DPT_VIT_HEAD] = "visual_projection.weight",
              [DPT_VIT_TEXT] = "text_embeds.weight"},
    .layer = "vision_model.encoder.layers",
    .layer_names = {[DPT_VIT_NORM1] = "layer_norm1.weight",
                    [DPT_VIT_NORM1_BIAS] = "layer_norm1.bias",
                    [DPT_VIT_Q] = "self_attn.q_proj.weight",
                    [DPT_VIT_K] = "self_attn.k_proj.weight",
                    [DPT_VIT_V] = "self_attn.v_proj.weight",
                    [DPT_VIT_Q_BIAS] = "self_attn.q_proj.bias",
                    [DPT_VIT_K_BIAS] = "self_attn.k_proj.bias",
                    [DPT_VIT_V_BIAS] = "self_attn.v_proj.bias",
                    [DPT_VIT_O] = "self_attn.out_proj.weight",
                    [DPT_VIT_O_BIAS] = "self_attn.out_proj.bias",
                    [DPT_VIT_NORM2] = "layer_norm2.weight",
                    [DPT_VIT_NORM2_BIAS] = "layer_norm2.bias",
                    [DPT_VIT_UP] = "mlp.fc1.weight",
                    [DPT_VIT_UP_BIAS] = "mlp.fc1.bias",
                    [DPT_VIT_DOWN] = "mlp.fc2.weight",
                    [DPT_VIT_DOWN_BIAS] = "mlp.fc2.bias"},
};

static void read_activation(dpt_config *in, dpt_vit_config *c) {
    static const struct {
        const char *name;
        dpt_act_kind kind;
    } known[] = {{"gelu", DPT_ACT_GELU},
                 {"gelu_python", DPT_ACT_GELU},
                 {"gelu_new", DPT_ACT_GELU_TANH},
                 {"gelu_pytorch_tanh", DPT_ACT_GELU_TANH},
                 {"quick_gelu", DPT_ACT_QUICK_GELU},
                 {"silu", DPT_ACT_SILU},
                 {"swish", DPT_ACT_SILU}};
    const char *name = dpt_config_text(in, "hidden_act", c->family->act);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(name, known[i].name) == 0) {
            c->act = known[i].kind;
            c->act_name = known[i].name;
            return;
        }
    }
    dpt_config_reject(in, "hidden_act",
                      "\"gelu\", \"quick_gelu\", \"gelu_pytorch_tanh\" or \"silu\"");
}

static void read_widths(dpt_config *in, dpt_vit_config *c) {
    c->hidden = dpt_config_need_integer(in, "hidden_size", 1, WIDTH_MAX);
    c->intermediate = dpt_config_need_integer(in, "intermediate_size", 1, WIDTH_MAX);
    c->layers = dpt_config_need_integer(in, "num_hidden_layers", 1, LAYERS_MAX);
    c->heads = dpt_config_need_integer(in, "num_attention_heads", 1, 1 << 16);
    c->side = dpt_config_need_integer(in, "image_size", 1, SIDE_MAX);
    c->patch = dpt_config_need_integer(in, "patch_size", 1, SIDE_MAX);
    c->channels = dpt_config_integer(in, "num_channels", 1, CHANNELS_MAX, 3);
    c->eps = dpt_config_number(in, "layer_norm_eps", 0.0, 1.0, c->family->eps);
    c->qkv_bias = c->family->text_head || dpt_config_bool(in, "qkv_bias", true);
    if (c->family->text_head)
        c->projection = dpt_config_integer(in, "projection_dim", 1, WIDTH_MAX, 512);
    if (dpt_config_get(in, "quantization_config") != NULL)
        dpt_config_reject(in, "quantization_config", "a model without this option");
    if (in->status != DPT_OK)
        return;
    if (c->hidden % c->heads != 0)
        dpt_config_reject(in, "hidden_size", "a multiple of num_attention_heads");
    if (c->patch > c->side)
        dpt_config_reject(in, "patch_size", "a side of at most image_size");
    int64_t across = c->side / c->patch;
    c->head_dim = c->hidden / c->heads;
    c->patches = across * across;
    c->positions = c->patches + 1;
    c->patch_elements = c->channels * c->patch * c->patch;
    if (c->positions > INT32_MAX / c->hidden)
        dpt_config_reject(in, "image_size", "at most 2^31 activations an image");
}

static dpt_status count_classes(const dpt_catalog *catalog, dpt_vit_config *c) {
    const char *name = c->family->names[c->family->text_head ? DPT_VIT_TEXT : DPT_VIT_HEAD];
    int tensor = dpt_catalog_find(catalog, name);
    if (tensor < 0)
        return dpt_error(DPT_ERR_INPUT, "model: tensor %s is missing: %s", name,
                         c->family->text_head
                             ? "store the embeddings of the class texts [classes, projection_dim], "
                               "normalised and times the logit scale, beside the tower"
                             : "give a model with its classifier");
    const dpt_tensor_info *info = &catalog->tensors[tensor];
    if (info->ndim != 2 || info->shape[0] < 1 || info->shape[0] > INT32_MAX)
        return dpt_error(DPT_ERR_INPUT, "model: tensor %s must be a matrix with a row a class",
                         name);
    c->classes = info->shape[0];
    return DPT_OK;
}

dpt_status dpt_vit_config_read(const dpt_vit_family *family, const json_t *root,
                               const dpt_catalog *catalog, dpt_vit_config *out) {
    *out = (dpt_vit_config){.family = family};
    dpt_config in = {.object = root, .where = "config.json", .status = DPT_OK};
    read_widths(&in, out);
    if (in.status == DPT_OK)
        read_activation(&in, out);
    if (in.status != DPT_OK)
        return in.status;
    return count_classes(catalog, out);
}
