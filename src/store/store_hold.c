#include "store_internal.h"

#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/traffic.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"
#include "deltapath/comm/stop.h"
#include "deltapath/tensor/redist.h"

#include <inttypes.h>

/* Tensors of HDF5 that all ranks read together: cells come one by one, not the same number on all ranks, so that a
 * collective call in their place would wait for ranks that have none left. So each tensor is read before the work, in rounds
 * of one run of rows for each rank; who has read a run sends it to those whose cells it holds, and there it stays. Chunks are
 * undone once, by as many ranks as there are runs. What a rank reads besides its own cells it reads by itself. */

bool dpt_store_holds(const dpt_store *store, dpt_store_reading how, const dpt_catalog *catalog,
                     const dpt_pair *pair, int tensor) {
    int own = pair != NULL ? dpt_pair_partner(pair, tensor) : tensor;
    if (how == DPT_STORE_ALONE || own < 0 || dpt_store_get_format(store) != DPT_STORE_HDF5)
        return false;
    const dpt_store_entry *entry = dpt_store_plain_entry(store, own);
    const dpt_tensor_info *info = &catalog->tensors[tensor];
    return entry != NULL && entry->bytes > 0 && entry->dtype == info->dtype &&
           entry->bytes == info->numel * dpt_dtype_size(info->dtype) &&
           (entry->by_hdf5 || how == DPT_STORE_TOGETHER);
}

static dpt_status hold_choose(const dpt_store *store, const dpt_store_holding *what,
                              dpt_store_held *held) {
    const dpt_catalog *all = what->shard->catalog;
    int *number = NULL;
    dpt_catalog_init(&held->catalog);
    dpt_status st = DPT_STORE_NEW(number, all->count, "tensors that are held");
    if (st == DPT_OK)
        st = DPT_STORE_NEW(held->number, dpt_store_catalog(store)->count, "tensors that are held");
    if (st == DPT_OK)
        st = DPT_STORE_NEW(held->entries, all->count, "tensors that are held");
    for (int i = 0; st == DPT_OK && i < dpt_store_catalog(store)->count; i++)
        held->number[i] = -1;
    for (int t = 0; st == DPT_OK && t < all->count; t++) {
        const dpt_tensor_info *info = &all->tensors[t];
        number[t] = -1;
        if (!what->wanted[t] || !dpt_store_holds(store, what->how, all, what->pair, t))
            continue;
        int own = what->pair != NULL ? dpt_pair_partner(what->pair, t) : t;
        number[t] = held->catalog.count;
        held->number[own] = held->catalog.count;
        held->entries[held->catalog.count] = dpt_store_plain_entry(store, own);
        st = dpt_catalog_add(&held->catalog, info->name, info->dtype, info->ndim, info->shape);
    }
    if (st == DPT_OK)
        st = dpt_store_part_shard(what->shard, number, &held->catalog, &held->shard);
    dpt_mem_free(number);
    return st;
}

/* The longest run of any tensor. The rows of chunks are known in the file alone: those that `cache` tells of. */
static int64_t hold_buffer(const dpt_store_held *held) {
    int64_t most = 0;
    for (int t = 0; t < held->catalog.count; t++) {
        const dpt_tensor_info *info = &held->catalog.tensors[t];
        int64_t bytes = info->numel * dpt_dtype_size(info->dtype);
        int64_t run = held->entries[t]->cache > DPT_STORE_HDF5_ROUND ? held->entries[t]->cache
                                                                     : DPT_STORE_HDF5_ROUND;
        run = run < DPT_STORE_HDF5_PIECE ? run : DPT_STORE_HDF5_PIECE;
        run = run < bytes ? run : bytes;
        most = run > most ? run : most;
    }
    return most;
}

void dpt_store_held_destroy(dpt_store_held *held) {
    if (held == NULL)
        return;
    dpt_field_destroy(held->field);
    dpt_shard_destroy(&held->shard);
    dpt_catalog_destroy(&held->catalog);
    dpt_mem_free(held->number);
    dpt_mem_free(held->entries);
    dpt_mem_free(held);
}

dpt_status dpt_store_hold_bytes(const dpt_store *store, const dpt_store_holding *what,
                                dpt_store_hold_needs *out) {
    dpt_store_held *held = NULL;
    *out = (dpt_store_hold_needs){.kept = 0};
    if (what->how == DPT_STORE_ALONE)
        return DPT_OK;
    dpt_status st = DPT_STORE_NEW(held, 1, "tensors that are held");
    if (st == DPT_OK)
        st = hold_choose(store, what, held);
    if (st == DPT_OK && held->catalog.count > 0) {
        out->kept = dpt_field_bytes(&held->catalog, &held->shard);
        out->besides = hold_buffer(held) + dpt_redist_bytes(held->shard.ranks);
        out->read = dpt_catalog_bytes(&held->catalog);
    }
    dpt_store_held_destroy(held);
    return st;
}

/* One tensor. Collective, agreed. */
static dpt_status hold_read_tensor(const dpt_comm *comm, dpt_store_held *held,
                                   dpt_store_hdf5_reader *reader, int t, char *buffer,
                                   int64_t room) {
    const dpt_store_entry *entry = held->entries[t];
    dpt_sink sink = dpt_field_sink(held->field);
    dpt_status st = dpt_agree(comm, dpt_store_hdf5_reader_tensor(reader, entry));
    if (st != DPT_OK)
        return st;
    int64_t rows = dpt_store_hdf5_reader_rows(reader), size = dpt_dtype_size(entry->dtype);
    int64_t slab = entry->ndim > 0 ? entry->bytes / entry->shape[0] : entry->bytes;
    dpt_store_hdf5_runs runs =
        dpt_store_hdf5_cut(&held->catalog.tensors[t], 0, slab <= room / rows ? rows : 1);
    for (int64_t first = 0; first < runs.total && st == DPT_OK; first += comm->size) {
        int64_t run = first + (comm->rank + t) % comm->size; /* small tensors go round */
        dpt_range own = {.tensor = t, .n = 0};
        if (run < runs.total)
            own = dpt_store_hdf5_run(&runs, t, run);
        st = dpt_store_hdf5_reader_read_together(reader, entry, own.ig, own.n, buffer);
        dpt_file_count(own.n * size, 0);
        st = dpt_agree(comm, st == DPT_OK ? dpt_stop_check() : st);
        const void *const data[] = {buffer};
        if (st == DPT_OK)
            st = dpt_agree(comm, sink.scatter(sink.ctx, own.n > 0, &own, data));
    }
    return st;
}

/* All tensors of a file. Collective, agreed. */
static dpt_status hold_read(dpt_store *store, const dpt_comm *comm, dpt_store_held *held) {
    const dpt_store_header *header = dpt_store_header_of(store);
    dpt_store_hdf5_reader *reader = NULL;
    int64_t room = hold_buffer(held);
    char *buffer = dpt_mem_alloc(room, 1, "tensors of an HDF5 file");
    dpt_status st = dpt_agree(comm, buffer != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    if (st == DPT_OK)
        st = dpt_store_hdf5_reader_open_together(
            comm, header->files[0], header->identities != NULL ? &header->identities[0] : NULL,
            &reader);
    for (int t = 0; t < held->catalog.count && st == DPT_OK; t++)
        st = hold_read_tensor(comm, held, reader, t, buffer, room);
    dpt_store_hdf5_reader_close(reader);
    dpt_mem_free(buffer);
    if (st == DPT_OK)
        dpt_log(DPT_LOG_INFO, "%s: %d tensors, %.3f GB, were read by all ranks together",
                dpt_store_path(store), held->catalog.count,
                (double)dpt_catalog_bytes(&held->catalog) / 1e9);
    return st;
}

dpt_status dpt_store_hold(dpt_store *store, const dpt_comm *comm, const dpt_store_holding *what) {
    dpt_store_held *held = NULL;
    DPT_ASSERT_SAME(comm, what->how);
    DPT_ASSERT_SAME_ARRAY(comm, what->wanted, what->shard->ntensors);
    if (what->how == DPT_STORE_ALONE || dpt_store_held_of(store)[0] != NULL)
        return DPT_OK;
    dpt_status st = DPT_STORE_NEW(held, 1, "tensors that are held");
    if (st == DPT_OK)
        st = hold_choose(store, what, held);
    st = dpt_agree(comm, st);
    bool any = st == DPT_OK && held->catalog.count > 0;
    if (any) {
        held->rank = comm->rank;
        st = dpt_field_create(comm, &held->catalog, &held->shard, &held->field);
    }
    if (any && st == DPT_OK)
        st = hold_read(store, comm, held);
    if (any && st == DPT_OK)
        dpt_store_held_of(store)[0] = held;
    else
        dpt_store_held_destroy(held);
    return st;
}

bool dpt_store_held_read(const dpt_store_held *held, dpt_range range, void *out) {
    int64_t begin, end;
    if (held == NULL || held->number[range.tensor] < 0 || range.n <= 0)
        return false;
    range.tensor = held->number[range.tensor];
    dpt_shard_owned(&held->shard, held->rank, range.tensor, &begin, &end);
    if (range.ig < begin || range.n > end - range.ig)
        return false;
    dpt_source source = dpt_field_source(held->field);
    return source.read(source.ctx, range, out) == DPT_OK;
}
