#ifndef DELTAPATH_TENSOR_SHARD_H
#define DELTAPATH_TENSOR_SHARD_H

#include "deltapath/tensor/catalog.h"

#include <stdint.h>

/** Elements of a cell, the fixed unit of sums and of work: cell c of a tensor holds the elements
 * [c * DPT_CELL, min((c + 1) * DPT_CELL, numel)) in row-major order. */
enum { DPT_CELL = 1 << 20 };

/** A run of elements of one tensor. */
typedef struct dpt_range {
    int tensor; /**< position in the catalog */
    int64_t ig; /**< first element */
    int64_t n;  /**< elements; may be 0 */
} dpt_range;

/** A block of one tensor: element (i, j) has the global index ig + i * stride + j.
 * A run is one row; a tensor-parallel block has stride = columns of the tensor. */
typedef struct dpt_block {
    int tensor;
    int64_t ig;
    int64_t rows;
    int64_t cols;
    int64_t stride;
} dpt_block;

/** A run as a block of one row. Local. */
static inline dpt_block dpt_block_of_range(dpt_range range) {
    return (dpt_block){
        .tensor = range.tensor, .ig = range.ig, .rows = 1, .cols = range.n, .stride = range.n};
}

/** The cells of a whole model in order, and the contiguous run of them that each rank owns. */
typedef struct dpt_shard {
    int ranks;
    int64_t cells; /**< cells of all tensors; a tensor without elements has none */
    int ntensors;
    int64_t *first_cell;        /**< (ntensors + 1) first cell of each tensor */
    int64_t *rank_first;        /**< (ranks + 1) first cell of each rank; empty runs are allowed */
    const dpt_catalog *catalog; /**< borrowed */
} dpt_shard;

/** Cut a model into cells and share them out so that no rank has more than its even share of the
 * elements plus one cell. Local; the same on all ranks. Errors: DPT_ERR_OUTPUT without memory; out empty. */
dpt_status dpt_shard_create(const dpt_catalog *catalog, int ranks, dpt_shard *out);
void dpt_shard_destroy(dpt_shard *shard); /**< Local. */

/** Elements of cell c (global cell number). Local. */
dpt_range dpt_shard_cell(const dpt_shard *shard, int64_t cell);

/** Rank that owns a cell, and the cell that holds an element. Local, O(log). */
int dpt_shard_owner(const dpt_shard *shard, int64_t cell);
int64_t dpt_shard_cell_of(const dpt_shard *shard, int tensor, int64_t ig);

/** Elements [begin, end) of a tensor in the cells of one rank; 0, 0 when it owns none. Local. */
void dpt_shard_owned(const dpt_shard *shard, int rank, int tensor, int64_t *begin, int64_t *end);

/** Even contiguous split of n items over parts: [begin, end) of part p; sizes differ by at most 1
 * and larger ones come first. Local. */
void dpt_shard_split(int64_t n, int parts, int part, int64_t *begin, int64_t *end);

#endif
