#ifndef DELTAPATH_SRC_EDIT_ALLOCATE_H
#define DELTAPATH_SRC_EDIT_ALLOCATE_H

#include "stage.h"

/* Parameters of `allocate`, and the order of the choices of `edit`. Private to src/edit. */

enum {
    DPT_ALLOCATE_EDIT,
    DPT_ALLOCATE_BYTES,
    DPT_ALLOCATE_MEAN,
    DPT_ALLOCATE_BY,
    DPT_ALLOCATE_K,
    DPT_ALLOCATE_TENSORS
};
enum {
    DPT_ALLOCATE_DARE,
    DPT_ALLOCATE_PRUNE,
    DPT_ALLOCATE_MULTIBIT,
    DPT_ALLOCATE_LOWRANK,
    DPT_ALLOCATE_EDITS
};

/* Least share of a tensor's entries that `dare` and `prune` may be given to keep. */
#define DPT_ALLOCATE_LEAST 0.01

#endif
