#ifndef DELTAPATH_SRC_EDIT_FACTORS_H
#define DELTAPATH_SRC_EDIT_FACTORS_H

/* Decompositions that edits of a sweep share, as the ranks have them that made them. */

#include "group.h"

typedef struct dpt_edit_factor_set dpt_edit_factor_set;

/** The set of a stage: the one that there is, or a new one where an edit that is expected will take it and there is room.
 * Local; the same on all ranks. @param[in] plan  of the stage. @param[out] out  NULL: none is kept.
 * Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_edit_factors_open(const dpt_edit_spec *spec, const dpt_edit_stage *stage,
                                 const dpt_edit_plan *plan, dpt_edit_factor_set **out);

/** Whether a set, or NULL, has the decomposition of a part: the same on all ranks of its group. Local. */
bool dpt_edit_factors_has(const dpt_edit_factor_set *set, int part);

/** Keep a decomposition, where there is room. Local; the same on all ranks of the group.
 * @param[in] rows, cols, local  of the matrix, and rows of this rank.
 * Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_edit_factors_keep(dpt_edit_factor_set *set, const dpt_comm *group, int part,
                                 int64_t rows, int64_t cols, int64_t local, const dpt_svd *svd);

/** What a decomposition that is kept says without its vectors: rank, s, s_error, norm, residual. Local; borrowed. */
const dpt_svd *dpt_edit_factors_get(const dpt_edit_factor_set *set, int part);

/** Its leading `rank` triplets, with the bits that dpt_svd_cut leaves. Collective over the group, agreed. */
dpt_status dpt_edit_factors_take(const dpt_edit_factor_set *set, const dpt_comm *group, int part,
                                 int64_t cols, int64_t local, int64_t rank, dpt_svd *out);

/** Note the ranks of a group. Local; NULL notes nothing. */
void dpt_edit_factors_note_group(dpt_edit_factors *factors, int size);

/** Count a matrix of this rank's group, on one of its ranks: decomposed, or taken. Local; NULL counts nothing. */
void dpt_edit_factors_note(dpt_edit_factors *factors, bool taken);

#endif
