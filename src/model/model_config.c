#include "arch/arch.h"

#include "deltapath/model/model.h"
#include "deltapath/tensor/prefix.h"
#include "deltapath/tensor/role.h"

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

/* The tensor of a name whatever its prefixes, or the only one whose name ends with it; -1: there is none. */
static int model_find_name(const dpt_prefix_index *names, const char *name) {
    int found = dpt_prefix_find(names, name), ends = 0;
    const dpt_catalog *catalog = names->catalog;
    const char *rest = dpt_prefix_skip(name);
    size_t m = strlen(rest);
    for (int t = 0, last = found; t < catalog->count && last < 0; t++) {
        const char *own = catalog->tensors[t].name;
        size_t n = strlen(own);
        if (n > m && own[n - m - 1] == '.' && strcmp(own + n - m, rest) == 0)
            found = ++ends == 1 ? t : -1;
    }
    return found;
}

dpt_status dpt_model_config_head(const char *config, const dpt_catalog *catalog,
                                 dpt_tied_head *out) {
    const char *head = DPT_NAME_HEAD, *embedding = DPT_NAME_EMBEDDING;
    dpt_arch arch = {.window = NULL};
    dpt_prefix_index names;
    json_t *root = NULL;
    *out = (dpt_tied_head){.head = -1, .embedding = -1};
    if (config != NULL && dpt_config_parse(config, &root) == DPT_OK) {
        dpt_config_take_text(&root);
        out->tied = json_is_true(json_object_get(root, "tie_word_embeddings"));
        if (dpt_arch_read(root, catalog, &arch) == DPT_OK && arch.head != NULL &&
            arch.row[DPT_SLOT_TOKENS] != NULL) {
            out->tied = arch.tied;
            head = arch.head->name;
            embedding = arch.row[DPT_SLOT_TOKENS]->name;
        }
    }
    dpt_error_clear(); /* said when the model is made */
    dpt_status st = dpt_prefix_index_create(catalog, &names);
    if (st == DPT_OK) {
        out->head = model_find_name(&names, head);
        out->embedding = model_find_name(&names, embedding);
    }
    dpt_prefix_index_destroy(&names);
    dpt_arch_destroy(&arch);
    json_decref(root);
    return st;
}
