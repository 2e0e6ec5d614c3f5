#include "store_internal.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"

/* Of a model that is written in part each rank writes what it has of the model: a cell is the same elements in both. */

static dpt_status choose(const char *path, const dpt_store_options *options,
                         dpt_store_partial *partial) {
    dpt_status st = DPT_STORE_NEW(partial->number, partial->all->count, "tensors of a model");
    for (int t = 0; t < partial->all->count && st == DPT_OK; t++) {
        const dpt_tensor_info *info = &partial->all->tensors[t];
        partial->number[t] = options->kept[t] ? partial->catalog.count : -1;
        DPT_ASSERT(!partial->delta || !options->kept[t] || dpt_dtype_editable(info->dtype));
        if (options->kept[t])
            st = dpt_catalog_add(&partial->catalog, info->name,
                                 partial->delta ? DPT_F32 : info->dtype, info->ndim, info->shape);
    }
    if (st == DPT_OK && partial->catalog.count == 0)
        st = dpt_error(DPT_ERR_INPUT,
                       "%s: none of the tensors that select names is edited: nothing would be "
                       "written: select others, or leave output.content out",
                       path);
    return st;
}

/* Cells of the kept tensors before a cell of the model. */
static int64_t kept_before(const dpt_shard *shard, const int *number, int64_t cell) {
    int64_t count = 0;
    for (int t = 0; t < shard->ntensors && shard->first_cell[t] < cell; t++) {
        int64_t end = shard->first_cell[t + 1] < cell ? shard->first_cell[t + 1] : cell;
        count += number[t] >= 0 ? end - shard->first_cell[t] : 0;
    }
    return count;
}

dpt_status dpt_store_part_shard(const dpt_shard *shard, const int *number,
                                const dpt_catalog *catalog, dpt_shard *out) {
    dpt_status st = dpt_shard_create(catalog, shard->ranks, out);
    for (int r = 0; r <= shard->ranks && st == DPT_OK; r++)
        out->rank_first[r] = kept_before(shard, number, shard->rank_first[r]);
    return st;
}

/* Room for a cell of a delta. */
static dpt_status make_room(dpt_store_partial *partial) {
    partial->before = dpt_mem_alloc(DPT_CELL, sizeof(float), "cell of a delta");
    partial->values = dpt_mem_alloc(DPT_CELL, sizeof(float), "cell of a delta");
    partial->difference = dpt_mem_alloc(DPT_CELL, sizeof(float), "cell of a delta");
    bool made = partial->before != NULL && partial->values != NULL && partial->difference != NULL;
    return made ? DPT_OK : DPT_ERR_OUTPUT;
}

dpt_status dpt_store_partial_create(const char *path, const dpt_catalog *all,
                                    const dpt_shard *shard, const dpt_store_options *options,
                                    dpt_store_partial **out) {
    dpt_store_partial *partial = NULL;
    *out = NULL;
    dpt_status st = DPT_STORE_NEW(partial, 1, "tensors of a model");
    if (st != DPT_OK)
        return st;
    partial->all = all;
    partial->delta = options->content == DPT_STORE_DELTA;
    dpt_catalog_init(&partial->catalog);
    st = choose(path, options, partial);
    if (st == DPT_OK)
        st = dpt_store_part_shard(shard, partial->number, &partial->catalog, &partial->shard);
    if (st == DPT_OK && partial->delta) {
        partial->pre = *options->pre;
        st = make_room(partial);
    }
    if (st == DPT_OK)
        *out = partial;
    else
        dpt_store_partial_destroy(partial);
    return st;
}

void dpt_store_partial_destroy(dpt_store_partial *partial) {
    if (partial == NULL)
        return;
    dpt_shard_destroy(&partial->shard);
    dpt_catalog_destroy(&partial->catalog);
    dpt_mem_free(partial->number);
    dpt_mem_free(partial->before);
    dpt_mem_free(partial->values);
    dpt_mem_free(partial->difference);
    dpt_mem_free(partial);
}

dpt_status dpt_store_partial_take(dpt_store_partial *partial, dpt_range *range, const void **data) {
    DPT_ASSERT(range->n <= DPT_CELL);
    int t = range->tensor;
    dpt_range wanted = *range;
    range->tensor = partial->number[t];
    if (range->tensor < 0 || !partial->delta)
        return DPT_OK;
    dpt_status st = partial->pre.read(partial->pre.ctx, wanted, partial->before);
    if (st != DPT_OK)
        return st;
    dpt_dtype_to_f32(partial->pre.catalog->tensors[t].dtype, partial->before, partial->values,
                     range->n);
    dpt_dtype_to_f32(partial->all->tensors[t].dtype, *data, partial->difference, range->n);
    for (int64_t i = 0; i < range->n; i++)
        partial->difference[i] -= partial->values[i];
    *data = partial->difference;
    return DPT_OK;
}
