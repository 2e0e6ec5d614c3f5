#ifndef DELTAPATH_TESTS_LINALG_SLABS_H
#define DELTAPATH_TESTS_LINALG_SLABS_H

#include "deltapath/comm/comm.h"

/** First row of a rank's slab, `rows` after the last rank. @param[in] split  0 even; 1 all on the last rank; 2 the first
 * rank empty and the others uneven. */
static inline int64_t first_row(const dpt_comm *comm, int64_t rows, int r, int split) {
    if (r >= comm->size)
        return rows;
    if (split == 1)
        return 0;
    if (split == 2 && comm->size > 1)
        return r <= 1 ? 0 : rows * (r - 1) * (r - 1) / ((comm->size - 1) * (comm->size - 1));
    return rows * r / comm->size;
}

#endif
