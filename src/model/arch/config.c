#include "config.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

dpt_status dpt_config_parse(const char *text, json_t **out) {
    *out = NULL;
    if (text == NULL)
        return dpt_error(DPT_ERR_INPUT, "model: there is no config.json: put the model's "
                                        "configuration next to its weights");
    json_error_t at;
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &at);
    if (root == NULL)
        return dpt_error(DPT_ERR_INPUT, "config.json:%d:%d: %s: fix the JSON", at.line, at.column,
                         at.text);
    if (!json_is_object(root)) {
        json_decref(root);
        return dpt_error(DPT_ERR_INPUT,
                         "config.json: is not an object: copy the model's file again");
    }
    *out = root;
    return DPT_OK;
}

/* Where transformers ties the head when either key says so: LLaVA and what came from it. */
static bool config_ties_by_either(const json_t *root) {
    static const char *const types[] = {"llava",    "llava_next_video", "llava_onevision",
                                        "fast_vlm", "video_llama_3",    "shieldgemma2"};
    const char *type = json_string_value(json_object_get(root, "model_type"));
    for (size_t i = 0; type != NULL && i < sizeof types / sizeof types[0]; i++)
        if (strcmp(type, types[i]) == 0)
            return true;
    return false;
}

bool dpt_config_take_text(json_t **root) {
    static const char wrapper[] = "ForConditionalGeneration";
    json_t *text = json_object_get(*root, "text_config");
    const char *outer =
        json_string_value(json_array_get(json_object_get(*root, "architectures"), 0));
    size_t n = outer != NULL ? strlen(outer) : 0, m = strlen(wrapper);
    if (!json_is_object(text) || n < m || strcmp(outer + n - m, wrapper) != 0)
        return false;
    /* The head is that of the outer model, whose key stands before that of the text model. */
    json_t *tied = json_object_get(*root, "tie_word_embeddings");
    bool inner = json_is_true(json_object_get(text, "tie_word_embeddings"));
    if (tied != NULL && !(inner && config_ties_by_either(*root)))
        (void)json_object_set(text, "tie_word_embeddings", tied); /* without memory: as the file */
    json_incref(text);
    json_decref(*root);
    *root = text;
    return true;
}

const json_t *dpt_config_get(const dpt_config *config, const char *key) {
    const json_t *value = json_object_get(config->object, key);
    return json_is_null(value) ? NULL : value;
}

bool dpt_config_is_off(const json_t *value) {
    if (value == NULL || json_is_false(value))
        return true;
    double number = json_number_value(value);
    return json_is_number(value) && (number == 0.0 || number == 1.0);
}

#define MISSING                                                                                    \
    "is missing: copy the model's whole config.json; where the text_config of a multimodal model " \
    "leaves out its family's defaults, write them into it"
#define COPY_AGAIN ": copy the file again"

static void config_fail(dpt_config *config, const char *key, const char *what) {
    if (config->status == DPT_OK)
        config->status = dpt_error(DPT_ERR_INPUT, "%s: %s %s", config->where, key, what);
}

int64_t dpt_config_integer(dpt_config *config, const char *key, int64_t lower, int64_t upper,
                           int64_t default_value) {
    const json_t *value = dpt_config_get(config, key);
    if (value == NULL)
        return default_value;
    int64_t number = json_integer_value(value);
    if (json_is_integer(value) && number >= lower && number <= upper)
        return number;
    char what[128];
    snprintf(what, sizeof what, "must be an integer from %" PRId64 " to %" PRId64 COPY_AGAIN, lower,
             upper);
    config_fail(config, key, what);
    return default_value;
}

int64_t dpt_config_need_integer(dpt_config *config, const char *key, int64_t lower, int64_t upper) {
    if (dpt_config_get(config, key) == NULL)
        config_fail(config, key, MISSING);
    return dpt_config_integer(config, key, lower, upper, lower);
}

double dpt_config_number(dpt_config *config, const char *key, double above, double below,
                         double default_value) {
    const json_t *value = dpt_config_get(config, key);
    if (value == NULL) {
        if (isnan(default_value))
            config_fail(config, key, MISSING);
        return default_value;
    }
    double number = json_number_value(value);
    if (json_is_number(value) && number > above && number < below)
        return number;
    char what[128];
    snprintf(what, sizeof what, "must be a number above %g and below %g" COPY_AGAIN, above, below);
    config_fail(config, key, what);
    return default_value;
}

bool dpt_config_bool(dpt_config *config, const char *key, bool default_value) {
    const json_t *value = dpt_config_get(config, key);
    if (value == NULL)
        return default_value;
    if (!json_is_boolean(value))
        config_fail(config, key, "must be true or false" COPY_AGAIN);
    return json_is_true(value);
}

const char *dpt_config_string(dpt_config *config, const char *key, const char *default_value) {
    const json_t *value = dpt_config_get(config, key);
    if (value == NULL)
        return default_value;
    if (!json_is_string(value)) {
        config_fail(config, key, "must be a string" COPY_AGAIN);
        return default_value;
    }
    return json_string_value(value);
}

void dpt_config_reject(dpt_config *config, const char *key, const char *supported) {
    if (config->status != DPT_OK)
        return;
    char *value = json_dumps(json_object_get(config->object, key), JSON_ENCODE_ANY | JSON_COMPACT);
    config->status = dpt_error(DPT_ERR_INPUT,
                               "%s: %s %.64s is not supported: gradients need %s; edits alone "
                               "work without `data` in the job",
                               config->where, key, value != NULL ? value : "?", supported);
    free(value);
}

void dpt_config_reject_quantised(dpt_config *config) {
    static const char key[] = "quantization_config";
    const json_t *value = dpt_config_get(config, key);
    bool empty = json_is_object(value) && json_object_size(value) == 0;
    if (value != NULL && !empty)
        dpt_config_reject(config, key, "this key taken out, which was left next to plain weights");
}

void dpt_config_compare(char *text, size_t size, const char *key, double a, double b) {
    size_t used = strlen(text);
    if (a != b)
        snprintf(text + used, size - used, "%s%s (%.9g and %.9g)", used > 0 ? ", " : "", key, a, b);
}
