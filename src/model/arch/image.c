#include "image.h"

#include <string.h>

/* Sides beyond these are not models but broken files; products of two of them fit int64. */
enum {
    IMAGE_WIDTH_MAX = 1 << 24,
    IMAGE_LAYERS_MAX = 1 << 16,
    IMAGE_SIDE_MAX = 1 << 14,
    IMAGE_CHANNELS_MAX = 1 << 10
};

/* A key that must be there where the family has no default. */
static int64_t image_integer(dpt_config *in, const char *key, int64_t upper, int64_t standard) {
    return standard > 0 ? dpt_config_integer(in, key, 1, upper, standard)
                        : dpt_config_need_integer(in, key, 1, upper);
}

static void image_derive_tokens(dpt_config *in, const dpt_image_traits *traits, dpt_arch *out) {
    int64_t *length = out->length, across = out->side / length[DPT_AXIS_PATCH];
    out->patches = across * across;
    length[DPT_AXIS_POSITIONS] = out->patches + (traits->classless ? 0 : 1);
    length[DPT_AXIS_REGISTERS] = traits->registers;
    out->image_tokens = length[DPT_AXIS_POSITIONS] + traits->registers;
    if (out->image_tokens > INT32_MAX / length[DPT_AXIS_WIDTH])
        dpt_config_reject(in, "image_size", "at most 2^31 activations an image");
}

static void image_derive_lengths(dpt_config *in, const dpt_image_traits *traits, dpt_arch *out) {
    int64_t *length = out->length, width = length[DPT_AXIS_WIDTH], patch = length[DPT_AXIS_PATCH];
    if (width % out->heads != 0)
        dpt_config_reject(in, "hidden_size", "a multiple of num_attention_heads");
    if (patch > out->side)
        dpt_config_reject(in, "patch_size", "a side of at most image_size");
    out->kv_heads = out->heads;
    out->head_dim = width / out->heads;
    out->pool = traits->pool;
    length[DPT_AXIS_HEADS] = length[DPT_AXIS_KV_HEADS] = length[DPT_AXIS_INPUTS] = width;
    length[DPT_AXIS_FEATURES] = traits->pool == DPT_POOL_CLASS_MEAN ? 2 * width : width;
    length[DPT_AXIS_PIXELS] = length[DPT_AXIS_CHANNELS] * patch * patch;
    image_derive_tokens(in, traits, out);
}

void dpt_image_read(dpt_config *in, const dpt_image_traits *traits, dpt_arch *out) {
    int64_t *length = out->length;
    out->norm = DPT_NORM_LAYER;
    length[DPT_AXIS_WIDTH] = image_integer(in, "hidden_size", IMAGE_WIDTH_MAX, traits->width);
    if (!traits->own_units)
        length[DPT_AXIS_UNITS] =
            image_integer(in, "intermediate_size", IMAGE_WIDTH_MAX, traits->units);
    out->layers = image_integer(in, "num_hidden_layers", IMAGE_LAYERS_MAX, traits->layers);
    out->heads = image_integer(in, "num_attention_heads", 1 << 16, traits->heads);
    out->side = image_integer(in, "image_size", IMAGE_SIDE_MAX, traits->side);
    length[DPT_AXIS_PATCH] = image_integer(in, "patch_size", IMAGE_SIDE_MAX, traits->patch);
    length[DPT_AXIS_CHANNELS] = dpt_config_integer(in, "num_channels", 1, IMAGE_CHANNELS_MAX, 3);
    out->eps = dpt_config_number(in, "layer_norm_eps", 0.0, 1.0, traits->eps);
    dpt_config_reject_quantised(in);
    if (in->status == DPT_OK)
        image_derive_lengths(in, traits, out);
    if (in->status == DPT_OK)
        dpt_arch_read_act(in, "hidden_act", traits->act, out);
}

void dpt_image_count_classes(dpt_config *in, const dpt_catalog *catalog, const char *name,
                             const char *remedy, dpt_arch *out) {
    if (in->status != DPT_OK)
        return;
    int tensor = dpt_catalog_find_alias(catalog, name);
    const dpt_tensor_info *info = tensor >= 0 ? &catalog->tensors[tensor] : NULL;
    if (info == NULL)
        in->status = dpt_error(DPT_ERR_INPUT, "model: tensor %s is missing: %s", name, remedy);
    else if (info->ndim != 2 || info->shape[0] < 1 || info->shape[0] > INT32_MAX)
        in->status =
            dpt_error(DPT_ERR_INPUT, "model: tensor %s must be a matrix with a row a class", name);
    else
        out->length[DPT_AXIS_VOCABULARY] = info->shape[0];
}

bool dpt_image_knows(const char *key) {
    static const char *const keys[] = {
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "image_size", "patch_size", "num_channels", "layer_norm_eps", "hidden_act",
        /* of training */
        "attention_probs_dropout_prob", "hidden_dropout_prob", "dropout", "drop_path_rate",
        "initializer_factor", "layerscale_value", "encoder_stride",
        /* of a backbone, and of a pooling that the head of classes does not read */
        "apply_layernorm", "reshape_hidden_states", "stage_names", "out_features", "out_indices",
        "pooler_output_size", "pooler_act"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(key, keys[i]) == 0)
            return true;
    return dpt_config_is_idle(key);
}
