#include "decoder_rope.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { ROPE_POSITIONS_MAX = 1 << 30, ROPE_INTERVAL_MAX = 1 << 16 };

#define ROPE_NUMBER_MAX 1e15
#define ROPE_ORIGINAL   "original_max_position_embeddings"

/* One setting while it is read. */
typedef struct rope_reader {
    dpt_config *in;    /* config.json */
    dpt_config inside; /* the object of the setting; empty without one */
    const dpt_rope_traits *traits;
    const dpt_arch *arch;
} rope_reader;

/* Of a key inside the setting and one outside that disagree, versions of transformers differ in which one they take. */
static void rope_reject_outside(rope_reader *r, const char *key) {
    char needed[80];
    const char *where = strrchr(r->inside.where, ' ');
    snprintf(needed, sizeof needed, "that of %s", where != NULL ? where + 1 : r->inside.where);
    dpt_config_reject(r->in, key, needed);
}

/* A number inside the setting, or outside under a name of its own. */
static double rope_read_either(rope_reader *r, const char *key, const char *outer_key, double above,
                               double default_value) {
    double outer = dpt_config_number(r->in, outer_key, above, ROPE_NUMBER_MAX, default_value);
    double inner = dpt_config_number(&r->inside, key, above, ROPE_NUMBER_MAX, outer);
    if (dpt_config_get(r->in, outer_key) != NULL && inner != outer)
        rope_reject_outside(r, outer_key);
    return inner;
}

/* Of a family with a name of its own, files may have the usual one besides. */
static void rope_check_usual(rope_reader *r, const char *key, double value, const char *own) {
    char needed[80];
    snprintf(needed, sizeof needed, "that of %s", own);
    if (dpt_config_number(r->in, key, 0.0, ROPE_NUMBER_MAX, value) != value)
        dpt_config_reject(r->in, key, needed);
}

/* 0 where the key is absent or 0. */
static double rope_read_optional(dpt_config *inside, const char *key) {
    const json_t *value = dpt_config_get(inside, key);
    bool absent = value == NULL || (json_is_number(value) && json_number_value(value) == 0.0);
    return absent ? 0.0 : dpt_config_number(inside, key, 0.0, ROPE_NUMBER_MAX, 0.0);
}

static double rope_read_need(dpt_config *inside, const char *key) {
    return dpt_config_number(inside, key, 0.0, ROPE_NUMBER_MAX, NAN);
}

/* Rotated width of a head: a share of it, rounded down. */
static int64_t rope_read_dim(rope_reader *r) {
    const char *key = "partial_rotary_factor", *outer_key = r->traits->partial_key;
    double share = 1.0;
    if (outer_key == NULL) {
        if (!dpt_config_is_off(dpt_config_get(&r->inside, key)))
            dpt_config_reject(&r->inside, key, "1");
        return r->arch->head_dim;
    }
    share = rope_read_either(r, key, outer_key, 0.0,
                             r->traits->partial > 0.0 ? r->traits->partial : 1.0);
    rope_check_usual(r, key, share, outer_key);
    if (share > 1.0)
        dpt_config_reject(dpt_config_get(&r->inside, key) != NULL ? &r->inside : r->in,
                          dpt_config_get(&r->inside, key) != NULL ? key : outer_key, "at most 1");
    return (int64_t)((double)r->arch->head_dim * (share > 1.0 ? 1.0 : share));
}

/* The context before the scaling. Outside of the setting, some versions of transformers take it and others do not. */
static void rope_read_original(rope_reader *r, int64_t lower, dpt_rope_params *rope) {
    bool outside = r->traits->longrope_positions > 0;
    int64_t outer = dpt_config_integer(r->in, ROPE_ORIGINAL, lower, ROPE_POSITIONS_MAX,
                                       r->traits->longrope_positions);
    int64_t inner = dpt_config_integer(&r->inside, ROPE_ORIGINAL, lower, ROPE_POSITIONS_MAX,
                                       outside ? outer : r->arch->max_positions);
    if (outside && inner != outer)
        dpt_config_reject(&r->inside, ROPE_ORIGINAL, "that of config.json itself");
    else if (dpt_config_get(r->in, ROPE_ORIGINAL) != NULL && inner != outer)
        rope_reject_outside(r, ROPE_ORIGINAL);
    rope->original_max_position = inner;
}

static void rope_read_llama3(rope_reader *r, dpt_rope_params *rope) {
    rope->factor = rope_read_need(&r->inside, "factor");
    rope->low_freq_factor = rope_read_need(&r->inside, "low_freq_factor");
    rope->high_freq_factor = rope_read_need(&r->inside, "high_freq_factor");
    dpt_config_need_integer(&r->inside, ROPE_ORIGINAL, 1, ROPE_POSITIONS_MAX);
    rope_read_original(r, 1, rope);
    if (r->inside.status == DPT_OK && !(rope->high_freq_factor > rope->low_freq_factor))
        dpt_config_reject(&r->inside, "high_freq_factor", "a value above low_freq_factor");
}

static void rope_read_yarn(rope_reader *r, dpt_rope_params *rope) {
    dpt_config *inside = &r->inside;
    rope_read_original(r, 1, rope);
    /* An explicit null is the ratio of the contexts. */
    bool ratio = json_is_null(json_object_get(inside->object, "factor"));
    rope->factor = ratio ? (double)r->arch->max_positions / (double)rope->original_max_position
                         : rope_read_need(inside, "factor");
    rope->attention_factor =
        dpt_config_number(inside, "attention_factor", 0.0, ROPE_NUMBER_MAX, 0.0);
    rope->mscale = rope_read_optional(inside, "mscale");
    rope->mscale_all_dim = rope_read_optional(inside, "mscale_all_dim");
    rope->beta_fast = rope_read_optional(inside, "beta_fast");
    rope->beta_slow = rope_read_optional(inside, "beta_slow");
    if (rope->beta_fast == 0.0)
        rope->beta_fast = 32.0;
    if (rope->beta_slow == 0.0)
        rope->beta_slow = 1.0;
    rope->truncate = dpt_config_bool(inside, "truncate", true);
    /* transformers 5 looks for the key next to the settings, where it is not. */
    if (r->traits->by_type && !rope->truncate)
        dpt_config_reject(inside, "truncate", "true");
    if (rope->dim % 2 != 0)
        dpt_config_reject(inside, "partial_rotary_factor", "an even width that is rotated");
}

/* One divisor a frequency. */
static float *rope_read_divisors(dpt_config *inside, const char *key, int64_t n) {
    const json_t *list = dpt_config_get(inside, key);
    char needed[64];
    snprintf(needed, sizeof needed, "a list of %d numbers above 0", (int)n);
    if (!json_is_array(list) || (int64_t)json_array_size(list) != n) {
        dpt_config_reject(inside, key, needed);
        return NULL;
    }
    float *out = dpt_mem_alloc(n, sizeof *out, "rotary factors");
    if (out == NULL)
        inside->status = DPT_ERR_OUTPUT;
    for (int64_t i = 0; out != NULL && i < n; i++) {
        double value = json_number_value(json_array_get(list, (size_t)i));
        if (!(value > 0.0 && value < ROPE_NUMBER_MAX))
            dpt_config_reject(inside, key, needed);
        out[i] = (float)value;
    }
    return out;
}

static void rope_read_longrope(rope_reader *r, dpt_rope_params *rope) {
    dpt_config *inside = &r->inside;
    int64_t half = dpt_nn_rope_half(rope);
    rope_read_original(r, 2, rope);
    rope->short_factor = rope_read_divisors(inside, "short_factor", half);
    rope->long_factor = rope_read_divisors(inside, "long_factor", half);
    rope->attention_factor =
        dpt_config_number(inside, "attention_factor", 0.0, ROPE_NUMBER_MAX, 0.0);
    rope->factor = rope_read_optional(inside, "factor");
    if (rope->factor == 0.0)
        rope->factor = (double)r->arch->max_positions / (double)rope->original_max_position;
    if (rope->attention_factor > 0.0)
        rope->factor = 0.0; /* of no effect */
}

static const char *const rope_names[] = {
    [DPT_ROPE_DEFAULT] = "default", [DPT_ROPE_LINEAR] = "linear", [DPT_ROPE_DYNAMIC] = "dynamic",
    [DPT_ROPE_LLAMA3] = "llama3",   [DPT_ROPE_YARN] = "yarn",     [DPT_ROPE_LONGROPE] = "longrope"};

static dpt_rope_kind rope_read_kind(rope_reader *r) {
    bool longrope = r->traits->longrope_positions > 0;
    const char *key = dpt_config_get(&r->inside, "rope_type") != NULL ? "rope_type" : "type";
    const char *name = dpt_config_string(&r->inside, key, "default");
    if (longrope && (strcmp(name, "su") == 0 || strcmp(name, "yarn") == 0))
        return DPT_ROPE_LONGROPE; /* its older names */
    for (int kind = 0; kind < (int)(sizeof rope_names / sizeof *rope_names); kind++)
        if (strcmp(name, rope_names[kind]) == 0 &&
            (!longrope || kind == DPT_ROPE_DEFAULT || kind == DPT_ROPE_LONGROPE))
            return (dpt_rope_kind)kind;
    dpt_config_reject(
        &r->inside, key,
        longrope ? "\"default\" or \"longrope\""
                 : "\"default\", \"linear\", \"dynamic\", \"llama3\", \"yarn\" or \"longrope\"");
    return DPT_ROPE_DEFAULT;
}

static void rope_read_dynamic(rope_reader *r, dpt_rope_params *rope) {
    rope->factor = rope_read_need(&r->inside, "factor");
    rope->original_max_position = r->arch->max_positions;
    if (rope->dim <= 2)
        dpt_config_reject(&r->inside, "rope_type", "a rotated width above 2");
}

/* Kind and scaling; the base is the caller's. */
static void rope_read_scaling(rope_reader *r, dpt_rope_params *rope) {
    rope->kind = rope_read_kind(r);
    rope->dim = rope_read_dim(r);
    switch (rope->kind) {
    case DPT_ROPE_DEFAULT:
        break;
    case DPT_ROPE_LINEAR:
        rope->factor = rope_read_need(&r->inside, "factor");
        break;
    case DPT_ROPE_DYNAMIC:
        rope_read_dynamic(r, rope);
        break;
    case DPT_ROPE_LLAMA3:
        rope_read_llama3(r, rope);
        break;
    case DPT_ROPE_YARN:
        rope_read_yarn(r, rope);
        break;
    case DPT_ROPE_LONGROPE:
        rope_read_longrope(r, rope);
        break;
    }
}

/* The setting of all layers, or of those that attend to all. */
static void rope_read_first(rope_reader r, dpt_rope_params *rope) {
    const dpt_rope_params *scaling = r.inside.object == NULL ? r.traits->scaling : NULL;
    rope_read_scaling(&r, rope);
    if (scaling != NULL) {
        *rope = *scaling;
        rope->dim = r.arch->head_dim;
    }
    const char *key = r.traits->theta_key != NULL ? r.traits->theta_key : "rope_theta";
    rope->theta = rope_read_either(&r, "rope_theta", key, 1.0,
                                   r.traits->theta > 0.0 ? r.traits->theta : 10000.0);
    rope_check_usual(&r, "rope_theta", rope->theta, key);
    r.in->status = dpt_status_worse(r.in->status, r.inside.status);
}

/* The setting of the layers with a window. */
static void rope_read_sliding(rope_reader r, dpt_rope_params *rope) {
    const char *key = r.traits->sliding_theta_key;
    double theta = r.traits->sliding_theta;
    rope_read_scaling(&r, rope);
    if (key != NULL) {
        rope->theta = rope_read_either(&r, "rope_theta", key, 1.0, theta);
    } else {
        rope->theta = dpt_config_number(&r.inside, "rope_theta", 1.0, ROPE_NUMBER_MAX, theta);
        /* transformers 4 takes the base outside for these layers too, and 5 does not. */
        if (dpt_config_get(&r.inside, "rope_theta") == NULL &&
            dpt_config_number(r.in, "rope_theta", 1.0, ROPE_NUMBER_MAX, theta) != theta)
            dpt_config_reject(r.in, "rope_theta", "rope_parameters with sliding_attention");
    }
    r.in->status = dpt_status_worse(r.in->status, r.inside.status);
}

/* The member of an object of settings by kind of layer; NULL: default. */
static const json_t *rope_setting(dpt_config *in, const json_t *object, const char *name) {
    const char *inner;
    const json_t *value;
    json_object_foreach((json_t *)object, inner, value) {
        bool known =
            strcmp(inner, "full_attention") == 0 || strcmp(inner, "sliding_attention") == 0;
        if (!known || !(json_is_object(value) || json_is_null(value)))
            dpt_config_reject(in, "rope_parameters", "full_attention and sliding_attention in it");
    }
    value = json_object_get(object, name);
    return json_is_object(value) ? value : NULL;
}

static bool rope_is_one_setting(const json_t *object) {
    const char *inner;
    const json_t *value;
    json_object_foreach((json_t *)object, inner, value) {
        if (json_is_object(value))
            return false;
    }
    return true;
}

/* rope_parameters holds theta and scaling (transformers 5), by kind of layer in a family that has kinds; rope_scaling
 * holds the scaling alone, with rope_theta next to it (before). */
static void rope_read_settings(dpt_config *in, const dpt_rope_traits *traits, dpt_arch *out) {
    const json_t *scaling = dpt_config_get(in, "rope_scaling");
    const json_t *object = dpt_config_get(in, "rope_parameters");
    const char *key = object != NULL ? "rope_parameters" : "rope_scaling";
    bool by_type = object != NULL && traits->by_type;
    bool both =
        object != NULL && scaling != NULL && !json_equal((json_t *)scaling, (json_t *)object);
    object = object != NULL ? object : scaling;
    if (object != NULL && !json_is_object(object))
        dpt_config_reject(in, key, "an object or null");
    else if (object != NULL && !by_type && !rope_is_one_setting(object))
        dpt_config_reject(in, key, "one rotary setting for all layers");
    rope_reader r = {.in = in, .traits = traits, .arch = out, .inside.object = object};
    r.inside.where =
        object == scaling ? "config.json: rope_scaling" : "config.json: rope_parameters";
    if (by_type) {
        r.inside.object = rope_setting(in, object, "full_attention");
        r.inside.where = "config.json: rope_parameters.full_attention";
    }
    if (in->status == DPT_OK)
        rope_read_first(r, &out->rope[0]);
    r.inside.object = by_type ? rope_setting(in, object, "sliding_attention") : NULL;
    r.inside.where = "config.json: rope_parameters.sliding_attention";
    if (in->status == DPT_OK && traits->by_type)
        rope_read_sliding(r, &out->rope[1]);
    /* Of the two, transformers takes rope_scaling and drops the other with its theta. */
    if (both)
        dpt_config_reject(in, "rope_scaling", "one of rope_parameters and rope_scaling, not both");
}

/* Whether no_rope_layers, or else the interval, has a layer rotate. */
static bool rope_turns(dpt_config *in, const json_t *layers, int64_t interval, int64_t layer) {
    const json_t *value = json_array_get(layers, (size_t)layer);
    if (layers == NULL)
        return (layer + 1) % interval != 0;
    if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > 1)
        dpt_config_reject(in, "no_rope_layers", "a list of 0 and 1, one a layer");
    return json_integer_value(value) == 1;
}

static void rope_read_layers(dpt_config *in, const dpt_rope_traits *traits, dpt_arch *out) {
    int64_t interval = 0;
    const json_t *layers = dpt_config_get(in, "no_rope_layers");
    if (traits->no_rope_interval > 0)
        interval = dpt_config_integer(in, "no_rope_layer_interval", 1, ROPE_INTERVAL_MAX,
                                      traits->no_rope_interval);
    if (interval == 0 && !traits->by_type)
        return;
    out->rope_of = dpt_mem_zalloc(out->layers, sizeof *out->rope_of, "rotary settings");
    if (out->rope_of == NULL)
        in->status = DPT_ERR_OUTPUT;
    for (int64_t l = 0; out->rope_of != NULL && l < out->layers; l++) {
        if (traits->by_type && out->window[l] > 0)
            out->rope_of[l] = 1;
        if (interval > 0 && !rope_turns(in, layers, interval, l))
            out->rope_of[l] = -1;
    }
}

/* Keys that the family does not have would change what it computes elsewhere. */
static void rope_reject_foreign(dpt_config *in, const dpt_rope_traits *traits) {
    const char *const own[] = {traits->theta_key,
                               traits->partial_key,
                               traits->partial_key != NULL ? "partial_rotary_factor" : NULL,
                               traits->sliding_theta_key,
                               traits->no_rope_interval > 0 ? "no_rope_layers" : NULL,
                               traits->no_rope_interval > 0 ? "no_rope_layer_interval" : NULL};
    static const char *const keys[] = {
        "rotary_emb_base", "rotary_pct",      "partial_rotary_factor",  "rope_local_base_freq",
        "no_rope_layers",  "rope_interleave", "no_rope_layer_interval", "rope_interleaved"};
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
        bool has = dpt_config_is_off(dpt_config_get(in, keys[k]));
        for (size_t i = 0; i < sizeof own / sizeof *own; i++)
            has = has || (own[i] != NULL && strcmp(own[i], keys[k]) == 0);
        if (!has)
            dpt_config_reject(in, keys[k], "a model without this option");
    }
}

/* transformers sets no limit to the length of a sequence. We take the context that the factor is meant for. */
static int64_t rope_extend(int64_t positions, double factor) {
    double longer = fmin((double)positions * factor, ROPE_POSITIONS_MAX);
    return factor > 1.0 ? (int64_t)longer : positions;
}

/* Of `yarn` published files give the context before the scaling or the one after it in max_position_embeddings; the
 * former is next to the factor. */
static void rope_extend_context(dpt_arch *out) {
    const dpt_rope_params *rope = &out->rope[0];
    int64_t longer = out->max_positions;
    if (rope->kind == DPT_ROPE_DYNAMIC || rope->kind == DPT_ROPE_LINEAR)
        longer = rope_extend(out->max_positions, rope->factor);
    else if (rope->kind == DPT_ROPE_YARN)
        longer = rope_extend(rope->original_max_position, rope->factor);
    if (longer > out->max_positions)
        out->max_positions = longer;
}

void dpt_decoder_read_rope(dpt_config *in, const dpt_rope_traits *traits, dpt_arch *out) {
    rope_reject_foreign(in, traits);
    if (in->status == DPT_OK)
        rope_read_settings(in, traits, out);
    if (in->status == DPT_OK)
        rope_read_layers(in, traits, out);
    if (in->status == DPT_OK)
        rope_extend_context(out);
}

static void rope_compare_divisors(int64_t n, const float *a, const float *b, const char *name,
                                  char *text, size_t size) {
    char key[64];
    for (int64_t i = 0; i < n; i++) {
        snprintf(key, sizeof key, "%s %d", name, (int)i);
        if (a[i] != b[i]) {
            dpt_config_compare(text, size, key, (double)a[i], (double)b[i]);
            return;
        }
    }
}

static void rope_compare_setting(const dpt_rope_params *a, const dpt_rope_params *b,
                                 const char *of_which, char *text, size_t size) {
    const struct {
        const char *key;
        double a, b;
    } numbers[] = {
        {"rope_theta", a->theta, b->theta},
        {"rotated width of a head", (double)a->dim, (double)b->dim},
        {"factor of the rotary scaling", a->factor, b->factor},
        {"low_freq_factor", a->low_freq_factor, b->low_freq_factor},
        {"high_freq_factor", a->high_freq_factor, b->high_freq_factor},
        {"original_max_position_embeddings", (double)a->original_max_position,
         (double)b->original_max_position},
        {"beta_fast", a->beta_fast, b->beta_fast},
        {"beta_slow", a->beta_slow, b->beta_slow},
        {"truncate", a->truncate, b->truncate},
        {"attention_factor", dpt_nn_rope_scale(a), dpt_nn_rope_scale(b)},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        char key[64];
        snprintf(key, sizeof key, "%s%s", numbers[i].key, of_which);
        dpt_config_compare(text, size, key, numbers[i].a, numbers[i].b);
    }
    size_t used = strlen(text);
    if (a->kind != b->kind)
        snprintf(text + used, size - used, "%srope_type%s (%s and %s)", used > 0 ? ", " : "",
                 of_which, rope_names[a->kind], rope_names[b->kind]);
    if (a->kind != DPT_ROPE_LONGROPE || b->kind != DPT_ROPE_LONGROPE || a->dim != b->dim)
        return;
    int64_t half = dpt_nn_rope_half(a);
    rope_compare_divisors(half, a->short_factor, b->short_factor, "short_factor", text, size);
    rope_compare_divisors(half, a->long_factor, b->long_factor, "long_factor", text, size);
}

void dpt_decoder_compare_rope(const dpt_arch *a, const dpt_arch *b, char *text, size_t size) {
    static const char *const of_which[DPT_ROPES] = {"", " of layers with a window"};
    for (int r = 0; r < DPT_ROPES; r++)
        rope_compare_setting(&a->rope[r], &b->rope[r], of_which[r], text, size);
    for (int64_t l = 0; l < a->layers && l < b->layers; l++) {
        int first = a->rope_of != NULL ? a->rope_of[l] : 0;
        int second = b->rope_of != NULL ? b->rope_of[l] : 0;
        char key[64];
        snprintf(key, sizeof key, "rotary setting of layer %d", (int)l);
        if (first != second) {
            dpt_config_compare(text, size, key, first, second);
            return;
        }
    }
}
