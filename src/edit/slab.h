#ifndef DELTAPATH_SRC_EDIT_SLAB_H
#define DELTAPATH_SRC_EDIT_SLAB_H

/* Rows of matrices that a rank decomposes with its group: out of the cells of their owners, and back. */

#include "group.h"

/** What a rank has of the matrices of its group: rows of the tensor as it is stored. */
typedef struct dpt_edit_slab {
    const dpt_edit_matrices *of; /**< NULL: this rank has none in this round */
    int64_t first_row, last_row; /**< of this rank */
    float *values;               /**< (last_row - first_row, of->stored.cols) */
} dpt_edit_slab;

/** Slabs that are exchanged at once: one, or several that are small. */
typedef struct dpt_edit_slabs {
    int count;
    dpt_edit_slab *items; /**< (count) */
    int64_t elements;     /**< of all */
    float *values;        /**< (elements) those of all, end to end */
} dpt_edit_slabs;

/** Elements of a slab. Local. */
int64_t dpt_edit_slab_elements(const dpt_edit_slab *m);

/** Steps of an exchange: of at most DPT_EDIT_CHUNK elements where there is one slab, else one. Local. */
int64_t dpt_edit_slabs_steps(const dpt_edit_slabs *slabs);

/** Bytes of a buffer for the stored values of a step. Local. */
int64_t dpt_edit_slabs_room(const dpt_edit_slabs *slabs);

/** Deltas of the slabs as the stages before this one left them. Collective over the work's communicator (same:
 * steps).
 * @param pre, post  buffers of dpt_edit_slabs_room bytes. @param[in] follows  stages before this one left base cells. */
dpt_status dpt_edit_slabs_fetch(dpt_edit_work *work, const dpt_edit_stage *stage,
                                const dpt_edit_slabs *slabs, int64_t steps, void *pre, void *post,
                                bool follows);

/** Send the slabs to the owners of their cells, which have base cells. Collective (same: steps). */
dpt_status dpt_edit_slabs_scatter(dpt_edit_work *work, const dpt_edit_slabs *slabs, int64_t steps);

#endif
