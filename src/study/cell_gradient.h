#ifndef DELTAPATH_SRC_STUDY_CELL_GRADIENT_H
#define DELTAPATH_SRC_STUDY_CELL_GRADIENT_H

#include "deltapath/tensor/field.h"
#include "evaluation.h"

/** The gradient of one data set at W_post in cells, as edits take it. */
typedef struct dpt_cell_gradient {
    dpt_catalog catalog; /**< the model's, every tensor f32 */
    dpt_shard shard;     /**< that of the study, of this catalog; its arrays are borrowed */
    dpt_field *field;    /**< NULL: not created */
    dpt_source source;
    int data; /**< data set that it is of; -1: none yet */
} dpt_cell_gradient;

/** Bytes per rank of a model shared out so. Local. Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_cell_gradient_bytes(const dpt_catalog *catalog, const dpt_shard *shard,
                                   int64_t *bytes);

/** Room for it. Not to be moved afterwards. Collective over comm. On error nothing is left. */
dpt_status dpt_cell_gradient_create(const dpt_comm *comm, const dpt_catalog *catalog,
                                    const dpt_shard *shard, dpt_cell_gradient *out);
void dpt_cell_gradient_destroy(dpt_cell_gradient *gradient); /**< Local; not created is allowed. */

/** Make it any gradient of the model. Collective over the mesh. */
dpt_status dpt_cell_gradient_take(dpt_cell_gradient *gradient, dpt_evaluation *evaluation,
                                  const dpt_model_gradient *values);

/** Make it that of data set d. Nothing to do when it is so already. Collective over the mesh. */
dpt_status dpt_cell_gradient_fill(dpt_cell_gradient *gradient, dpt_evaluation *evaluation, int d);

#endif
