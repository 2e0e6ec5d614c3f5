#include "job_keys.h"

#include "deltapath/base/choice.h"
#include "deltapath/base/nearest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Values of the keys of the table, from the YAML of a job. */

bool dpt_job_key_is_of(const dpt_job_key *key, dpt_job_loss loss) {
    return key->loss == NULL || dpt_choice_find(key->loss, dpt_job_loss_name(loss)) >= 0;
}

bool dpt_job_key_is_section(const dpt_job_key *key) {
    return key->type == DPT_KEY_SECTION || key->type == DPT_KEY_ENTRIES;
}

const char *dpt_job_keys_list(const char *section, char *text, size_t size) {
    int count;
    const dpt_job_key *keys = dpt_job_keys(&count);
    text[0] = '\0';
    for (int k = 0; k < count; k++) {
        size_t used = strlen(text);
        if (strcmp(keys[k].section, section) == 0)
            snprintf(text + used, size - used, "%s%s", used > 0 ? " " : "", keys[k].name);
    }
    return text;
}

static void key_store_integer(const dpt_job_key *key, void *field, int64_t value) {
    if (key->size == sizeof(int64_t))
        memcpy(field, &value, sizeof value);
    else
        memcpy(field, &(int){(int)value}, sizeof(int));
}

/* The default of a key, or nothing: zero. */
static void key_set_standard(const dpt_job_key *key, void *field) {
    const char *text = key->standard;
    memset(field, 0, key->size);
    if (text == NULL)
        return;
    switch (key->type) {
    case DPT_KEY_STRING:
    case DPT_KEY_WORD:
        memcpy(field, &text, sizeof text);
        break;
    case DPT_KEY_CHOICE:
        key_store_integer(key, field, dpt_choice_find(key->choices, text));
        break;
    case DPT_KEY_BOOLEAN:
        *(bool *)field = strcmp(text, "true") == 0;
        break;
    case DPT_KEY_INTEGER:
        key_store_integer(key, field, strtoll(text, NULL, 10));
        break;
    case DPT_KEY_REAL:
        *(double *)field = strtod(text, NULL);
        break;
    default: /* lists are empty, auto is 0 */
        break;
    }
}

/* Position of a word among the choices of a key; -1 after an error. */
static int key_choose(const dpt_yaml *yaml, struct fy_node *node, const dpt_job_key *key) {
    const char *text = dpt_yaml_scalar(node);
    int index = text != NULL ? dpt_choice_find(key->choices, text) : -1;
    char hint[DPT_NEAREST_HINT];
    if (text == NULL)
        text = "?";
    if (index < 0)
        (void)dpt_yaml_error(yaml, node, "%s is '%s'%s: it is one of %s", key->name, text,
                             dpt_nearest_of_list(text, key->choices, "|", hint), key->choices);
    return index;
}

int dpt_job_keys_choose(const dpt_yaml *yaml, struct fy_node *node, const char *section,
                        const char *name) {
    int row = 0, count;
    const dpt_job_key *keys = dpt_job_keys(&count);
    while (strcmp(keys[row].section, section) != 0 || strcmp(keys[row].name, name) != 0)
        row++;
    return key_choose(yaml, node, &keys[row]);
}

static dpt_status key_read_words(const dpt_yaml *yaml, struct fy_node *map, const dpt_job_key *key,
                                 bool *flags) {
    struct fy_node *list;
    int count;
    dpt_status st = dpt_yaml_list(yaml, map, key->name, &list, &count);
    for (int i = 0; i < count && st == DPT_OK; i++) {
        int index = key_choose(yaml, fy_node_sequence_get_by_index(list, i), key);
        if (index < 0)
            return DPT_ERR_USAGE;
        flags[index] = true;
    }
    return st;
}

static dpt_status key_read_integer(const dpt_yaml *yaml, struct fy_node *map,
                                   const dpt_job_key *key, void *field) {
    const char *text = dpt_yaml_scalar(dpt_yaml_get(map, key->name));
    int64_t value = 0;
    if (key->type == DPT_KEY_AUTO && text != NULL && strcmp(text, "auto") == 0)
        return DPT_OK;
    dpt_status st =
        dpt_yaml_integer(yaml, map, key->name, (int64_t)key->low, (int64_t)key->high, &value);
    if (st == DPT_OK)
        key_store_integer(key, field, value);
    return st;
}

static dpt_status key_read(const dpt_yaml *yaml, struct fy_node *map, const dpt_job_key *key,
                           void *field) {
    struct fy_node *node = dpt_yaml_get(map, key->name);
    int index;
    switch (key->type) {
    case DPT_KEY_STRING:
        return dpt_yaml_string(yaml, map, key->name, field);
    case DPT_KEY_PATH:
        return dpt_yaml_path(yaml, map, key->name, field);
    case DPT_KEY_WORD:
        index = key_choose(yaml, node, key);
        return index < 0 ? DPT_ERR_USAGE : dpt_yaml_string(yaml, map, key->name, field);
    case DPT_KEY_CHOICE:
        index = key_choose(yaml, node, key);
        if (index >= 0)
            key_store_integer(key, field, index);
        return index < 0 ? DPT_ERR_USAGE : DPT_OK;
    case DPT_KEY_BOOLEAN:
        return dpt_yaml_boolean(yaml, map, key->name, field);
    case DPT_KEY_INTEGER:
    case DPT_KEY_AUTO:
        return key_read_integer(yaml, map, key, field);
    case DPT_KEY_REAL:
        return dpt_yaml_real(yaml, map, key->name, key->low, key->high, field);
    case DPT_KEY_WORDS:
        return key_read_words(yaml, map, key, field);
    default:
        return DPT_OK;
    }
}

dpt_status dpt_job_keys_read(const dpt_yaml *yaml, struct fy_node *map, const char *section,
                             const char *what, void *base) {
    char known[512];
    int count;
    const dpt_job_key *keys = dpt_job_keys(&count);
    dpt_status st = DPT_OK;
    if (map != NULL)
        st = dpt_yaml_check_keys(yaml, map, what, dpt_job_keys_list(section, known, sizeof known));
    for (int k = 0; k < count && st == DPT_OK; k++) {
        const dpt_job_key *key = &keys[k];
        if (strcmp(key->section, section) != 0 || key->size == 0 || key->type == DPT_KEY_SECTION)
            continue;
        void *field = (char *)base + key->offset;
        key_set_standard(key, field);
        if (map != NULL && dpt_yaml_get(map, key->name) != NULL)
            st = key_read(yaml, map, key, field);
        else if (map != NULL && key->required)
            st = dpt_yaml_error(yaml, map, "%s needs %s", what, key->name);
    }
    return st;
}
