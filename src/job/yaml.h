#ifndef DELTAPATH_SRC_JOB_YAML_H
#define DELTAPATH_SRC_JOB_YAML_H

#include "deltapath/base/status.h"

#include <libfyaml.h>
#include <stdbool.h>
#include <stdint.h>

/** A YAML document with the name of its file, for messages with positions. */
typedef struct dpt_yaml {
    struct fy_document *document;
    char *text; /**< the document points into it */
    char *path;
} dpt_yaml;

/** Refuse what is no UTF-8 text, before a parser sees it: libfyaml 0.7.12 loops on broken UTF-8.
 * @param[in] place  path of the file, or "--set key=value", for the message.
 * Local. Errors: DPT_ERR_USAGE "place:line:column: what" for bytes that are not UTF-8 (overlong forms
 * and surrogates are not), and for characters that YAML does not allow (NUL, other controls). */
dpt_status dpt_yaml_check_text(const char *text, size_t n, const char *place);

/** Refuse a second document, aliases and merge keys; a text that does not parse passes. Local.
 * @param[in] place  path of the file, or "--set key=value". @param[in] lines  of the text are those of place.
 * @param[in] diag  that prints nothing. Errors: DPT_ERR_USAGE "place:line:column: what"; DPT_ERR_OUTPUT. */
dpt_status dpt_yaml_scan(const char *text, const char *place, bool lines, struct fy_diag *diag);

/** Parse. Errors: DPT_ERR_USAGE "path:line:column: what". Local. */
dpt_status dpt_yaml_parse(const char *text, const char *path, dpt_yaml **out);
void dpt_yaml_destroy(dpt_yaml *yaml);

/** Set the value at a dotted key, "a.b.0.c=value"; the value is YAML. Mappings on the way are made
 * when they are missing, entries of lists are not. The assignment is borrowed while the document lives. Local. Errors: DPT_ERR_USAGE. */
dpt_status dpt_yaml_set(dpt_yaml *yaml, const char *assignment);

/** Record an error at a node. @return DPT_ERR_USAGE. Local. */
dpt_status dpt_yaml_error(const dpt_yaml *yaml, struct fy_node *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/** Put the position of a node before the error that a callee has just recorded. Local. */
dpt_status dpt_yaml_locate(const dpt_yaml *yaml, struct fy_node *node, dpt_status status);

/** Check that a mapping has no key but the listed ones ("a b c"); `what` names it. Local. */
dpt_status dpt_yaml_check_keys(const dpt_yaml *yaml, struct fy_node *map, const char *what,
                               const char *keys);

/* Typed values of a mapping. A missing key leaves *out as it is. Local; Errors: DPT_ERR_USAGE. */
struct fy_node *dpt_yaml_get(struct fy_node *map, const char *key);
dpt_status dpt_yaml_string(const dpt_yaml *yaml, struct fy_node *map, const char *key,
                           const char **out);
/** A text that is a path, with `~/` at its start replaced, also in the document (dpt_path_expand). */
dpt_status dpt_yaml_path(const dpt_yaml *yaml, struct fy_node *map, const char *key,
                         const char **out);
/** The list at a key; *count is 0 when the key is missing. */
dpt_status dpt_yaml_list(const dpt_yaml *yaml, struct fy_node *map, const char *key,
                         struct fy_node **list, int *count);
dpt_status dpt_yaml_integer(const dpt_yaml *yaml, struct fy_node *map, const char *key,
                            int64_t lower, int64_t upper, int64_t *out);
dpt_status dpt_yaml_real(const dpt_yaml *yaml, struct fy_node *map, const char *key, double lower,
                         double upper, double *out);
dpt_status dpt_yaml_boolean(const dpt_yaml *yaml, struct fy_node *map, const char *key, bool *out);

/** Text of a scalar node, owned by the document; NULL when it is no scalar. Local. */
const char *dpt_yaml_scalar(struct fy_node *node);

/** Canonical text of the document (dpt_mem_free releases it). Local. */
char *dpt_yaml_print(const dpt_yaml *yaml);

#endif
