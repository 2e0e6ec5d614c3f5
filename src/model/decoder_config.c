#include "decoder_config.h"

#include "deltapath/base/mem.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Widths beyond these are not models but broken files; products of two of them fit int64. */
enum { WIDTH_MAX = 1 << 26, LAYERS_MAX = 1 << 16, POSITIONS_MAX = 1 << 30 };

const dpt_decoder_family dpt_decoder_llama = {.bias_options = true, .max_positions = 2048};
const dpt_decoder_family dpt_decoder_mistral = {
    .window = true, .max_positions = 4096 * 32, .window_default = 4096};
const dpt_decoder_family dpt_decoder_qwen2 = {
    .qkv_bias = true, .window_types = true, .max_positions = 32768, .window_default = 4096};

/* Options of relatives of these families that would change what the model computes. A value that
 * means "off" (null, false, 0, and 1 for factors) passes. */
static const char *const foreign_options[] = {
    "quantization_config",
    "partial_rotary_factor",
    "num_local_experts",
    "num_experts",
    "embedding_multiplier",
    "residual_multiplier",
    "attention_multiplier",
    "logits_scaling",
    "final_logit_softcapping",
    "attn_logit_softcapping",
    "clip_qkv",
    "use_qk_norm",
    "qk_layernorm",
    "attn_temperature_tuning",
    "no_rope_layers",
    "use_bidirectional_attention",
    "logit_scale",
    "attention_scale",
    "embedding_scale",
    "scale_emb",
    "scale_depth",
    "qk_norm",
    "rope_interleave",
    "rope_interleaved",
    "normalize_embeddings",
};

/* Code of its own in place of this architecture; a tokenizer of its own changes no model. */
static void reject_own_code(dpt_config *in) {
    const char *name;
    const json_t *value;
    json_object_foreach((json_t *)dpt_config_get(in, "auto_map"), name, value) {
        if (strncmp(name, "AutoModel", strlen("AutoModel")) == 0) {
            dpt_config_reject(in, "auto_map", "a model without code of its own");
            return;
        }
    }
}

static bool is_off(const json_t *value) {
    if (value == NULL || json_is_false(value))
        return true;
    double number = json_number_value(value);
    return json_is_number(value) && (number == 0.0 || number == 1.0);
}

static void read_options(dpt_config *in) {
    for (size_t i = 0; i < sizeof foreign_options / sizeof foreign_options[0]; i++)
        if (!is_off(dpt_config_get(in, foreign_options[i])))
            dpt_config_reject(in, foreign_options[i], "a model without this option");
    reject_own_code(in);
    if (!dpt_config_bool(in, "is_causal", true))
        dpt_config_reject(in, "is_causal", "true");
    const char *act = dpt_config_text(in, "hidden_act", "silu");
    if (strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0)
        dpt_config_reject(in, "hidden_act", "\"silu\"");
}

static void read_widths(dpt_config *in, const dpt_decoder_family *family, dpt_decoder_config *c) {
    c->vocabulary = dpt_config_need_integer(in, "vocab_size", 1, INT32_MAX);
    c->hidden = dpt_config_need_integer(in, "hidden_size", 1, WIDTH_MAX);
    c->intermediate = dpt_config_need_integer(in, "intermediate_size", 1, WIDTH_MAX);
    c->layers = dpt_config_need_integer(in, "num_hidden_layers", 1, LAYERS_MAX);
    c->heads = dpt_config_need_integer(in, "num_attention_heads", 1, 1 << 16);
    c->kv_heads = dpt_config_integer(in, "num_key_value_heads", 1, 1 << 16, c->heads);
    c->max_positions =
        dpt_config_integer(in, "max_position_embeddings", 1, POSITIONS_MAX, family->max_positions);
    c->rms_eps = dpt_config_number(in, "rms_norm_eps", 0.0, 1.0, 1e-6);
    c->tied = dpt_config_bool(in, "tie_word_embeddings", false);
    if (in->status != DPT_OK)
        return;
    if (c->heads % c->kv_heads != 0)
        dpt_config_reject(in, "num_key_value_heads", "a divisor of num_attention_heads");
    bool has_dim = dpt_config_get(in, "head_dim") != NULL;
    if (!has_dim && c->hidden % c->heads != 0)
        dpt_config_reject(in, "hidden_size", "a multiple of num_attention_heads, or head_dim");
    c->head_dim = dpt_config_integer(in, "head_dim", 2, 1 << 14, c->hidden / c->heads);
    if (c->head_dim % 2 != 0 || c->head_dim < 2 || c->head_dim > 1 << 14)
        dpt_config_reject(in, has_dim ? "head_dim" : "hidden_size", "an even width of a head");
}

static void read_biases(dpt_config *in, const dpt_decoder_family *family, dpt_decoder_config *c) {
    bool attention = dpt_config_bool(in, "attention_bias", false);
    bool mlp = dpt_config_bool(in, "mlp_bias", false);
    if (family->bias_options) {
        c->qkv_bias = c->o_bias = attention;
        c->mlp_bias = mlp;
        return;
    }
    c->qkv_bias = family->qkv_bias;
    if (attention && !family->qkv_bias)
        dpt_config_reject(in, "attention_bias", "false for this architecture");
    if (mlp)
        dpt_config_reject(in, "mlp_bias", "false for this architecture");
}

static dpt_rope_kind rope_kind(dpt_config *in) {
    const char *key = dpt_config_get(in, "rope_type") != NULL ? "rope_type" : "type";
    const char *kind = dpt_config_text(in, key, "default");
    if (strcmp(kind, "linear") == 0)
        return DPT_ROPE_LINEAR;
    if (strcmp(kind, "llama3") == 0)
        return DPT_ROPE_LLAMA3;
    if (strcmp(kind, "default") != 0)
        dpt_config_reject(in, key, "\"default\", \"linear\" or \"llama3\"");
    return DPT_ROPE_DEFAULT;
}

/* rope_parameters holds theta and scaling (transformers 5); rope_scaling holds the scaling alone,
 * with rope_theta beside it (before). */
static void read_rope(dpt_config *in, dpt_decoder_config *c) {
    bool merged = dpt_config_get(in, "rope_parameters") != NULL;
    const char *key = merged ? "rope_parameters" : "rope_scaling";
    const json_t *object = dpt_config_get(in, key);
    c->rope = (dpt_rope_params){.kind = DPT_ROPE_DEFAULT, .dim = c->head_dim};
    c->rope.theta = dpt_config_number(in, "rope_theta", 1.0, 1e15, 10000.0);
    if (object == NULL || in->status != DPT_OK)
        return;
    if (!json_is_object(object)) {
        dpt_config_reject(in, key, "an object or null");
        return;
    }
    const char *inner;
    const json_t *value;
    json_object_foreach((json_t *)object, inner, value) {
        if (json_is_object(value)) {
            dpt_config_reject(in, key, "one rotary setting for all layers");
            return;
        }
    }
    dpt_config rope = {.object = object,
                       .where =
                           merged ? "config.json: rope_parameters" : "config.json: rope_scaling",
                       .status = DPT_OK};
    c->rope.kind = rope_kind(&rope);
    c->rope.theta = dpt_config_number(&rope, "rope_theta", 1.0, 1e15, c->rope.theta);
    if (!is_off(dpt_config_get(&rope, "partial_rotary_factor")))
        dpt_config_reject(&rope, "partial_rotary_factor", "1");
    if (c->rope.kind != DPT_ROPE_DEFAULT)
        c->rope.factor = dpt_config_number(&rope, "factor", 0.0, 1e9, NAN);
    if (c->rope.kind == DPT_ROPE_LLAMA3) {
        c->rope.low_freq_factor = dpt_config_number(&rope, "low_freq_factor", 0.0, 1e9, NAN);
        c->rope.high_freq_factor = dpt_config_number(&rope, "high_freq_factor", 0.0, 1e9, NAN);
        c->rope.original_max_position =
            dpt_config_need_integer(&rope, "original_max_position_embeddings", 1, POSITIONS_MAX);
        if (rope.status == DPT_OK && !(c->rope.high_freq_factor > c->rope.low_freq_factor))
            dpt_config_reject(&rope, "high_freq_factor", "a value above low_freq_factor");
    }
    in->status = dpt_status_worse(in->status, rope.status);
    /* Of the two, transformers takes rope_scaling and drops the other with its theta. */
    const json_t *scaling = dpt_config_get(in, "rope_scaling");
    if (merged && scaling != NULL && !json_equal((json_t *)scaling, (json_t *)object))
        dpt_config_reject(in, "rope_scaling", "one of rope_parameters and rope_scaling, not both");
    /* transformers 4 takes the outer one and 5 the inner one. */
    if (dpt_config_get(&rope, "rope_theta") != NULL && dpt_config_get(in, "rope_theta") != NULL &&
        dpt_config_number(in, "rope_theta", 1.0, 1e15, 0.0) != c->rope.theta)
        dpt_config_reject(in, "rope_theta",
                          merged ? "that of rope_parameters" : "that of rope_scaling");
}

/* Entries of layer_types override the rule of the family where it has such a key. */
static void read_layer_types(dpt_config *in, const dpt_decoder_family *family, int64_t window,
                             dpt_decoder_config *c) {
    const json_t *types = dpt_config_get(in, "layer_types");
    if (types == NULL)
        return;
    if (!json_is_array(types) || (int64_t)json_array_size(types) != c->layers) {
        dpt_config_reject(in, "layer_types", "a list with one entry a layer");
        return;
    }
    for (int64_t l = 0; l < c->layers; l++) {
        const char *type = json_string_value(json_array_get(types, (size_t)l));
        bool sliding = type != NULL && strcmp(type, "sliding_attention") == 0;
        if (!sliding && (type == NULL || strcmp(type, "full_attention") != 0)) {
            dpt_config_reject(in, "layer_types", "\"full_attention\" or \"sliding_attention\"");
            return;
        }
        if (sliding && window == 0) {
            dpt_config_reject(in, "layer_types", "sliding_window where a layer slides");
            return;
        }
        int64_t wanted = sliding ? window : 0;
        if (!family->window_types && wanted != c->window[l]) {
            dpt_config_reject(in, "layer_types", "the same attention in all layers");
            return;
        }
        c->window[l] = wanted;
    }
}

static dpt_status read_windows(dpt_config *in, const dpt_decoder_family *family,
                               dpt_decoder_config *c) {
    c->window = dpt_mem_zalloc(c->layers, sizeof *c->window, "attention windows");
    if (c->window == NULL)
        return DPT_ERR_OUTPUT;
    /* An explicit null switches the window off; an absent key means the family's default. */
    bool present = json_object_get(in->object, "sliding_window") != NULL;
    int64_t window = dpt_config_integer(in, "sliding_window", 1, POSITIONS_MAX,
                                        present ? 0 : family->window_default);
    int64_t from = c->layers;
    if (family->window)
        from = 0;
    if (family->window_types) {
        if (!dpt_config_bool(in, "use_sliding_window", false))
            window = 0;
        from = dpt_config_integer(in, "max_window_layers", 0, LAYERS_MAX, 28);
    }
    for (int64_t l = from; l < c->layers; l++)
        c->window[l] = window;
    read_layer_types(in, family, window, c);
    return in->status;
}

dpt_status dpt_decoder_config_read(const dpt_decoder_family *family, const json_t *root,
                                   dpt_decoder_config *out) {
    *out = (dpt_decoder_config){.window = NULL};
    dpt_config in = {.object = root, .where = "config.json", .status = DPT_OK};
    read_options(&in);
    read_widths(&in, family, out);
    read_biases(&in, family, out);
    read_rope(&in, out);
    if (in.status == DPT_OK)
        in.status = read_windows(&in, family, out);
    if (in.status != DPT_OK)
        dpt_decoder_config_destroy(out);
    return in.status;
}

void dpt_decoder_config_compare(const dpt_decoder_config *a, const dpt_decoder_config *b,
                                char *text, size_t size) {
    const struct {
        const char *key;
        double a, b;
    } options[] = {
        {"num_attention_heads", (double)a->heads, (double)b->heads},
        {"num_key_value_heads", (double)a->kv_heads, (double)b->kv_heads},
        {"rms_norm_eps", a->rms_eps, b->rms_eps},
        {"rope_theta", a->rope.theta, b->rope.theta},
        {"factor of the rotary scaling", a->rope.factor, b->rope.factor},
        {"low_freq_factor", a->rope.low_freq_factor, b->rope.low_freq_factor},
        {"high_freq_factor", a->rope.high_freq_factor, b->rope.high_freq_factor},
        {"original_max_position_embeddings", (double)a->rope.original_max_position,
         (double)b->rope.original_max_position},
    };
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        dpt_config_compare(text, size, options[i].key, options[i].a, options[i].b);
    for (int64_t l = 0; l < a->layers && l < b->layers; l++) {
        char key[64];
        snprintf(key, sizeof key, "attention window of layer %" PRId64, l);
        if (a->window[l] != b->window[l]) {
            dpt_config_compare(text, size, key, (double)a->window[l], (double)b->window[l]);
            break;
        }
    }
}

void dpt_decoder_config_destroy(dpt_decoder_config *config) {
    dpt_mem_free(config->window);
    config->window = NULL;
}
