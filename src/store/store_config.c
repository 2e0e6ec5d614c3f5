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

static bool is_type_key(const char *at, const char *end) {
    size_t n = (size_t)(end - at);
    return (n == 13 && memcmp(at, "\"torch_dtype\"", n) == 0) ||
           (n == 7 && memcmp(at, "\"dtype\"", n) == 0);
}

/* The string value of a type key of the outermost object, quotes included; NULL when none. */
static const char *find_type_value(const char *text, const char **end) {
    int depth = 0;
    for (const char *at = text; *at != '\0';) {
        if (*at != '"') {
            depth += (*at == '{' || *at == '[') - (*at == '}' || *at == ']');
            at++;
            continue;
        }
        const char *after = skip_string(at);
        const char *colon = config_skip_space(after);
        if (depth == 1 && *colon == ':' && is_type_key(at, after)) {
            const char *value = config_skip_space(colon + 1);
            if (*value == '"') {
                *end = skip_string(value);
                return value;
            }
        }
        at = after;
    }
    return NULL;
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
