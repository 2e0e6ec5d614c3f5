#ifndef DELTAPATH_SRC_EDIT_ROWS_H
#define DELTAPATH_SRC_EDIT_ROWS_H

/* The order of the magnitudes within a row (0: the largest), also for rows that lie in several cells and on several
 * ranks of the communicator. Private to src/edit. */

#include "stage.h"

/** What is kept between cells: the order of entries whose row does not end in their cell. */
typedef struct dpt_edit_rows dpt_edit_rows;

/** Elements of a row: those that share the first index; all of a vector or scalar. Local. */
int64_t dpt_edit_row_length(const dpt_tensor_info *info);

/** Order the entries of all rows that lie in several cells, from their deltas as the stages before
 * this one left them. Only rows that several ranks share are exchanged.
 * Collective. @param[out] out released by dpt_edit_rows_destroy; NULL on error.
 * Errors: DPT_ERR_INPUT for a row of more than 2^32 - 1 elements; agreed. */
dpt_status dpt_edit_rows_create(dpt_edit_work *work, const dpt_edit_stage *stage,
                                dpt_edit_rows **out);
void dpt_edit_rows_destroy(dpt_edit_rows *rows);

/** Sees the order of the entries of a piece, of at most DPT_EDIT_PIECE. Local, thread-safe. */
typedef void (*dpt_edit_rows_fn)(void *ctx, dpt_range piece, const uint32_t *order);

/** Show the order of the entries of a whole own cell, piece by piece in any order; `fn` may overwrite the deltas of
 * a piece. Local, not thread-safe: shares the rows out itself.
 * @param[in] delta (cell.n) as the stages before left them. */
void dpt_edit_rows_order(const dpt_edit_rows *rows, dpt_range cell, const float *delta,
                         dpt_edit_rows_fn fn, void *ctx);

/** What a cell goes through on the way from its models to a sink. */
typedef struct dpt_edit_rows_flow {
    /** Deltas of a run of the cell. false: one is NaN or infinite. Local, thread-safe.
     * @param[in] own  the run is a piece of the cell, of which there is no other call with `own`. */
    bool (*load)(void *ctx, dpt_range run, bool own, float *delta);
    /** Takes a piece of the cell with its deltas, which it may overwrite, and their order. false as of load. Local,
     * thread-safe. */
    bool (*store)(void *ctx, dpt_range piece, const uint32_t *order, float *delta);
    void *ctx;
} dpt_edit_rows_flow;

/** Show every piece of an own cell with its order as dpt_edit_rows_order does, from deltas that are loaded a few rows
 * before, so that they stay in a near cache. Local, not thread-safe: shares the pieces out itself. @return false when a
 * call did. */
bool dpt_edit_rows_pass(const dpt_edit_rows *rows, dpt_range cell, const dpt_edit_rows_flow *flow);

/** Bytes per rank. Local. */
int64_t dpt_edit_rows_bytes(const dpt_catalog *catalog, const bool *selected, int ranks);

#endif
