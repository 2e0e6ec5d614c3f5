#ifndef DELTAPATH_TENSOR_COLUMNS_H
#define DELTAPATH_TENSOR_COLUMNS_H

#include "deltapath/tensor/field.h"

/** Fetch columns of a matrix, or of a run of its rows, from a file that every rank of comm reads, each its own columns.
 *
 * The columns of a rank lie in short runs all over the matrix. So each rank reads whole rows, no row is read
 * twice, and the ranks send each other the columns. Memory does not grow with the matrix.
 * Collective over comm (same: source; tensor, rows, stride and first row ig / stride of want).
 * @param[in]  source  is `independent`.
 * @param[in]  want    stride is the width of the matrix; cols may be 0 and may overlap those of other ranks.
 * @param[out] out     the block, rows end to end; NULL when it is empty.
 * Errors: those of the source, DPT_ERR_OUTPUT without memory; agreed. */
dpt_status dpt_columns_fetch(const dpt_comm *comm, const dpt_source *source, const dpt_block *want,
                             void *out);

#endif
