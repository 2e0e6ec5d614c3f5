#ifndef DELTAPATH_STORE_SYNTHETIC_H
#define DELTAPATH_STORE_SYNTHETIC_H

#include "deltapath/tensor/catalog.h"

#include <stdbool.h>
#include <stdint.h>

/** A model without weights on disk: a folder with config.json and a list of tensors whose values are computed when
 * they are read (doc/formats.md, Synthetic models). It serves measurements. */
#define DPT_SYNTHETIC_FILE   "deltapath-synthetic.json"
#define DPT_SYNTHETIC_FORMAT "deltapath-synthetic"

/** What a new folder says. */
typedef struct dpt_synthetic_model {
    const char *config; /**< text of config.json */
    const dpt_catalog *catalog;
    const dpt_spread *values; /**< (tensors of the catalog) before post-training */
    int64_t seed;             /**< from 0; the same of both models of a pair */
    double delta; /**< standard deviation of the delta over that of the values; 0: pre-trained */
} dpt_synthetic_model;

/** Write the two files of a synthetic model into a folder, which is made where its parent
 * is there. Local.
 * Errors: DPT_ERR_OUTPUT naming what is there already, belongs to a model or a study, or cannot be written. */
dpt_status dpt_synthetic_write(const char *folder, const dpt_synthetic_model *model);

#endif
