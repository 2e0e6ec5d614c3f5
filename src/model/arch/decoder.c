#include "decoder.h"

#include "deltapath/base/mem.h"

#include <string.h>

/* Widths beyond these are not models but broken files; products of two of them fit int64. */
enum { WIDTH_MAX = 1 << 26, LAYERS_MAX = 1 << 16, POSITIONS_MAX = 1 << 30 };

#define LAYER "model.layers.*."

/* The tensors of LLaMA and its relatives. */
static const dpt_row decoder_rows[] = {
    DPT_MATRIX(TOKENS, "model.embed_tokens.weight", VOCABULARY, WIDTH),
    DPT_VECTOR(NORM1, LAYER "input_layernorm.weight", WIDTH, .share = DPT_SHARE_SAME),
    DPT_MATRIX(Q, LAYER "self_attn.q_proj.weight", HEADS, WIDTH),
    DPT_MATRIX(K, LAYER "self_attn.k_proj.weight", KV_HEADS, WIDTH, .stacked = true),
    DPT_MATRIX(V, LAYER "self_attn.v_proj.weight", KV_HEADS, WIDTH, .stacked = true),
    DPT_VECTOR(Q_BIAS, LAYER "self_attn.q_proj.bias", HEADS, .option = DPT_OPTION_QKV_BIAS),
    DPT_VECTOR(K_BIAS, LAYER "self_attn.k_proj.bias", KV_HEADS, .option = DPT_OPTION_QKV_BIAS,
               .stacked = true),
    DPT_VECTOR(V_BIAS, LAYER "self_attn.v_proj.bias", KV_HEADS, .option = DPT_OPTION_QKV_BIAS,
               .stacked = true),
    DPT_VECTOR(Q_NORM, LAYER "self_attn.q_norm.weight", HEAD_DIM, .option = DPT_OPTION_HEAD_NORMS),
    DPT_VECTOR(K_NORM, LAYER "self_attn.k_norm.weight", HEAD_DIM, .option = DPT_OPTION_HEAD_NORMS),
    DPT_MATRIX(O, LAYER "self_attn.o_proj.weight", WIDTH, HEADS),
    DPT_VECTOR(O_BIAS, LAYER "self_attn.o_proj.bias", WIDTH, .share = DPT_SHARE_FIRST,
               .option = DPT_OPTION_O_BIAS),
    DPT_VECTOR(NORM2, LAYER "post_attention_layernorm.weight", WIDTH, .share = DPT_SHARE_SAME),
    DPT_MATRIX(GATE, LAYER "mlp.gate_proj.weight", UNITS, WIDTH),
    DPT_MATRIX(UP, LAYER "mlp.up_proj.weight", UNITS, WIDTH, .stacked = true),
    DPT_VECTOR(GATE_BIAS, LAYER "mlp.gate_proj.bias", UNITS, .option = DPT_OPTION_MLP_BIAS),
    DPT_VECTOR(UP_BIAS, LAYER "mlp.up_proj.bias", UNITS, .option = DPT_OPTION_MLP_BIAS,
               .stacked = true),
    DPT_MATRIX(DOWN, LAYER "mlp.down_proj.weight", WIDTH, UNITS),
    DPT_VECTOR(DOWN_BIAS, LAYER "mlp.down_proj.bias", WIDTH, .share = DPT_SHARE_FIRST,
               .option = DPT_OPTION_MLP_BIAS),
    DPT_VECTOR(FINAL_NORM, "model.norm.weight", WIDTH, .share = DPT_SHARE_SAME),
    DPT_MATRIX(HEAD, "lm_head.weight", VOCABULARY, WIDTH, .option = DPT_OPTION_HEAD),
};

/* Options of relatives of these families that would change what the model computes. A value that
 * means "off" (null, false, 0, and 1 for factors) passes. */
static const char *const decoder_foreign_options[] = {
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
    "use_bidirectional_attention",
    "logit_scale",
    "attention_scale",
    "embedding_scale",
    "scale_emb",
    "scale_depth",
    "qk_norm",
    "normalize_embeddings",
};

static void decoder_read_options(dpt_config *in, const dpt_decoder_traits *traits, dpt_arch *out) {
    for (size_t i = 0; i < sizeof decoder_foreign_options / sizeof decoder_foreign_options[0]; i++)
        if (!dpt_config_is_off(dpt_config_get(in, decoder_foreign_options[i])) &&
            !dpt_family_takes(out->family, decoder_foreign_options[i]))
            dpt_config_reject(in, decoder_foreign_options[i], "a model without this option");
    dpt_config_reject_quantised(in);
    if (!dpt_config_bool(in, "is_causal", true))
        dpt_config_reject(in, "is_causal", "true");
    dpt_arch_read_act(in, traits->act_key != NULL ? traits->act_key : "hidden_act",
                      traits->act != NULL ? traits->act : "silu", out);
}

static void decoder_read_heads(dpt_config *in, const dpt_decoder_traits *traits, dpt_arch *c) {
    int64_t width = c->length[DPT_AXIS_WIDTH];
    if (c->heads % c->kv_heads != 0)
        dpt_config_reject(in, "num_key_value_heads", "a divisor of num_attention_heads");
    bool own = traits->head_dim > 0 || dpt_config_get(in, "head_dim") != NULL;
    if (!own && width % c->heads != 0)
        dpt_config_reject(in, "hidden_size", "a multiple of num_attention_heads, or head_dim");
    c->head_dim = dpt_config_integer(in, "head_dim", 2, 1 << 14,
                                     traits->head_dim > 0 ? traits->head_dim : width / c->heads);
    if (c->head_dim % 2 != 0 || c->head_dim < 2 || c->head_dim > 1 << 14)
        dpt_config_reject(in, own ? "head_dim" : "hidden_size", "an even width of a head");
    c->length[DPT_AXIS_HEAD_DIM] = c->head_dim;
    c->length[DPT_AXIS_HEADS] = c->heads * c->head_dim;
    c->length[DPT_AXIS_KV_HEADS] = c->kv_heads * c->head_dim;
}

/* @param[in] default_value  0: the key is required. */
static int64_t decoder_read_size(dpt_config *in, const char *key, int64_t upper,
                                 int64_t default_value) {
    return default_value > 0 ? dpt_config_integer(in, key, 1, upper, default_value)
                             : dpt_config_need_integer(in, key, 1, upper);
}

static void decoder_read_widths(dpt_config *in, const dpt_decoder_traits *traits, dpt_arch *c) {
    const dpt_decoder_sizes *sizes = &traits->sizes;
    c->length[DPT_AXIS_VOCABULARY] =
        decoder_read_size(in, "vocab_size", INT32_MAX, sizes->vocabulary);
    c->length[DPT_AXIS_WIDTH] = decoder_read_size(in, "hidden_size", WIDTH_MAX, sizes->width);
    c->length[DPT_AXIS_UNITS] = decoder_read_size(in, "intermediate_size", WIDTH_MAX, sizes->units);
    c->layers = decoder_read_size(in, "num_hidden_layers", LAYERS_MAX, sizes->layers);
    c->heads = decoder_read_size(in, "num_attention_heads", 1 << 16, sizes->heads);
    c->kv_heads = dpt_config_integer(in, "num_key_value_heads", 1, 1 << 16,
                                     sizes->kv_heads > 0 ? sizes->kv_heads : c->heads);
    c->max_positions =
        dpt_config_integer(in, "max_position_embeddings", 1, POSITIONS_MAX, traits->max_positions);
    c->norm = traits->norm;
    c->eps = dpt_config_number(in, traits->eps_key != NULL ? traits->eps_key : "rms_norm_eps", 0.0,
                               1.0, traits->eps > 0.0 ? traits->eps : 1e-6);
    c->tied = dpt_config_bool(in, "tie_word_embeddings", traits->tied);
    if (in->status == DPT_OK)
        decoder_read_heads(in, traits, c);
}

/* Options of the rows: what the family always has, and what its keys switch on. */
static unsigned decoder_read_biases(dpt_config *in, const dpt_decoder_traits *traits) {
    unsigned options = traits->options;
    if (dpt_config_bool(in, "attention_bias", traits->attention_bias)) {
        options |= traits->by_attention_bias;
        if (traits->by_attention_bias == 0 && (options & DPT_OPTION_QKV_BIAS) == 0)
            dpt_config_reject(in, "attention_bias", "false for this architecture");
    }
    if (dpt_config_bool(in, "mlp_bias", false)) {
        options |= traits->by_mlp_bias;
        if (traits->by_mlp_bias == 0)
            dpt_config_reject(in, "mlp_bias", "false for this architecture");
    }
    return options;
}

/* Entries of layer_types override the rule of the family where it has such a key. */
static void decoder_read_layer_types(dpt_config *in, const dpt_decoder_traits *traits,
                                     int64_t window, dpt_arch *c) {
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
        if ((traits->window == DPT_WINDOW_NONE || traits->window == DPT_WINDOW_ALL) &&
            wanted != c->window[l]) {
            dpt_config_reject(in, "layer_types", "the same attention in all layers");
            return;
        }
        c->window[l] = wanted;
    }
}

static void decoder_read_windows(dpt_config *in, const dpt_decoder_traits *traits, dpt_arch *c) {
    c->window = dpt_mem_zalloc(c->layers, sizeof *c->window, "attention windows");
    if (c->window == NULL) {
        in->status = DPT_ERR_OUTPUT;
        return;
    }
    /* An explicit null switches the window off; an absent key means the family's default. */
    bool present = json_object_get(in->object, "sliding_window") != NULL;
    int64_t window = dpt_config_integer(in, "sliding_window", 1, POSITIONS_MAX,
                                        present ? 0 : traits->window_default);
    int64_t from = 0, period = traits->window_period;
    if ((traits->window == DPT_WINDOW_FROM || traits->window == DPT_WINDOW_SWITCHED ||
         traits->window == DPT_WINDOW_UNROTATED) &&
        !dpt_config_bool(in, "use_sliding_window", false))
        window = 0;
    if (traits->window == DPT_WINDOW_FROM)
        from = dpt_config_integer(in, "max_window_layers", 0, LAYERS_MAX, 28);
    if (traits->window == DPT_WINDOW_PERIOD &&
        dpt_family_takes(c->family, "sliding_window_pattern"))
        period = dpt_config_integer(in, "sliding_window_pattern", 1, LAYERS_MAX, period);
    for (int64_t l = 0; l < c->layers; l++) {
        bool slides[] = {
            [DPT_WINDOW_NONE] = false,
            [DPT_WINDOW_ALL] = true,
            [DPT_WINDOW_SWITCHED] = true,
            [DPT_WINDOW_FROM] = l >= from,
            [DPT_WINDOW_PERIOD] = period > 0 && (l + 1) % period != 0,
            [DPT_WINDOW_UNROTATED] = c->rope_of != NULL && c->rope_of[l] < 0,
        };
        c->window[l] = slides[traits->window] ? window : 0;
    }
    decoder_read_layer_types(in, traits, window, c);
}

void dpt_decoder_read(dpt_config *in, const dpt_decoder_traits *traits, dpt_arch *out) {
    out->causal = true;
    decoder_read_options(in, traits, out);
    decoder_read_widths(in, traits, out);
    unsigned options = decoder_read_biases(in, traits);
    if (in->status == DPT_OK && traits->window != DPT_WINDOW_UNROTATED)
        decoder_read_windows(in, traits, out);
    if (in->status == DPT_OK)
        dpt_decoder_read_rope(in, &traits->rope, out);
    if (in->status == DPT_OK && traits->window == DPT_WINDOW_UNROTATED)
        decoder_read_windows(in, traits, out);
    options |= out->tied ? 0 : DPT_OPTION_HEAD;
    if (traits->rows != NULL)
        dpt_arch_add(out, traits->rows, traits->row_count, options);
    else
        dpt_arch_add(out, decoder_rows, sizeof decoder_rows / sizeof decoder_rows[0], options);
}

bool dpt_decoder_ignores(const dpt_arch *arch, const char *name) {
    const char *end = strrchr(name, '.');
    (void)arch;
    return end != NULL && strcmp(end, ".inv_freq") == 0;
}
