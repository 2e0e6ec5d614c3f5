#include "store_internal.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"

#include <string.h>

/* Plain XXH3-64 of every tensor, although several ranks may hold parts of one. A hash runs from the
 * first byte to the last, so its state travels up the ranks: who holds the start of a tensor feeds
 * it while writing; who holds a later part waits for the state and reads its part once more. At
 * most one tensor of a rank begins on another rank. */

enum { PIECE_ELEMENTS = DPT_CELL, TAG_STATE = 7 };

typedef struct baton {
    dpt_hash state;
    int64_t ok;
} baton;

dpt_status dpt_store_hash_init(dpt_store_hasher *hasher, const dpt_comm *comm,
                               const dpt_catalog *catalog, const dpt_shard *shard) {
    *hasher = (dpt_store_hasher){.comm = comm, .catalog = catalog, .shard = shard};
    int64_t begin = shard->rank_first[hasher->comm->rank];
    int64_t end = shard->rank_first[hasher->comm->rank + 1];
    hasher->first_own = 0;
    hasher->end_own = 0;
    for (int t = 0; t < shard->ntensors && begin < end; t++) {
        if (shard->first_cell[t + 1] <= begin)
            hasher->first_own = t + 1;
        if (shard->first_cell[t] < end)
            hasher->end_own = t + 1;
    }
    int64_t own = hasher->end_own - hasher->first_own;
    dpt_status st = DPT_STORE_NEW(hasher->streams, own, "hash streams");
    if (st == DPT_OK)
        st = DPT_STORE_NEW(hasher->streamed, own, "hash streams");
    if (st == DPT_OK)
        st = DPT_STORE_NEW(hasher->hashes, hasher->catalog->count, "hashes");
    for (int64_t i = 0; i < own && st == DPT_OK; i++)
        dpt_hash_begin(&hasher->streams[i]);
    return st;
}

/* Elements [*begin, *end) of tensor t that this rank's cells hold. */
static void own_part(const dpt_store_hasher *hasher, int t, int64_t *begin, int64_t *end) {
    const dpt_shard *shard = hasher->shard;
    int64_t first = shard->rank_first[hasher->comm->rank];
    int64_t last = shard->rank_first[hasher->comm->rank + 1];
    int64_t numel = hasher->catalog->tensors[t].numel;
    first = first > shard->first_cell[t] ? first : shard->first_cell[t];
    last = last < shard->first_cell[t + 1] ? last : shard->first_cell[t + 1];
    *begin = (first - shard->first_cell[t]) * DPT_CELL;
    *end = (last - shard->first_cell[t]) * DPT_CELL;
    *end = *end < numel ? *end : numel;
}

void dpt_store_hash_feed(dpt_store_hasher *hasher, dpt_range range, const void *data) {
    if (range.tensor < hasher->first_own || range.tensor >= hasher->end_own || range.n == 0)
        return;
    int64_t slot = range.tensor - hasher->first_own;
    int64_t begin;
    int64_t end;
    own_part(hasher, range.tensor, &begin, &end);
    if (begin != 0 || range.ig != hasher->streamed[slot] || range.ig + range.n > end)
        return;
    int64_t size = dpt_dtype_size(hasher->catalog->tensors[range.tensor].dtype);
    dpt_hash_update(&hasher->streams[slot], data, (size_t)(range.n * size));
    hasher->streamed[slot] += range.n;
}

void dpt_store_hash_destroy(dpt_store_hasher *hasher) {
    dpt_mem_free(hasher->streams);
    dpt_mem_free(hasher->streamed);
    dpt_mem_free(hasher->hashes);
    *hasher = (dpt_store_hasher){.comm = NULL};
}

static dpt_status reread(dpt_store_hasher *hasher, dpt_store_hash_read_fn read, void *ctx, int t,
                         int64_t begin, int64_t end, dpt_hash *state) {
    int64_t size = dpt_dtype_size(hasher->catalog->tensors[t].dtype);
    if (begin >= end)
        return DPT_OK;
    char *buffer = dpt_mem_alloc(PIECE_ELEMENTS, (size_t)size, "hash buffer");
    dpt_status st = buffer == NULL ? DPT_ERR_OUTPUT : DPT_OK;
    for (int64_t ig = begin; ig < end && st == DPT_OK; ig += PIECE_ELEMENTS) {
        int64_t n = end - ig < PIECE_ELEMENTS ? end - ig : PIECE_ELEMENTS;
        st = read(ctx, t, ig, n, buffer);
        if (st == DPT_OK)
            dpt_hash_update(state, buffer, (size_t)(n * size));
    }
    dpt_mem_free(buffer);
    return st;
}

/* A rank that has failed still hands the baton on, marked as bad, so that nobody waits for it. */
static dpt_status hash_tensor(dpt_store_hasher *hasher, dpt_store_hash_read_fn read, void *ctx,
                              int t, dpt_status st) {
    const dpt_shard *shard = hasher->shard;
    int64_t slot = t - hasher->first_own;
    int64_t begin;
    int64_t end;
    own_part(hasher, t, &begin, &end);
    DPT_ASSERT(begin <= end && hasher->streamed[slot] <= end);
    if (begin == end)
        return st;
    baton now = {.state = hasher->streams[slot], .ok = 1};
    int64_t from = hasher->streamed[slot];
    if (begin > 0) {
        int source = dpt_shard_owner(shard, shard->rank_first[hasher->comm->rank] - 1);
        (void)dpt_comm_check(MPI_Recv(&now, sizeof now, MPI_BYTE, source, TAG_STATE,
                                      hasher->comm->mpi, MPI_STATUS_IGNORE),
                             "MPI_Recv");
        from = begin;
    }
    if (st == DPT_OK && now.ok)
        st = reread(hasher, read, ctx, t, from, end, &now.state);
    now.ok = now.ok && st == DPT_OK;
    if (end == hasher->catalog->tensors[t].numel) {
        hasher->hashes[t] = now.ok ? dpt_hash_value(&now.state) : 0;
        return st;
    }
    int target = dpt_shard_owner(shard, shard->rank_first[hasher->comm->rank + 1]);
    (void)dpt_comm_check(MPI_Send(&now, sizeof now, MPI_BYTE, target, TAG_STATE, hasher->comm->mpi),
                         "MPI_Send");
    return st;
}

dpt_status dpt_store_hash_finish(dpt_store_hasher *hasher, dpt_status st,
                                 dpt_store_hash_read_fn read, void *ctx) {
    const bool *wanted = hasher->wanted;
    /* Last tensor first: the next rank waits for its state. */
    for (int t = hasher->end_own - 1; t >= hasher->first_own; t--)
        if (wanted == NULL || wanted[t])
            st = hash_tensor(hasher, read, ctx, t, st);
    for (int t = 0; t < hasher->catalog->count && hasher->comm->rank == 0; t++)
        if (hasher->catalog->tensors[t].numel == 0)
            hasher->hashes[t] = dpt_hash_bytes("", 0);
    st = dpt_agree(hasher->comm, st);
    if (st == DPT_OK)
        st = dpt_agree(hasher->comm, dpt_comm_sum_i64(hasher->comm, (int64_t *)hasher->hashes,
                                                      hasher->catalog->count));
    return st;
}
