#ifndef DELTAPATH_SRC_EDIT_MAGNITUDES_H
#define DELTAPATH_SRC_EDIT_MAGNITUDES_H

#include "stage.h"

/* Counts of the magnitudes of a tensor, from which follows what pruning and blocks of equal count lose of it.
 * Private to src/edit. */

/** Bins are the fp32 bits of a magnitude without their lowest 16: 128 to a power of two. Inside a bin the
 * magnitudes are taken as evenly spread. */
typedef struct dpt_edit_magnitudes {
    int64_t *count; /**< (bins) of all ranks */
    int64_t n;      /**< entries */
    int64_t *above; /**< (bins) entries in larger bins */
    double *sum;    /**< (bins) of their magnitudes */
    double *square; /**< (bins) of their squares */
} dpt_edit_magnitudes;

dpt_status dpt_edit_magnitudes_create(dpt_edit_magnitudes *out); /**< Local. */
void dpt_edit_magnitudes_destroy(dpt_edit_magnitudes *of);       /**< Local. */

/** Count a tensor anew, or one part of it. Collective over the work's communicator (same: tensor, part); an agreed
 * status. @param[in] part  of the input's parts; -1: all of the tensor.
 * Determinism: same bits at any number of ranks. */
dpt_status dpt_edit_magnitudes_count(dpt_edit_work *work, int tensor, int part,
                                     dpt_edit_magnitudes *of);

/** Sum of the squares of all. Local. */
double dpt_edit_magnitudes_square(const dpt_edit_magnitudes *of);

/** Share of |Delta|^2 that is lost when the `kept` largest entries stay. Local. */
double dpt_edit_magnitudes_pruned(const dpt_edit_magnitudes *of, int64_t kept);

/** Share of |Delta|^2 that is |E|^2 when the magnitudes of each of `blocks` blocks of equal count become their mean,
 * zeros staying zero. Local. */
double dpt_edit_magnitudes_blocks(const dpt_edit_magnitudes *of, int blocks);

#endif
