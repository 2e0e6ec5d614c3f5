#include "store_internal.h"

#include "deltapath/base/mem.h"

#include <ctype.h>
#include <string.h>

/* The text is edited in place of being parsed and printed again: numbers keep their digits and keys
 * their order, so that a reader sees no other difference. */

static const char *float_name(dpt_dtype dtype) {
    switch (dtype) {
    case DPT_F32:
        return "float32";
    case DPT_F16:
        return "float16";
    case DPT_BF16:
        return "bfloat16";
    case DPT_F64:
        return "float64";
    default:
        return NULL;
    }
}

static const char *common_float(const dpt_catalog *catalog) {
    const char *common = NULL;
    for (int i = 0; i < catalog->count; i++) {
        const char *name = float_name(catalog->tensors[i].dtype);
        if (name == NULL)
            continue;
        if (common != NULL && strcmp(common, name) != 0)
            return NULL;
        common = name;
    }
    return common;
}

static const char *skip_string(const char *at) {
    for (at++; *at != '\0' && *at != '"'; at++)
        if (*at == '\\' && at[1] != '\0')
            at++;
    return *at == '"' ? at + 1 : at;
}

static const char *config_skip_space(const char *at) {
    while (isspace((unsigned char)*at))
        at++;
    return at;
}

/* The next key of the outermost object that is `name` (quotes included), from `from`, which lies in that object, on;
 * *value is where its value begins. NULL when there is none. */
static const char *config_find_key(const char *from, const char *name, const char **value) {
    int depth = 0;
    for (const char *at = from; *at != '\0';) {
        if (*at != '"') {
            depth += (*at == '{' || *at == '[') - (*at == '}' || *at == ']');
            at++;
            continue;
        }
        const char *after = skip_string(at);
        const char *colon = config_skip_space(after);
        bool same = (size_t)(after - at) == strlen(name) && memcmp(at, name, strlen(name)) == 0;
        if (depth == 1 && *colon == ':' && same) {
            *value = config_skip_space(colon + 1);
            return at;
        }
        at = after;
    }
    return NULL;
}

/* The string value of a type key, quotes included; NULL when none. */
static const char *find_type_value(const char *text, const char **end) {
    static const char *const names[] = {"\"torch_dtype\"", "\"dtype\""};
    const char *first = NULL;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *value = NULL;
        if (config_find_key(text, names[i], &value) == NULL || *value != '"' ||
            (first != NULL && first < value))
            continue;
        first = value;
        *end = skip_string(value);
    }
    return first;
}

/* After a value: a string, an object or an array with all in it, or anything up to what ends it. */
static const char *config_skip_value(const char *at) {
    int depth = 0;
    while (*at != '\0') {
        if (depth == 0 && (*at == ',' || *at == '}' || *at == ']'))
            return at;
        depth += (*at == '{' || *at == '[') - (*at == '}' || *at == ']');
        at = *at == '"' ? skip_string(at) : at + 1;
        if (depth == 0 && (at[-1] == '}' || at[-1] == ']'))
            return at;
    }
    return at;
}

char *dpt_store_config_without(const char *config, const char *key) {
    char *name = dpt_mem_format("\"%s\"", key);
    const char *value = NULL;
    const char *begin = name != NULL ? config_find_key(config, name, &value) : NULL;
    dpt_mem_free(name);
    if (begin == NULL)
        return name != NULL ? dpt_mem_strdup(config, "config") : NULL;
    const char *end = config_skip_space(config_skip_value(value));
    if (*end == ',') {
        end = config_skip_space(end + 1);
    } else { /* the last member: the comma before it goes */
        while (begin > config && isspace((unsigned char)begin[-1]))
            begin--;
        begin -= begin > config && begin[-1] == ',';
    }
    return dpt_mem_format("%.*s%s", (int)(begin - config), config, end);
}

dpt_status dpt_store_config_update(const char *config, const dpt_catalog *catalog, char **out) {
    const char *name = common_float(catalog);
    const char *end = NULL;
    const char *value = name != NULL ? find_type_value(config, &end) : NULL;
    if (value == NULL)
        *out = dpt_mem_strdup(config, "config");
    else
        *out = dpt_mem_format("%.*s\"%s\"%s", (int)(value - config), config, name, end);
    return *out == NULL ? DPT_ERR_OUTPUT : DPT_OK;
}

/* A key of a configuration, of its text model where it has one. @param[out] root  to be released. */
static const json_t *config_value(const dpt_store *store, const char *key, json_t **root) {
    const char *text = dpt_store_config(store);
    *root = text != NULL ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
    const json_t *inner = json_object_get(json_object_get(*root, "text_config"), key);
    return inner != NULL ? inner : json_object_get(*root, key);
}

int64_t dpt_store_heads(const dpt_store *store) {
    json_t *root;
    int64_t heads = json_integer_value(config_value(store, "num_attention_heads", &root));
    json_decref(root);
    return heads > 0 ? heads : 0;
}

char *dpt_store_recipe_of(const char *provenance) {
    json_t *root = provenance != NULL ? json_loads(provenance, 0, NULL) : NULL;
    char *recipe = dpt_mem_strdup(json_string_value(json_object_get(root, "recipe")), "recipe");
    json_decref(root);
    return recipe;
}
