#include "arch/arch.h"

#include "deltapath/model/model.h"

#include <stdio.h>
#include <string.h>

/* What configurations alone say. */

dpt_status dpt_model_config_compare(const char *a, const char *b, const dpt_catalog *catalog,
                                    char *text, size_t size) {
    json_t *one = NULL, *other = NULL;
    const dpt_family *family = NULL, *second = NULL;
    dpt_arch x = {.window = NULL}, y = {.window = NULL};
    text[0] = '\0';
    dpt_status st = dpt_config_parse(a, &one);
    if (st == DPT_OK)
        st = dpt_config_parse(b, &other);
    if (st == DPT_OK) {
        dpt_config_take_text(&one);
        dpt_config_take_text(&other);
        st = dpt_family_find(one, &family);
    }
    if (st == DPT_OK)
        st = dpt_family_find(other, &second);
    if (st == DPT_OK && family == second)
        st = dpt_arch_read(one, catalog, &x);
    if (st == DPT_OK && family == second)
        st = dpt_arch_read(other, catalog, &y);
    if (st == DPT_OK && family != second)
        snprintf(text, size, "architectures (%s and %s)", family->architecture,
                 second->architecture);
    else if (st == DPT_OK)
        dpt_arch_compare(&x, &y, text, size);
    dpt_arch_destroy(&x);
    dpt_arch_destroy(&y);
    json_decref(one);
    json_decref(other);
    return st;
}

/* null, false, 0, 1 and what is empty switch an option off. */
static bool model_key_is_idle(const json_t *value) {
    double number = json_number_value(value);
    return json_is_null(value) || json_is_false(value) ||
           (json_is_number(value) && (number == 0.0 || number == 1.0)) ||
           (json_is_string(value) && json_string_length(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0);
}

static void model_add_unknown(const dpt_family *family, json_t *object, char *text, size_t size) {
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value) {
        size_t used = strlen(text);
        if (!family->knows(key) && !dpt_family_takes(family, key) && !model_key_is_idle(value))
            snprintf(text + used, size - used, "%s%.48s", used > 0 ? ", " : "", key);
    }
}

dpt_status dpt_model_config_unknown(const char *config, char *text, size_t size) {
    const dpt_family *family = NULL;
    json_t *root = NULL;
    text[0] = '\0';
    dpt_status st = dpt_config_parse(config, &root);
    if (st == DPT_OK) {
        dpt_config_take_text(&root);
        st = dpt_family_find(root, &family);
    }
    if (st == DPT_OK)
        model_add_unknown(family, root, text, size);
    if (st == DPT_OK && family->inner != NULL)
        model_add_unknown(family, json_object_get(root, family->inner), text, size);
    json_decref(root);
    return st;
}
