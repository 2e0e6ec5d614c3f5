#ifndef DELTAPATH_TENSOR_REDIST_H
#define DELTAPATH_TENSOR_REDIST_H

#include "deltapath/comm/comm.h"
#include "deltapath/tensor/shard.h"

#include <stdint.h>

/** Move blocks from the cells of their owners to the ranks that want them.
 *
 * Every rank tells its requests (all-gather of the block descriptions), packs what it owns of each,
 * and one exchange carries the bytes.
 * Collective over comm; lists may differ and be empty.
 * @param[in]  cell_data  (cells of this rank) start of each own cell, element size of its tensor.
 * @param[out] outs       (count) one buffer per wanted block, rows end to end.
 * Errors: DPT_ERR_INTERNAL for a block outside its tensor, DPT_ERR_OUTPUT without memory, on all ranks;
 * outs undefined.
 */
dpt_status dpt_redist_gather(const dpt_comm *comm, const dpt_shard *shard,
                             const void *const *cell_data, int64_t count, const dpt_block *wants,
                             void *const *outs);

/** The way back: move runs to the owners of their cells. Collective over comm.
 * Errors: as above. When two ranks send one element, the higher rank's value stays. */
dpt_status dpt_redist_scatter(const dpt_comm *comm, const dpt_shard *shard, void *const *cell_data,
                              int64_t count, const dpt_range *ranges, const void *const *data);

/** Bytes of the buffers of an exchange between so many ranks. Local. */
int64_t dpt_redist_bytes(int ranks);

#endif
