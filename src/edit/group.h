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

/** Parameters of low rank. */
enum { DPT_LOWRANK_RANK, DPT_LOWRANK_SPARSITY, DPT_LOWRANK_ENERGY, DPT_LOWRANK_SVD };

/** Triplets that a stage keeps of a matrix, and those with which it is decomposed; 0 when they follow from an energy. Local. */
int64_t dpt_edit_lowrank_rank(const dpt_edit_stage_spec *spec, int64_t rows, int64_t cols);
int64_t dpt_edit_lowrank_decomposed(const dpt_edit_stage_spec *spec, int64_t rows, int64_t cols);

/** Algorithm that a stage of low rank asks for. Local. */
dpt_svd_method dpt_edit_lowrank_svd(const dpt_edit_stage_spec *spec);

/** Bytes of a rank for matrices shared by `size` ranks: slab, exchange and decomposition; at most, or where a random
 * decomposition converges. Local. */
int64_t dpt_edit_matrices_bytes(const dpt_edit_stage_spec *spec, const dpt_parts *parts,
                                const dpt_edit_matrices *m, int size, bool expected);

/** What the decomposition of matrices takes, as dpt_svd_cost counts. Local. */
double dpt_edit_matrices_cost(const dpt_edit_stage_spec *spec, const dpt_parts *parts,
                              const dpt_edit_matrices *m);

/** Choose the size of a group (input->svd_group, or the least makespan among those that svd_room holds) and share out the
 * matrices, those of the longest first; those of a tensor follow each other. What a plan and a run ask, with the same
 * answer. Local.
 * @param[in] stage  spec, catalog, input->parts, svd_group and svd_room, covers.
 * Errors: DPT_ERR_USAGE when svd_group is above the number of ranks; DPT_ERR_OUTPUT without memory; *plan empty. */
dpt_status dpt_edit_plan_make(const dpt_edit_stage *stage, int ranks, dpt_edit_plan *plan);
void dpt_edit_plan_destroy(dpt_edit_plan *plan);

/** Number, in plan->matrices, of what a group has in a round, or -1. Local. */
int dpt_edit_plan_matrix(const dpt_edit_plan *plan, int group, int round);

#endif
