#include "deltapath/tensor/shard.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"

/* Largest i in [0, n) with first[i] <= value; first rises and first[0] <= value. */
static int64_t last_not_above(const int64_t *first, int64_t n, int64_t value) {
    int64_t low = 0;
    int64_t high = n;
    DPT_ASSERT(n > 0 && first[0] <= value);
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (first[middle] <= value)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static int64_t shard_cells_of(int64_t numel) {
    return numel / DPT_CELL + (numel % DPT_CELL != 0);
}

void dpt_shard_split(int64_t n, int parts, int part, int64_t *begin, int64_t *end) {
    DPT_ASSERT(n >= 0 && part >= 0 && part < parts);
    int64_t minimum = n / parts;
    int64_t larger = n % parts;
    *begin = part * minimum + (part < larger ? part : larger);
    *end = *begin + minimum + (part < larger);
}

/* A cell belongs to the rank in whose even share of the elements it begins: no rank has more than
 * its share and the rest of one cell. */
static void share_out(dpt_shard *shard) {
    const dpt_catalog *catalog = shard->catalog;
    int64_t total = dpt_catalog_elements(catalog);
    int tensor = 0;
    int64_t before = 0; /* elements of the tensors before `tensor` */
    for (int rank = 0; rank < shard->ranks; rank++) {
        int64_t begin;
        int64_t end;
        dpt_shard_split(total, shard->ranks, rank, &begin, &end);
        while (tensor < catalog->count && before + catalog->tensors[tensor].numel <= begin)
            before += catalog->tensors[tensor++].numel;
        int64_t inside = begin - before;
        shard->rank_first[rank] = tensor < catalog->count
                                      ? shard->first_cell[tensor] + shard_cells_of(inside)
                                      : shard->cells;
        DPT_ASSERT(rank == 0 ? shard->rank_first[0] == 0
                             : shard->rank_first[rank - 1] <= shard->rank_first[rank]);
        DPT_ASSERT(shard->rank_first[rank] <= shard->cells);
    }
    shard->rank_first[shard->ranks] = shard->cells;
}

dpt_status dpt_shard_create(const dpt_catalog *catalog, int ranks, dpt_shard *out) {
    *out = (dpt_shard){.ranks = ranks, .ntensors = catalog->count, .catalog = catalog};
    out->first_cell =
        dpt_mem_alloc((int64_t)catalog->count + 1, sizeof *out->first_cell, "cells of tensors");
    out->rank_first = dpt_mem_alloc((int64_t)ranks + 1, sizeof *out->rank_first, "cells of ranks");
    if (out->first_cell == NULL || out->rank_first == NULL) {
        dpt_shard_destroy(out);
        return DPT_ERR_OUTPUT;
    }
    for (int i = 0; i < catalog->count; i++) {
        out->first_cell[i] = out->cells;
        out->cells += shard_cells_of(catalog->tensors[i].numel);
    }
    out->first_cell[catalog->count] = out->cells;
    share_out(out);
    return DPT_OK;
}

void dpt_shard_destroy(dpt_shard *shard) {
    dpt_mem_free(shard->first_cell);
    dpt_mem_free(shard->rank_first);
    *shard = (dpt_shard){.ranks = 0};
}

dpt_range dpt_shard_cell(const dpt_shard *shard, int64_t cell) {
    DPT_ASSERT(cell >= 0 && cell < shard->cells);
    /* Tensors without elements share their first cell with the next: the last of them has it. */
    int tensor = (int)last_not_above(shard->first_cell, shard->ntensors, cell);
    int64_t ig = (cell - shard->first_cell[tensor]) * DPT_CELL;
    int64_t left = shard->catalog->tensors[tensor].numel - ig;
    DPT_ASSERT(left > 0);
    return (dpt_range){.tensor = tensor, .ig = ig, .n = left < DPT_CELL ? left : DPT_CELL};
}

int dpt_shard_owner(const dpt_shard *shard, int64_t cell) {
    DPT_ASSERT(cell >= 0 && cell < shard->cells);
    return (int)last_not_above(shard->rank_first, shard->ranks, cell);
}

int64_t dpt_shard_cell_of(const dpt_shard *shard, int tensor, int64_t ig) {
    DPT_ASSERT(tensor >= 0 && tensor < shard->ntensors);
    DPT_ASSERT(ig >= 0 && ig < shard->catalog->tensors[tensor].numel);
    return shard->first_cell[tensor] + ig / DPT_CELL;
}

void dpt_shard_owned(const dpt_shard *shard, int rank, int tensor, int64_t *begin, int64_t *end) {
    DPT_ASSERT(rank >= 0 && rank < shard->ranks && tensor >= 0 && tensor < shard->ntensors);
    int64_t first = shard->first_cell[tensor];
    int64_t last = shard->first_cell[tensor + 1];
    int64_t from = shard->rank_first[rank];
    int64_t to = shard->rank_first[rank + 1];
    from = from > first ? from : first;
    to = to < last ? to : last;
    *begin = 0;
    *end = 0;
    if (from >= to)
        return;
    int64_t numel = shard->catalog->tensors[tensor].numel;
    *begin = (from - first) * DPT_CELL;
    *end = to == last ? numel : (to - first) * DPT_CELL;
    DPT_ASSERT(*begin < *end && *end <= numel);
}
