#include "yaml.h"

#include "deltapath/base/mem.h"
#include "deltapath/base/nearest.h"
#include "deltapath/base/path.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct fy_diag *quiet_diag(void) {
    struct fy_diag_cfg cfg;
    fy_diag_cfg_default(&cfg);
    cfg.fp = NULL;
    struct fy_diag *diag = fy_diag_create(&cfg);
    if (diag != NULL)
        fy_diag_set_collect_errors(diag, true);
    else
        (void)dpt_error(DPT_ERR_OUTPUT, "no memory left to read YAML: " DPT_MEM_REMEDY);
    return diag;
}

static dpt_status parse_error(struct fy_diag *diag, const char *path) {
    void *iterator = NULL;
    struct fy_diag_error *first = fy_diag_errors_iterate(diag, &iterator);
    if (first == NULL)
        return dpt_error(DPT_ERR_USAGE, "%s: not a YAML document, or no memory left to read it",
                         path);
    return dpt_error(DPT_ERR_USAGE, "%s:%d:%d: %s", path, first->line, first->column, first->msg);
}

/* The document of a text, or NULL with the reason in diag. Aliases stay unresolved and are refused as
 * values: nested ones could grow without bound. */
static struct fy_document *yaml_build(const char *text, struct fy_diag *diag) {
    struct fy_parse_cfg cfg = {.flags = FYPCF_DEFAULT_DOC | FYPCF_COLLECT_DIAG, .diag = diag};
    struct fy_document *document = fy_document_build_from_string(&cfg, text, strlen(text));
    if (document != NULL && fy_diag_got_error(diag)) {
        fy_document_destroy(document);
        return NULL;
    }
    return document;
}

/* libfyaml crashes where it gets no memory; entries of a list take 170 bytes for each byte of the text. */
static dpt_status check_memory(size_t n) {
    void *room = dpt_mem_alloc((int64_t)n + 4096, 256, "YAML document");
    dpt_mem_free(room);
    return room != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

/* Nothing but blanks and comments. */
static bool yaml_is_empty(const char *text) {
    const char *at = strncmp(text, "\xEF\xBB\xBF", 3) == 0 ? text + 3 : text;
    while (*(at += strspn(at, " \t\r\n")) == '#')
        at += strcspn(at, "\r\n");
    return *at == '\0';
}

dpt_status dpt_yaml_parse(const char *text, const char *path, dpt_yaml **out) {
    *out = NULL;
    dpt_yaml *yaml = dpt_mem_zalloc(1, sizeof *yaml, "YAML document");
    struct fy_diag *diag = quiet_diag();
    dpt_status st = yaml == NULL || diag == NULL ? DPT_ERR_OUTPUT : DPT_OK;
    if (st == DPT_OK)
        st = dpt_yaml_check_text(text, strlen(text), path);
    if (st == DPT_OK)
        st = check_memory(strlen(text));
    if (st == DPT_OK && (yaml->path = dpt_mem_strdup(path, "file name")) == NULL)
        st = DPT_ERR_OUTPUT;
    if (st == DPT_OK && (yaml->text = dpt_mem_strdup(text, "YAML document")) == NULL)
        st = DPT_ERR_OUTPUT;
    if (st == DPT_OK && yaml_is_empty(yaml->text))
        st = dpt_error(
            DPT_ERR_USAGE,
            "%s: the job file is empty: start from the example at the top of doc/jobs.md", path);
    if (st == DPT_OK)
        st = dpt_yaml_scan(yaml->text, path, true, diag);
    if (st == DPT_OK) {
        yaml->document = yaml_build(yaml->text, diag);
        if (yaml->document == NULL)
            st = parse_error(diag, path);
        else if (!fy_node_is_mapping(fy_document_root(yaml->document)))
            st = dpt_error(DPT_ERR_USAGE,
                           "%s:1:1: a job file is a mapping of keys: see doc/jobs.md", path);
    }
    if (diag != NULL)
        fy_diag_destroy(diag);
    if (st != DPT_OK) {
        dpt_yaml_destroy(yaml);
        return st;
    }
    *out = yaml;
    return DPT_OK;
}

void dpt_yaml_destroy(dpt_yaml *yaml) {
    if (yaml == NULL)
        return;
    if (yaml->document != NULL)
        fy_document_destroy(yaml->document);
    dpt_mem_free(yaml->text);
    dpt_mem_free(yaml->path);
    dpt_mem_free(yaml);
}

/* Whether the parts of a dotted key are words or places: the library reads them as YAML, in which " 0" and "0"
 * are the same. */
static dpt_status set_check_key(const char *key, const char *assignment) {
    size_t part = 0;
    for (const char *c = key;; c++) {
        bool word = isalnum((unsigned char)*c) || *c == '_';
        if (!word && *c != '.' && *c != '\0')
            return dpt_error(DPT_ERR_USAGE,
                             "--set %s: '%c' has no place in a key: write it as in edits.0.p=0.3",
                             assignment, *c);
        if (!word && part == 0)
            return dpt_error(DPT_ERR_USAGE,
                             "--set %s: a part of the key is empty: write it as in edits.0.p=0.3",
                             assignment);
        part = word ? part + 1 : 0;
        if (*c == '\0')
            return DPT_OK;
    }
}

/* The entry of a list at a place in plain digits. */
static dpt_status set_into_list(struct fy_node *list, const char *step, const char *assignment,
                                struct fy_node **child) {
    int count = fy_node_sequence_item_count(list);
    bool digits = step[strspn(step, "0123456789")] == '\0';
    long long index = digits && strlen(step) < 10 ? strtoll(step, NULL, 10) : count;
    *child = NULL;
    if (index < count) {
        *child = fy_node_sequence_get_by_index(list, (int)index);
        return DPT_OK;
    }
    if (count == 0)
        return dpt_error(DPT_ERR_USAGE, "--set %s: '%s': the list is empty: set it as a whole",
                         assignment, step);
    return dpt_error(DPT_ERR_USAGE, "--set %s: '%s' is no place in the list: give 0 to %d",
                     assignment, step, count - 1);
}

/* The node of one step of a dotted key; NULL when a mapping does not have it. */
static dpt_status set_into(struct fy_node *node, const char *step, const char *assignment,
                           struct fy_node **child) {
    if (fy_node_is_sequence(node))
        return set_into_list(node, step, assignment, child);
    *child = fy_node_is_mapping(node) ? fy_node_mapping_lookup_by_string(node, step, FY_NT) : NULL;
    return DPT_OK;
}

/* For messages: lines of a --set are not those of the file. */
static void mark_set(struct fy_node *node, const char *assignment) {
    if (node != NULL)
        fy_node_set_meta(node, (void *)(uintptr_t)assignment);
}

/* The value belongs to the document afterwards, or is gone when it cannot be put there. */
static dpt_status put(dpt_yaml *yaml, struct fy_node *node, const char *step, struct fy_node *value,
                      const char *assignment) {
    if (fy_node_is_sequence(node)) {
        fy_node_free(value);
        return dpt_error(DPT_ERR_USAGE,
                         "--set %s: an entry of a list is not set as a whole: set its keys, as in "
                         "edits.0.p=0.3, or the whole list, as in edits=[...]",
                         assignment);
    }
    if (!fy_node_is_mapping(node)) {
        fy_node_free(value);
        return dpt_error(DPT_ERR_USAGE, "--set %s: '%s' is not a key of a mapping", assignment,
                         step);
    }
    struct fy_node_pair *pair = fy_node_mapping_lookup_pair_by_string(node, step, FY_NT);
    int failed;
    if (pair != NULL) {
        failed = fy_node_pair_set_value(pair, value);
    } else {
        struct fy_node *key = fy_node_create_scalar_copy(yaml->document, step, FY_NT);
        mark_set(key, assignment);
        failed = fy_node_mapping_append(node, key, value);
    }
    return failed ? dpt_error(DPT_ERR_USAGE, "--set %s: cannot be applied", assignment) : DPT_OK;
}

static dpt_status set_in(dpt_yaml *yaml, char *key, struct fy_node *value, const char *assignment) {
    struct fy_node *node = fy_document_root(yaml->document);
    char *save = NULL;
    char *step = strtok_r(key, ".", &save);
    char *next = strtok_r(NULL, ".", &save);
    for (; step != NULL && next != NULL; step = next, next = strtok_r(NULL, ".", &save)) {
        struct fy_node *child = NULL;
        dpt_status st = set_into(node, step, assignment, &child);
        if (st == DPT_OK && (child == NULL || fy_node_is_scalar(child))) {
            child = fy_node_create_mapping(yaml->document);
            st = put(yaml, node, step, child, assignment);
        }
        if (st != DPT_OK) {
            fy_node_free(value);
            return st;
        }
        node = child;
    }
    return put(yaml, node, step, value, assignment);
}

/* Whether a text parses on its own. A node built from broken text would leak inside the library. */
static dpt_status set_check_value(const char *text, const char *assignment, const char *place) {
    struct fy_diag *diag = quiet_diag();
    dpt_status st = diag != NULL ? dpt_yaml_scan(text, place, false, diag) : DPT_ERR_OUTPUT;
    struct fy_document *document = st == DPT_OK ? yaml_build(text, diag) : NULL;
    if (st == DPT_OK && document == NULL)
        st = dpt_error(DPT_ERR_USAGE,
                       "--set %s: the value is not YAML, or no memory left to read it", assignment);
    if (document != NULL)
        fy_document_destroy(document);
    if (diag != NULL)
        fy_diag_destroy(diag);
    return st;
}

static dpt_status set_check(const char *assignment, const char *key, const char *value) {
    char *place = dpt_mem_format("--set %s", assignment);
    dpt_status st =
        place == NULL ? DPT_ERR_OUTPUT : dpt_yaml_check_text(assignment, strlen(assignment), place);
    if (st == DPT_OK)
        st = set_check_key(key, assignment);
    if (st == DPT_OK)
        st = set_check_value(value, assignment, place);
    dpt_mem_free(place);
    return st;
}

dpt_status dpt_yaml_set(dpt_yaml *yaml, const char *assignment) {
    const char *equals = strchr(assignment, '=');
    if (equals == NULL || equals == assignment)
        return dpt_error(DPT_ERR_USAGE, "--set %s: write key=value", assignment);
    char *key = dpt_mem_strdup(assignment, "--set key");
    if (key == NULL)
        return DPT_ERR_OUTPUT;
    key[equals - assignment] = '\0';
    const char *text = equals[1] == '\0' ? "''" : equals + 1;
    dpt_status st = set_check(assignment, key, text);
    struct fy_node *value =
        st == DPT_OK ? fy_node_build_from_string(yaml->document, text, FY_NT) : NULL;
    if (st == DPT_OK && value == NULL)
        st = dpt_error(DPT_ERR_USAGE,
                       "--set %s: the value is not YAML, or no memory left to read it", assignment);
    if (st == DPT_OK) {
        mark_set(value, assignment);
        st = set_in(yaml, key, value, assignment);
    }
    dpt_mem_free(key);
    return st;
}

/* First token of a node: scalars have one; containers start where their first child does. */
static const struct fy_mark *mark_of(struct fy_node *node) {
    for (int depth = 0; node != NULL && depth < 64; depth++) {
        if (fy_node_is_scalar(node)) {
            struct fy_token *token = fy_node_get_scalar_token(node);
            return token != NULL ? fy_token_start_mark(token) : NULL;
        }
        void *iterator = NULL;
        if (fy_node_is_sequence(node)) {
            node = fy_node_sequence_iterate(node, &iterator);
        } else {
            struct fy_node_pair *pair = fy_node_mapping_iterate(node, &iterator);
            node = pair != NULL ? fy_node_pair_key(pair) : NULL;
        }
    }
    return NULL;
}

/* The --set that a node came from, or NULL. */
static const char *assignment_of(struct fy_node *node) {
    const char *assignment = NULL;
    for (; node != NULL && assignment == NULL; node = fy_node_get_parent(node))
        assignment = fy_node_get_meta(node);
    return assignment;
}

static void position_text(const dpt_yaml *yaml, struct fy_node *node, char *text, size_t size) {
    const char *assignment = assignment_of(node);
    if (assignment != NULL) {
        snprintf(text, size, "--set %s", assignment);
        return;
    }
    const struct fy_mark *mark = NULL;
    for (; node != NULL && mark == NULL; node = fy_node_get_parent(node)) /* empty ones have none */
        mark = mark_of(node);
    if (mark != NULL)
        snprintf(text, size, "%s:%d:%d", yaml->path, mark->line + 1, mark->column + 1);
    else
        snprintf(text, size, "%s", yaml->path);
}

dpt_status dpt_yaml_error(const dpt_yaml *yaml, struct fy_node *node, const char *format, ...) {
    char position[512];
    char message[DPT_MESSAGE_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    position_text(yaml, node, position, sizeof position);
    return dpt_error(DPT_ERR_USAGE, "%s: %s", position, message);
}

dpt_status dpt_yaml_locate(const dpt_yaml *yaml, struct fy_node *node, dpt_status status) {
    char position[512];
    if (status == DPT_OK)
        return DPT_OK;
    position_text(yaml, node, position, sizeof position);
    return dpt_error_locate(status, position);
}

static bool listed(const char *keys, const char *key) {
    size_t length = strlen(key);
    for (const char *at = keys; length > 0 && (at = strstr(at, key)) != NULL; at += length) {
        bool starts = at == keys || at[-1] == ' ';
        if (starts && (at[length] == ' ' || at[length] == '\0'))
            return true;
    }
    return false;
}

dpt_status dpt_yaml_check_keys(const dpt_yaml *yaml, struct fy_node *map, const char *what,
                               const char *keys) {
    if (!fy_node_is_mapping(map))
        return dpt_yaml_error(yaml, map, "%s must be a mapping with the keys: %s", what, keys);
    void *iterator = NULL;
    for (struct fy_node_pair *pair; (pair = fy_node_mapping_iterate(map, &iterator)) != NULL;) {
        struct fy_node *node = fy_node_pair_key(pair);
        const char *key = dpt_yaml_scalar(node);
        char hint[DPT_NEAREST_HINT];
        if (key == NULL || !listed(keys, key))
            return dpt_yaml_error(
                yaml, node, "unknown key '%s' in %s%s: it knows: %s", key != NULL ? key : "?", what,
                dpt_nearest_of_list(key != NULL ? key : "", keys, " ", hint), keys);
    }
    return DPT_OK;
}

const char *dpt_yaml_scalar(struct fy_node *node) {
    bool plain = node != NULL && fy_node_is_scalar(node) && !fy_node_is_alias(node);
    size_t n = plain ? fy_node_get_scalar_length(node) : 0;
    const char *text = plain ? fy_node_get_scalar0(node) : NULL;
    /* Without memory libfyaml says that the text is empty. */
    if (n > 0 && (text == NULL || text[0] == '\0'))
        (void)dpt_error(DPT_ERR_OUTPUT, "no memory left to read YAML: " DPT_MEM_REMEDY);
    return text;
}

struct fy_node *dpt_yaml_get(struct fy_node *map, const char *key) {
    return map != NULL && fy_node_is_mapping(map)
               ? fy_node_mapping_lookup_by_string(map, key, FY_NT)
               : NULL;
}

dpt_status dpt_yaml_string(const dpt_yaml *yaml, struct fy_node *map, const char *key,
                           const char **out) {
    struct fy_node *node = dpt_yaml_get(map, key);
    if (node == NULL)
        return DPT_OK;
    const char *text = dpt_yaml_scalar(node);
    if (text == NULL || text[0] == '\0')
        return dpt_yaml_error(yaml, node, "%s must be a text", key);
    *out = text;
    return DPT_OK;
}

dpt_status dpt_yaml_path(const dpt_yaml *yaml, struct fy_node *map, const char *key,
                         const char **out) {
    struct fy_node *node = dpt_yaml_get(map, key);
    const char *text = NULL;
    char *expanded = NULL;
    dpt_status st = dpt_yaml_string(yaml, map, key, &text);
    if (st == DPT_OK && text != NULL)
        st = dpt_yaml_locate(yaml, node, dpt_path_expand(text, &expanded));
    if (st == DPT_OK && text != NULL)
        *out = text;
    if (st != DPT_OK || expanded == NULL)
        return st;
    /* The document owns the text, and prints it in the provenance. */
    struct fy_node *value = fy_node_create_scalar_copy(yaml->document, expanded, FY_NT);
    struct fy_node_pair *pair = fy_node_mapping_lookup_pair_by_string(map, key, FY_NT);
    const char *assignment = assignment_of(node);
    dpt_mem_free(expanded);
    if (value == NULL || pair == NULL || fy_node_pair_set_value(pair, value) != 0)
        return dpt_yaml_error(yaml, node, "%s: the path cannot be expanded: write it out", key);
    if (assignment != NULL)
        mark_set(value, assignment);
    *out = dpt_yaml_scalar(value);
    return *out != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

dpt_status dpt_yaml_list(const dpt_yaml *yaml, struct fy_node *map, const char *key,
                         struct fy_node **list, int *count) {
    *list = dpt_yaml_get(map, key);
    *count = 0;
    if (*list == NULL)
        return DPT_OK;
    if (!fy_node_is_sequence(*list))
        return dpt_yaml_error(yaml, *list, "%s must be a list", key);
    *count = fy_node_sequence_item_count(*list);
    return DPT_OK;
}

dpt_status dpt_yaml_integer(const dpt_yaml *yaml, struct fy_node *map, const char *key,
                            int64_t lower, int64_t upper, int64_t *out) {
    struct fy_node *node = dpt_yaml_get(map, key);
    if (node == NULL)
        return DPT_OK;
    const char *text = dpt_yaml_scalar(node);
    char *end = NULL;
    errno = 0;
    long long value = text != NULL ? strtoll(text, &end, 10) : 0;
    if (text == NULL || end == text || *end != '\0' || errno != 0 || value < lower || value > upper)
        return dpt_yaml_error(yaml, node, "%s is '%s': it must be an integer from %lld to %lld",
                              key, text != NULL ? text : "?", (long long)lower, (long long)upper);
    *out = value;
    return DPT_OK;
}

dpt_status dpt_yaml_real(const dpt_yaml *yaml, struct fy_node *map, const char *key, double lower,
                         double upper, double *out) {
    struct fy_node *node = dpt_yaml_get(map, key);
    if (node == NULL)
        return DPT_OK;
    const char *text = dpt_yaml_scalar(node);
    char *end = NULL;
    double value = text != NULL ? strtod(text, &end) : 0;
    if (text == NULL || end == text || *end != '\0' || !isfinite(value) || value < lower ||
        value > upper)
        return dpt_yaml_error(yaml, node, "%s is '%s': it must be a number from %g to %g", key,
                              text != NULL ? text : "?", lower, upper);
    *out = value;
    return DPT_OK;
}

/* The place of a text among some, or n. */
static size_t yaml_place_of(const char *text, const char *const *texts, size_t n) {
    size_t i = 0;
    while (i < n && (text == NULL || strcmp(text, texts[i]) != 0))
        i++;
    return i;
}

/* The words of YAML 1.2, section 10.3.2: `yes`, `no`, `on` and `off` are texts there. */
dpt_status dpt_yaml_boolean(const dpt_yaml *yaml, struct fy_node *map, const char *key, bool *out) {
    static const char *const words[] = {"true", "True", "TRUE", "false", "False", "FALSE"};
    enum { WORDS = sizeof words / sizeof *words };
    struct fy_node *node = dpt_yaml_get(map, key);
    if (node == NULL)
        return DPT_OK;
    const char *text = dpt_yaml_scalar(node);
    size_t place = yaml_place_of(text, words, WORDS);
    if (place == WORDS)
        return dpt_yaml_error(yaml, node, "%s is '%s': write true or false", key,
                              text != NULL ? text : "?");
    *out = place < WORDS / 2;
    return DPT_OK;
}

typedef struct yaml_text {
    char *bytes;
    int64_t n;
    int64_t room;
    bool failed;
} yaml_text;

static int yaml_put(struct fy_emitter *emitter, enum fy_emitter_write_type type, const char *bytes,
                    int n, void *to) {
    yaml_text *text = to;
    (void)emitter;
    (void)type;
    if (text->n + n >= text->room) {
        int64_t room = 2 * (text->n + n) + 256;
        char *grown = dpt_mem_realloc(text->bytes, room, 1, "job text");
        if (grown == NULL) {
            text->failed = true;
            return -1;
        }
        text->bytes = grown;
        text->room = room;
    }
    memcpy(text->bytes + text->n, bytes, (size_t)n);
    text->n += n;
    text->bytes[text->n] = '\0';
    return n;
}

/* fy_emit_document_to_string goes on when its buffer could not grow, and returns the rest of a text. */
char *dpt_yaml_print(const dpt_yaml *yaml) {
    yaml_text text = {.bytes = NULL};
    struct fy_diag *diag = quiet_diag();
    struct fy_emitter_cfg cfg = {
        .flags = FYECF_DEFAULT, .output = yaml_put, .userdata = &text, .diag = diag};
    struct fy_emitter *emitter = diag != NULL ? fy_emitter_create(&cfg) : NULL;
    bool ok = emitter != NULL && fy_emit_document(emitter, yaml->document) == 0 && !text.failed;
    if (emitter != NULL)
        fy_emitter_destroy(emitter);
    if (diag != NULL)
        fy_diag_destroy(diag);
    if (ok && text.bytes != NULL)
        return text.bytes;
    (void)dpt_error(DPT_ERR_OUTPUT, "%s: no memory left for its text: " DPT_MEM_REMEDY, yaml->path);
    dpt_mem_free(text.bytes);
    return NULL;
}
