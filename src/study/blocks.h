#ifndef DELTAPATH_SRC_STUDY_BLOCKS_H
#define DELTAPATH_SRC_STUDY_BLOCKS_H

#include "inputs.h"

/** Blocks of the Hessian along an edit: groups of tensors, by layer or by kind of module, and what each tensor has with
 * each group. */
typedef struct dpt_blocks {
    int groups;
    int *group_of;  /**< (tensors) from 0; -1: the job does not edit it */
    char *names;    /**< of the groups, with | between: "outside|0|1" or "embed|q|k" */
    double *values; /**< (tensors, groups) 1/2 E_l^T (H E_m)_l */
} dpt_blocks;

/** The groups of the tensors that the job edits, those outside the layers first, or kinds in their own order; values 0.
 * Local; the same on all ranks. Errors: DPT_ERR_OUTPUT without memory; out is empty. */
dpt_status dpt_blocks_create(const dpt_inputs *inputs, dpt_blocks *out);
void dpt_blocks_destroy(dpt_blocks *blocks); /**< Local; an empty one is allowed. */

/** How many there would be. Local. */
int dpt_blocks_count(const dpt_inputs *inputs);

#endif
