#ifndef DELTAPATH_SRC_STUDY_GROUPS_H
#define DELTAPATH_SRC_STUDY_GROUPS_H

#include "inputs.h"

/** Groups of the tensors that a job edits, by layer or by kind of module. */
typedef struct dpt_groups {
    int count;
    int *group_of; /**< (tensors) from 0; -1: the job does not edit it */
    char *names;   /**< of the groups, with | between: "outside|0|1" or "embed|q|k" */
} dpt_groups;

/** The groups, those outside the layers first, or kinds in their own order.
 * Local; the same on all ranks. @param[in] kind DPT_GROUPS_..., none has no groups.
 * Errors: DPT_ERR_OUTPUT without memory; out is empty. */
dpt_status dpt_groups_create(const dpt_inputs *inputs, int kind, dpt_groups *out);
void dpt_groups_destroy(dpt_groups *groups); /**< Local; an empty one is allowed. */

/** How many there would be. Local. */
int dpt_groups_count(const dpt_inputs *inputs, int kind);

#endif
