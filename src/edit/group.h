#ifndef DELTAPATH_SRC_EDIT_GROUP_H
#define DELTAPATH_SRC_EDIT_GROUP_H

/* Which group of ranks decomposes which matrix, and when. */

#include "stage.h"

#include "deltapath/linalg/svd.h"

/** Ranks [g * size, (g + 1) * size) are group g; ranks beyond the last group only take part in
 * exchanges. In round i, group g has matrix place[g * rounds + i]. */
typedef struct dpt_edit_plan {
    int size;
    int groups;
    int rounds;
    int *place; /**< (groups, rounds) tensor, or -1 */
} dpt_edit_plan;

/** Triplets that a stage keeps of a matrix; 0 when they follow from the energy. Local. */
int64_t dpt_edit_lowrank_rank(const dpt_edit_stage_spec *spec, int64_t rows, int64_t cols);

/** Algorithm that a stage of low rank asks for. Local. */
dpt_svd_method dpt_edit_lowrank_svd(const dpt_edit_stage_spec *spec);

/** Bytes of a rank for one matrix shared by `size` ranks: slab, exchange and decomposition. Local. */
int64_t dpt_edit_matrix_bytes(const dpt_edit_stage_spec *spec, const dpt_tensor_info *info,
                              dpt_svd_method method, int size);

/** Choose the group size (input->svd_group, or the least makespan among those that fit the memory of
 * every rank) and share out the matrices, longest first.
 * Collective. Errors: DPT_ERR_USAGE when svd_group is above the number of ranks; agreed. */
dpt_status dpt_edit_plan_create(const dpt_edit_stage *stage, dpt_svd_method method,
                                dpt_edit_plan *plan);
void dpt_edit_plan_destroy(dpt_edit_plan *plan);

/** Tensor of a group in a round, or -1. Local. */
int dpt_edit_plan_matrix(const dpt_edit_plan *plan, int group, int round);

#endif
