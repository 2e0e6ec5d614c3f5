#ifndef DELTAPATH_STORE_DATASET_H
#define DELTAPATH_STORE_DATASET_H

#include "deltapath/comm/comm.h"

#include <stdint.h>

/** Token sequences of a data-set file, whole on every rank: tokens are small beside a model. */
typedef struct dpt_dataset {
    int64_t samples;
    int64_t *offsets;   /**< (samples + 1) rising from 0 to the number of tokens */
    int32_t *tokens;    /**< (offsets[samples]) */
    uint8_t *loss_mask; /**< (offsets[samples]) 1: the prediction of this token is scored */
    uint64_t hash;      /**< XXH3 of the three arrays, for provenance */
} dpt_dataset;

/** Read the data sets `tokens` (int32), `loss_mask` (uint8) and `offsets` (int64) of an HDF5 file.
 *
 * Rank 0 reads and checks; the others receive.
 * Collective over comm (same: path).
 * Errors: DPT_ERR_INPUT naming the file and what is wrong: no HDF5 file, a missing or empty data
 * set, another type or number of dimensions, lengths that differ, offsets that do not rise from 0 to
 * the number of tokens, a mask other than 0 and 1. out is empty on error.
 */
dpt_status dpt_dataset_read(const dpt_comm *comm, const char *path, dpt_dataset *out);
void dpt_dataset_destroy(dpt_dataset *dataset); /**< Local; an empty one is allowed. */

#endif
