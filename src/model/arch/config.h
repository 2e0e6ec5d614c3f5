#ifndef DELTAPATH_SRC_MODEL_ARCH_CONFIG_H
#define DELTAPATH_SRC_MODEL_ARCH_CONFIG_H

#include "deltapath/base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Typed access to config.json. The first wrong key sets `status` and records the error; later calls
 * then give their default, so that a parser reads straight through and checks once. All Local. */
typedef struct dpt_config {
    const json_t *object;
    const char *where; /**< "config.json" or "config.json: rope_scaling", for messages */
    dpt_status status;
} dpt_config;

/** Text to a JSON object. Errors: DPT_ERR_INPUT with line and column. The caller json_decref's it. */
dpt_status dpt_config_parse(const char *text, json_t **out);

/** Replace the configuration of a multimodal model (`...ForConditionalGeneration`) by its `text_config`. Local.
 * @return whether it was one. */
bool dpt_config_take_text(json_t **root);

/** The value of a key; NULL when it is absent or null. */
const json_t *dpt_config_get(const dpt_config *config, const char *key);

/** Whether a value means that an option is off: null, false, 0, and 1 for factors. */
bool dpt_config_is_off(const json_t *value);

/** Whether a key of any model's configuration changes nothing that a model computes here: training, generation,
 * bookkeeping. Local. */
bool dpt_config_is_idle(const char *key);

/** A required or optional integer in [lower, upper]. */
int64_t dpt_config_need_integer(dpt_config *config, const char *key, int64_t lower, int64_t upper);
int64_t dpt_config_integer(dpt_config *config, const char *key, int64_t lower, int64_t upper,
                           int64_t default_value);

/** An optional number above `above` and below `below`; NaN as default makes it required. */
double dpt_config_number(dpt_config *config, const char *key, double above, double below,
                         double default_value);

bool dpt_config_bool(dpt_config *config, const char *key, bool default_value);

/** An optional string, borrowed from the object. */
const char *dpt_config_string(dpt_config *config, const char *key, const char *default_value);

/** Record that an option has a value that is not supported. */
void dpt_config_reject(dpt_config *config, const char *key, const char *supported);

/** Record that there is a `quantization_config` that says something. The store takes it out of models of known forms and
 * refuses codes of others, so that what is left stands next to plain weights. */
void dpt_config_reject_quantised(dpt_config *config);

/** Append "key (a and b)" to a text of at most `size` bytes when the two values differ. Local. */
void dpt_config_compare(char *text, size_t size, const char *key, double a, double b);

#endif
