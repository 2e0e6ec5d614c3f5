#ifndef DELTAPATH_TENSOR_FIELD_H
#define DELTAPATH_TENSOR_FIELD_H

#include "deltapath/comm/comm.h"
#include "deltapath/tensor/catalog.h"
#include "deltapath/tensor/shard.h"

#include <stdbool.h>
#include <stdint.h>

/** Where the stored values of a model can be read from: a file, or a field in memory. The element
 * type of each tensor is that of the catalog. */
typedef struct dpt_source {
    void *ctx;
    const dpt_catalog *catalog; /**< borrowed */

    bool independent; /**< fetch is Local, of any blocks: a file that every rank reads for itself */

    /** Read a run of stored elements. Local. A field can read only the cells of its own rank. */
    dpt_status (*read)(void *ctx, dpt_range range, void *out);

    /** Fetch blocks, rows end to end without gaps in outs[i]. Collective over the ranks of the
     * source; every rank gives its own list, which may be empty. */
    dpt_status (*fetch)(void *ctx, int64_t count, const dpt_block *wants, void *const *outs);

    /** Stored elements of a run in place, without a copy; NULL where the run is not in memory.
     * Optional: the member is NULL for files. Local. */
    const void *(*view)(void *ctx, dpt_range range);
} dpt_source;

/** Where the values of an edited model go: a file being written, or a field in memory. */
typedef struct dpt_sink {
    void *ctx;
    const dpt_catalog *catalog; /**< names, shapes, and the element types to be stored; borrowed */

    /** Write a run of this rank's own cells. Local. Within a tensor, runs come in rising order. */
    dpt_status (*write)(void *ctx, dpt_range range, const void *data);

    /** Write runs of any cells, whoever owns them. Collective; the list may be empty. */
    dpt_status (*scatter)(void *ctx, int64_t count, const dpt_range *ranges,
                          const void *const *data);

    /** Place where the stored elements of a run of an own cell may be put in place of `write`; NULL
     * where there is none. Optional: the member is NULL for files. Local. */
    void *(*view)(void *ctx, dpt_range range);

    /** Whether runs of a tensor are thrown away, so that they need not be made. Optional. Local. */
    bool (*skips)(void *ctx, int tensor);
} dpt_sink;

/** One value for each element of a model, held in memory in cells: each rank has the run of cells
 * that `shard` gives it, in the types of `catalog`. */
typedef struct dpt_field dpt_field;

/** Allocate a field (contents undefined). catalog and shard are borrowed and must outlive it.
 * Collective over comm. Errors: DPT_ERR_OUTPUT when the budget does not allow it. */
dpt_status dpt_field_create(const dpt_comm *comm, const dpt_catalog *catalog,
                            const dpt_shard *shard, dpt_field **out);
void dpt_field_destroy(dpt_field *field); /**< Local. */

/** Bytes that a rank's part needs (the largest rank's). Local. */
int64_t dpt_field_bytes(const dpt_catalog *catalog, const dpt_shard *shard);

/** Memory of an own cell; NULL for a cell of another rank. Local. */
void *dpt_field_cell(dpt_field *field, int64_t cell);

/** Views of the field as source and as sink; valid while the field lives. Local. */
dpt_source dpt_field_source(dpt_field *field);
dpt_sink dpt_field_sink(dpt_field *field);

#endif
