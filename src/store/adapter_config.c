#include "adapter.h"

#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>

/* adapter_config.json of PEFT. Its patterns are Python's regular expressions; those are taken that mean the same in
 * POSIX, which are all that name modules. */

enum { RANK_MAX = 1 << 20, PATTERN_BYTES = 512, CLASS_BYTES = 5 };

/* Options that would change the weights in another way, unless they are off. */
static const char *const adapter_foreign[] = {"use_dora",
                                              "lora_bias",
                                              "use_qalora",
                                              "use_bdlora",
                                              "kasa_config",
                                              "velora_config",
                                              "arrow_config",
                                              "monteclora_config",
                                              "megatron_config",
                                              "layer_replication",
                                              "target_parameters",
                                              "trainable_token_indices",
                                              "alora_invocation_tokens"};

/* Options that are read, or change nothing of what an adapter's file says. */
static const char *const adapter_known[] = {"peft_type",
                                            "task_type",
                                            "auto_mapping",
                                            "peft_version",
                                            "revision",
                                            "inference_mode",
                                            "target_modules",
                                            "base_model_name_or_path",
                                            "exclude_modules",
                                            "lora_dropout",
                                            "modules_to_save",
                                            "layers_to_transform",
                                            "layers_pattern",
                                            "megatron_core",
                                            "loftq_config",
                                            "eva_config",
                                            "corda_config",
                                            "lora_ga_config",
                                            "runtime_config",
                                            "qalora_group_size",
                                            "r",
                                            "lora_alpha",
                                            "use_rslora",
                                            "fan_in_fan_out",
                                            "bias",
                                            "init_lora_weights",
                                            "rank_pattern",
                                            "alpha_pattern",
                                            "ensure_weight_tying"};

static bool adapter_is_off(const json_t *value) {
    return value == NULL || json_is_null(value) || json_is_false(value) ||
           (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0);
}

static dpt_status adapter_refuse(const dpt_store_adapter_options *o, const char *key,
                                 const char *wanted) {
    char *value = json_dumps(json_object_get(o->root, key), JSON_ENCODE_ANY | JSON_COMPACT);
    dpt_status st = dpt_error(DPT_ERR_INPUT,
                              "%s: %s %.64s is not supported: %s, or merge the adapter with PEFT "
                              "and give the merged model",
                              o->path, key, value != NULL ? value : "(none)", wanted);
    free(value);
    return st;
}

static dpt_status adapter_check_kind(const dpt_store_adapter_options *o) {
    static const char *const plain[] = {"gaussian", "eva", "orthogonal", "true", "false", ""};
    static const char *const biases[] = {"none", "all", "lora_only"};
    const char *type = json_string_value(json_object_get(o->root, "peft_type"));
    if (type == NULL || strcmp(type, "LORA") != 0)
        return adapter_refuse(o, "peft_type", "give a LORA adapter");
    for (size_t i = 0; i < sizeof adapter_foreign / sizeof adapter_foreign[0]; i++)
        if (!adapter_is_off(json_object_get(o->root, adapter_foreign[i])))
            return adapter_refuse(o, adapter_foreign[i], "give an adapter without it");
    /* Others start from a base that they have changed (PiSSA, OLoRA, CorDA, LoftQ): its file alone is no sum. */
    const char *init = json_string_value(json_object_get(o->root, "init_lora_weights"));
    bool good = init == NULL;
    for (size_t i = 0; i < sizeof plain / sizeof plain[0] && !good; i++)
        good = strcasecmp(init, plain[i]) == 0;
    if (!good)
        return adapter_refuse(o, "init_lora_weights",
                              "save it with path_initial_model_for_weight_conversion");
    const char *bias = json_string_value(json_object_get(o->root, "bias"));
    good = bias == NULL;
    for (size_t i = 0; i < sizeof biases / sizeof biases[0] && !good; i++)
        good = strcmp(bias, biases[i]) == 0;
    return good ? DPT_OK : adapter_refuse(o, "bias", "it is none, all or lora_only");
}

static void adapter_warn_unknown(const dpt_store_adapter_options *o) {
    const char *key;
    json_t *value;
    json_object_foreach(o->root, key, value) {
        bool known = adapter_is_off(value);
        for (size_t i = 0; i < sizeof adapter_known / sizeof adapter_known[0] && !known; i++)
            known = strcmp(key, adapter_known[i]) == 0;
        if (!known)
            dpt_log(DPT_LOG_WARN,
                    "%s: whether %.64s changes what the adapter does is not known: it is not read",
                    o->path, key);
    }
}

static dpt_status adapter_read_rank(const dpt_store_adapter_options *o, const char *key,
                                    const json_t *value, int64_t *rank) {
    int64_t number = json_integer_value(value);
    *rank = number;
    if (json_is_integer(value) && number >= 1 && number <= RANK_MAX)
        return DPT_OK;
    return dpt_error(DPT_ERR_INPUT, "%s: %.200s must be a rank, an integer from 1 to %d", o->path,
                     key, (int)RANK_MAX);
}

static dpt_status adapter_read_alpha(const dpt_store_adapter_options *o, const char *key,
                                     const json_t *value, double *alpha) {
    *alpha = json_number_value(value);
    if (json_is_number(value) && fabs(*alpha) <= 1e30)
        return DPT_OK;
    return dpt_error(DPT_ERR_INPUT, "%s: %.200s must be a number from -1e30 to 1e30", o->path, key);
}

dpt_status dpt_store_adapter_read(const char *path, const char *text,
                                  dpt_store_adapter_options *out) {
    json_error_t at;
    *out = (dpt_store_adapter_options){.path = path, .rank = 8, .alpha = 8.0}; /* PEFT's own */
    out->root = json_loads(text, JSON_REJECT_DUPLICATES, &at);
    if (!json_is_object(out->root))
        return dpt_error(DPT_ERR_INPUT,
                         "%s: adapter_config.json is no JSON object (line %d, column %d: %s): copy "
                         "it again",
                         path, at.line, at.column, out->root == NULL ? at.text : "another value");
    dpt_status st = adapter_check_kind(out);
    const json_t *rank = json_object_get(out->root, "r");
    const json_t *alpha = json_object_get(out->root, "lora_alpha");
    if (st == DPT_OK && rank != NULL)
        st = adapter_read_rank(out, "r", rank, &out->rank);
    if (st == DPT_OK && alpha != NULL)
        st = adapter_read_alpha(out, "lora_alpha", alpha, &out->alpha);
    out->rslora = json_is_true(json_object_get(out->root, "use_rslora"));
    out->fan_in_fan_out = json_is_true(json_object_get(out->root, "fan_in_fan_out"));
    if (st == DPT_OK)
        adapter_warn_unknown(out);
    return st;
}

void dpt_store_adapter_forget(dpt_store_adapter_options *options) {
    json_decref(options->root);
    options->root = NULL;
}

/* The rest of a set in brackets, to its end: \d in it is its range, and POSIX has no other backslash there. @param[in,out] at
 * after the bracket. @param[in,out] out  where to write next. */
static bool adapter_translate_set(const char **at, char **out) {
    const char *c = *at, *start;
    char *to = *out;
    if (*c == '^')
        *to++ = *c++;
    start = c;
    for (; *c != '\0' && (*c != ']' || c == start); c++) {
        bool digit = *c == '\\' && c[1] == 'd';
        if (digit && ((c[2] == '-' && c[3] != ']') || (c > start + 1 && c[-1] == '-')))
            return false; /* a range of which \d is an end */
        if (!digit && !isalnum((unsigned char)*c) && strchr("_.-()|^$*+?]", *c) == NULL)
            return false;
        if (digit) {
            memcpy(to, "0-9", 3);
            to += 3;
            c++;
        } else {
            *to++ = *c;
        }
    }
    *at = c;
    *out = to;
    return *c == ']';
}

/* A pattern of Python in POSIX's terms, with what PEFT puts around it; false where the two may differ. */
static bool adapter_translate(const char *pattern, char *out, size_t size) {
    static const char head[] = "^(.*\\.)?(", tail[] = ")$", digits[] = "[0-9]";
    size_t n = sizeof head - 1;
    bool good = strlen(pattern) <= PATTERN_BYTES && size >= 2 * CLASS_BYTES * PATTERN_BYTES;
    if (!good)
        return false;
    memcpy(out, head, n);
    for (const char *c = pattern; good && *c != '\0';
         c++) { /* a pattern that is not good may be at its end */
        bool escape = *c == '\\';
        if (escape && c[1] == 'd') {
            memcpy(out + n, digits, CLASS_BYTES);
            n += CLASS_BYTES;
            c++;
        } else {
            good = isalnum((unsigned char)*c) || strchr("_.-\\()|[]^$*+?", *c) != NULL;
            good = good && !(escape && (c[1] == '\0' || strchr(".-_[]()|^$*+?\\", c[1]) == NULL));
            good = good && !(*c == '(' && c[1] == '?');
            out[n++] = *c;
            if (escape && good)
                out[n++] = *++c;
            if (!escape && good && *c == '[') {
                char *to = out + n;
                c++;
                good = adapter_translate_set(&c, &to);
                n = (size_t)(to - out);
                if (good)
                    out[n++] = *c;
            }
        }
    }
    memcpy(out + n, tail, sizeof tail);
    return good;
}

/* The value of the first pattern of an option that a module matches; NULL: none does. */
static dpt_status adapter_match(const dpt_store_adapter_options *o, const char *option,
                                const char *module, const char **key, const json_t **value) {
    const json_t *patterns = json_object_get(o->root, option);
    char translated[3 * CLASS_BYTES * PATTERN_BYTES];
    const char *pattern;
    json_t *one;
    *value = NULL;
    if (!adapter_is_off(patterns) && !json_is_object(patterns))
        return dpt_error(DPT_ERR_INPUT, "%s: %s must map patterns to numbers", o->path, option);
    json_object_foreach((json_t *)(uintptr_t)patterns, pattern, one) {
        regex_t compiled;
        if (!adapter_translate(pattern, translated, sizeof translated) ||
            regcomp(&compiled, translated, REG_EXTENDED | REG_NOSUB) != 0)
            return dpt_error(DPT_ERR_INPUT,
                             "%s: the pattern '%.200s' of %s is not one that is understood: write "
                             "names of modules",
                             o->path, pattern, option);
        bool matches = regexec(&compiled, module, 0, NULL, 0) == 0;
        regfree(&compiled);
        *key = pattern;
        *value = one;
        if (matches)
            return DPT_OK;
        *value = NULL;
    }
    return DPT_OK;
}

dpt_status dpt_store_adapter_module(const dpt_store_adapter_options *options, const char *module,
                                    int64_t *rank, double *scaling) {
    const json_t *own = NULL;
    const char *key = NULL;
    double alpha = options->alpha;
    *rank = options->rank;
    dpt_status st = adapter_match(options, "rank_pattern", module, &key, &own);
    if (st == DPT_OK && own != NULL)
        st = adapter_read_rank(options, key, own, rank);
    if (st == DPT_OK)
        st = adapter_match(options, "alpha_pattern", module, &key, &own);
    if (st == DPT_OK && own != NULL)
        st = adapter_read_alpha(options, key, own, &alpha);
    double divisor = (double)*rank;
    *scaling = alpha / (options->rslora ? sqrt(divisor) : divisor);
    return st;
}
