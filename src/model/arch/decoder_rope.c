#include "decoder.h"

#include <math.h>
#include <string.h>

enum { ROPE_POSITIONS_MAX = 1 << 30 };

static dpt_rope_kind rope_read_kind(dpt_config *in) {
    const char *key = dpt_config_get(in, "rope_type") != NULL ? "rope_type" : "type";
    const char *kind = dpt_config_string(in, key, "default");
    if (strcmp(kind, "linear") == 0)
        return DPT_ROPE_LINEAR;
    if (strcmp(kind, "llama3") == 0)
        return DPT_ROPE_LLAMA3;
    if (strcmp(kind, "default") != 0)
        dpt_config_reject(in, key, "\"default\", \"linear\" or \"llama3\"");
    return DPT_ROPE_DEFAULT;
}

/* Kind, theta and scaling of an object that holds one setting. */
static void rope_read_object(dpt_config *in, dpt_rope_params *rope) {
    rope->kind = rope_read_kind(in);
    rope->theta = dpt_config_number(in, "rope_theta", 1.0, 1e15, rope->theta);
    if (!dpt_config_is_off(dpt_config_get(in, "partial_rotary_factor")))
        dpt_config_reject(in, "partial_rotary_factor", "1");
    if (rope->kind != DPT_ROPE_DEFAULT)
        rope->factor = dpt_config_number(in, "factor", 0.0, 1e9, NAN);
    if (rope->kind != DPT_ROPE_LLAMA3)
        return;
    rope->low_freq_factor = dpt_config_number(in, "low_freq_factor", 0.0, 1e9, NAN);
    rope->high_freq_factor = dpt_config_number(in, "high_freq_factor", 0.0, 1e9, NAN);
    rope->original_max_position =
        dpt_config_need_integer(in, "original_max_position_embeddings", 1, ROPE_POSITIONS_MAX);
    if (in->status == DPT_OK && !(rope->high_freq_factor > rope->low_freq_factor))
        dpt_config_reject(in, "high_freq_factor", "a value above low_freq_factor");
}

/* An object with an object inside has a setting for each kind of layer. */
static bool rope_is_one_setting(const json_t *object) {
    const char *inner;
    const json_t *value;
    json_object_foreach((json_t *)object, inner, value) {
        if (json_is_object(value))
            return false;
    }
    return true;
}

/* rope_parameters holds theta and scaling (transformers 5); rope_scaling holds the scaling alone,
 * with rope_theta next to it (before). */
void dpt_decoder_read_rope(dpt_config *in, dpt_arch *out) {
    bool merged = dpt_config_get(in, "rope_parameters") != NULL;
    const char *key = merged ? "rope_parameters" : "rope_scaling";
    const json_t *object = dpt_config_get(in, key);
    out->rope[0] = (dpt_rope_params){.kind = DPT_ROPE_DEFAULT, .dim = out->head_dim};
    out->rope[0].theta = dpt_config_number(in, "rope_theta", 1.0, 1e15, 10000.0);
    if (object == NULL || in->status != DPT_OK)
        return;
    if (!json_is_object(object) || !rope_is_one_setting(object)) {
        dpt_config_reject(in, key,
                          json_is_object(object) ? "one rotary setting for all layers"
                                                 : "an object or null");
        return;
    }
    dpt_config rope = {.object = object,
                       .where =
                           merged ? "config.json: rope_parameters" : "config.json: rope_scaling",
                       .status = DPT_OK};
    rope_read_object(&rope, &out->rope[0]);
    in->status = dpt_status_worse(in->status, rope.status);
    /* Of the two, transformers takes rope_scaling and drops the other with its theta. */
    const json_t *scaling = dpt_config_get(in, "rope_scaling");
    if (merged && scaling != NULL && !json_equal((json_t *)scaling, (json_t *)object))
        dpt_config_reject(in, "rope_scaling", "one of rope_parameters and rope_scaling, not both");
    /* transformers 4 takes the outer one and 5 the inner one. */
    if (dpt_config_get(&rope, "rope_theta") != NULL && dpt_config_get(in, "rope_theta") != NULL &&
        dpt_config_number(in, "rope_theta", 1.0, 1e15, 0.0) != out->rope[0].theta)
        dpt_config_reject(in, "rope_theta",
                          merged ? "that of rope_parameters" : "that of rope_scaling");
}
