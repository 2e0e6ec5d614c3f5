#ifndef DELTAPATH_TENSOR_PREFIX_H
#define DELTAPATH_TENSOR_PREFIX_H

#include "deltapath/tensor/catalog.h"

/** What follows at the start of a name those that wrap a language model, however many there are: of PEFT
 * (`base_model.model.`), multimodal models (`language_model.`), the model under its head (`model.`) and GPT-2
 * (`transformer.`). Local. */
const char *dpt_prefix_skip(const char *name);

/** A catalog by its names and aliases without their prefixes, and without the `vision_model.` that follows these or
 * `vision_tower.`. */
typedef struct dpt_prefix_index {
    const dpt_catalog *catalog; /**< sorted; borrowed */
    int count;
    struct dpt_prefix_entry *entries; /**< (count) */
} dpt_prefix_index;

/** Local. Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_prefix_index_create(const dpt_catalog *catalog, dpt_prefix_index *out);
void dpt_prefix_index_destroy(dpt_prefix_index *index); /**< Local; an empty one is allowed. */

/** The only tensor whose name or alias is this one but for prefixes; -1 when there is none or several. Local. */
int dpt_prefix_find_rest(const dpt_prefix_index *index, const char *name);

/** The tensor of a name, or of an alias; without it as dpt_prefix_find_rest. Local. */
int dpt_prefix_find(const dpt_prefix_index *index, const char *name);

#endif
