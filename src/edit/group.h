#ifndef DELTAPATH_SRC_EDIT_GROUP_H
#define DELTAPATH_SRC_EDIT_GROUP_H

/* Which group of ranks decomposes which matrix, and when. */

#include "stage.h"

#include "deltapath/linalg/svd.h"

/** Elements of small matrices that a rank exchanges at once, and all ranks, for their deltas may lie on one. */
enum { DPT_EDIT_TOGETHER = 1 << 18, DPT_EDIT_TOGETHER_ALL = 4 * DPT_EDIT_TOGETHER };

/** What a group decomposes at once, and how it lies in the tensor: one matrix, or the matrices of an item that is stored
 * as (inputs, outputs) and so has them side by side in its rows. */
typedef struct dpt_edit_matrices {
    int tensor;
    int first, count;  /**< of the input's parts */
    dpt_layout stored; /**< elements of a row follow each other */
} dpt_edit_matrices;

/** Number of columns of matrix k of these, whose rows are those that are stored. Local. */
int64_t dpt_edit_matrices_cols(const dpt_edit_matrices *m, const dpt_parts *parts, int k);

/** Elements of a slab of these at most, where `size` ranks share them. Local. */
int64_t dpt_edit_matrices_slab(const dpt_edit_matrices *m, int size);

/** The matrices of a part; false when an earlier part of its item has them. Local. */
bool dpt_edit_matrices_of(const dpt_parts *parts, int part, dpt_edit_matrices *out);

/** Ranks [g * size, (g + 1) * size) are group g; ranks beyond the last group only take part in
 * exchanges. In round i, group g has matrices place[g * rounds + i]. */
typedef struct dpt_edit_plan {
    int size;
    int groups;
    int rounds;
    int *place;                  /**< (groups, rounds) of `matrices`, or -1 */
    int count;                   /**< */
    dpt_edit_matrices *matrices; /**< (count) in the order of the parts */
    int *first;                  /**< (tensors + 1) of each tensor in it */
} dpt_edit_plan;

/** Triplets that a stage keeps of a matrix; 0 when they follow from the energy. Local. */
int64_t dpt_edit_lowrank_rank(const dpt_edit_stage_spec *spec, int64_t rows, int64_t cols);

/** Algorithm that a stage of low rank asks for. Local. */
dpt_svd_method dpt_edit_lowrank_svd(const dpt_edit_stage_spec *spec);

/** Bytes of a rank for matrices shared by `size` ranks: slab, exchange and decomposition; at most, or where a random
 * decomposition converges. Local. */
int64_t dpt_edit_matrices_bytes(const dpt_edit_stage_spec *spec, const dpt_parts *parts,
                                const dpt_edit_matrices *m, dpt_svd_method method, int size,
                                bool expected);

/** Ranks of a group that a plan for so many ranks chooses, with memory enough. Local.
 * @param[in] stage  spec, catalog, input->parts and svd_group, covers. @return 0 without memory. */
int dpt_edit_plan_group(const dpt_edit_stage *stage, int ranks);

/** Operations of a decomposition of matrices, about. Local. */
double dpt_edit_matrices_flops(const dpt_edit_stage_spec *spec, const dpt_parts *parts,
                               const dpt_edit_matrices *m);

/** Choose the group size (input->svd_group, or the least makespan among those that fit the memory of
 * every rank) and share out the matrices, those of the longest first; those of a tensor follow each other.
 * Collective. Errors: DPT_ERR_USAGE when svd_group is above the number of ranks; agreed. */
dpt_status dpt_edit_plan_create(const dpt_edit_stage *stage, dpt_svd_method method,
                                dpt_edit_plan *plan);
void dpt_edit_plan_destroy(dpt_edit_plan *plan);

/** Number, in plan->matrices, of what a group has in a round, or -1. Local. */
int dpt_edit_plan_matrix(const dpt_edit_plan *plan, int group, int round);

#endif
