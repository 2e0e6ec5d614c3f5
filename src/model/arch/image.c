#include "image.h"

/* Sides beyond these are not models but broken files; products of two of them fit int64. */
enum {
    IMAGE_WIDTH_MAX = 1 << 24,
    IMAGE_LAYERS_MAX = 1 << 16,
    IMAGE_SIDE_MAX = 1 << 14,
    IMAGE_CHANNELS_MAX = 1 << 10
};

static void image_derive_lengths(dpt_config *in, dpt_arch *out) {
    int64_t *length = out->length, width = length[DPT_AXIS_WIDTH], patch = length[DPT_AXIS_PATCH];
    if (width % out->heads != 0)
        dpt_config_reject(in, "hidden_size", "a multiple of num_attention_heads");
    if (patch > out->side)
        dpt_config_reject(in, "patch_size", "a side of at most image_size");
    int64_t across = out->side / patch;
    out->kv_heads = out->heads;
    out->head_dim = width / out->heads;
    out->patches = across * across;
    length[DPT_AXIS_HEADS] = length[DPT_AXIS_KV_HEADS] = length[DPT_AXIS_INPUTS] = width;
    length[DPT_AXIS_POSITIONS] = out->patches + 1;
    length[DPT_AXIS_PIXELS] = length[DPT_AXIS_CHANNELS] * patch * patch;
    if (length[DPT_AXIS_POSITIONS] > INT32_MAX / width)
        dpt_config_reject(in, "image_size", "at most 2^31 activations an image");
}

void dpt_image_read(dpt_config *in, double eps, const char *act, dpt_arch *out) {
    int64_t *length = out->length;
    out->norm = DPT_NORM_LAYER;
    length[DPT_AXIS_WIDTH] = dpt_config_need_integer(in, "hidden_size", 1, IMAGE_WIDTH_MAX);
    length[DPT_AXIS_UNITS] = dpt_config_need_integer(in, "intermediate_size", 1, IMAGE_WIDTH_MAX);
    out->layers = dpt_config_need_integer(in, "num_hidden_layers", 1, IMAGE_LAYERS_MAX);
    out->heads = dpt_config_need_integer(in, "num_attention_heads", 1, 1 << 16);
    out->side = dpt_config_need_integer(in, "image_size", 1, IMAGE_SIDE_MAX);
    length[DPT_AXIS_PATCH] = dpt_config_need_integer(in, "patch_size", 1, IMAGE_SIDE_MAX);
    length[DPT_AXIS_CHANNELS] = dpt_config_integer(in, "num_channels", 1, IMAGE_CHANNELS_MAX, 3);
    out->eps = dpt_config_number(in, "layer_norm_eps", 0.0, 1.0, eps);
    if (dpt_config_get(in, "quantization_config") != NULL)
        dpt_config_reject(in, "quantization_config", "a model without this option");
    if (in->status == DPT_OK)
        image_derive_lengths(in, out);
    if (in->status == DPT_OK)
        dpt_arch_read_act(in, "hidden_act", act, out);
}

void dpt_image_count_classes(dpt_config *in, const dpt_catalog *catalog, const char *name,
                             const char *remedy, dpt_arch *out) {
    if (in->status != DPT_OK)
        return;
    int tensor = dpt_catalog_find(catalog, name);
    const dpt_tensor_info *info = tensor >= 0 ? &catalog->tensors[tensor] : NULL;
    if (info == NULL)
        in->status = dpt_error(DPT_ERR_INPUT, "model: tensor %s is missing: %s", name, remedy);
    else if (info->ndim != 2 || info->shape[0] < 1 || info->shape[0] > INT32_MAX)
        in->status =
            dpt_error(DPT_ERR_INPUT, "model: tensor %s must be a matrix with a row a class", name);
    else
        out->length[DPT_AXIS_VOCABULARY] = info->shape[0];
}
