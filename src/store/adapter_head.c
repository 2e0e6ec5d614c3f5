#include "adapter.h"

#include "deltapath/base/mem.h"

/* An adapter on a base whose head is its token embedding. */

typedef struct adapter_head {
    const dpt_store_adapter *adapter;
    dpt_store_files *io;
    const char *path;
} adapter_head;

static dpt_status adapter_load_factor(const adapter_head *at, int64_t factor, float **values) {
    const dpt_store_entry *entry = &at->adapter->header->factors[factor];
    int64_t n = entry->bytes / dpt_dtype_size(entry->dtype);
    void *stored = dpt_mem_alloc(entry->bytes, 1, "factor of an adapter");
    *values = dpt_mem_alloc(n, sizeof **values, "factor of an adapter");
    dpt_status st = stored != NULL && *values != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    if (st == DPT_OK)
        st = dpt_store_files_read_entry(at->io, entry, 0, n, stored);
    if (st == DPT_OK)
        dpt_dtype_to_f32(entry->dtype, stored, *values, n);
    dpt_mem_free(stored);
    return st;
}

/* Whether two factors, or none, are the same; `turned`: one is the other's transpose. */
static dpt_status adapter_compare(const adapter_head *at, int64_t a, int64_t b, bool turned,
                                  bool *same) {
    if (a < 0 || b < 0) {
        *same = *same && a == b;
        return DPT_OK;
    }
    const dpt_store_entry *factors = at->adapter->header->factors, *x = factors + a,
                          *y = factors + b;
    *same = *same && x->ndim == 2 && y->ndim == 2 && x->shape[turned] == y->shape[0] &&
            x->shape[!turned] == y->shape[1];
    if (!*same)
        return DPT_OK;
    float *one = NULL, *other = NULL;
    int64_t rows = y->shape[0], cols = y->shape[1];
    dpt_status st = adapter_load_factor(at, a, &one);
    if (st == DPT_OK)
        st = adapter_load_factor(at, b, &other);
    for (int64_t i = 0; i < rows && st == DPT_OK; i++)
        for (int64_t j = 0; j < cols; j++)
            *same = *same && one[turned ? j * rows + i : i * cols + j] == other[i * cols + j];
    dpt_mem_free(other);
    dpt_mem_free(one);
    return st;
}

/* Whether the adapter makes a head that the base does not store what it makes the embedding. */
static dpt_status adapter_head_is_same(const adapter_head *at, const dpt_store_adapted *embedding,
                                       bool *same) {
    const dpt_store_adapted *apart = &at->adapter->apart;
    bool factors = apart->a >= 0 || apart->b >= 0;
    *same = !factors || (apart->rank == embedding->rank && apart->scaling == embedding->scaling);
    dpt_status st = adapter_compare(at, apart->full, embedding->full, false, same);
    if (st == DPT_OK)
        st = adapter_compare(at, apart->a, embedding->b, true, same);
    return st == DPT_OK ? adapter_compare(at, apart->b, embedding->a, true, same) : st;
}

static dpt_status adapter_check_apart(const adapter_head *at, const dpt_tied_head *head) {
    const dpt_store_adapted *apart = &at->adapter->apart;
    const dpt_store_adapted *embedding = head->tied && head->embedding >= 0
                                             ? dpt_store_adapter_of(at->adapter, head->embedding)
                                             : NULL;
    int64_t factor = apart->full >= 0 ? apart->full : apart->a >= 0 ? apart->a : apart->b;
    bool same = false;
    dpt_status st = embedding != NULL ? adapter_head_is_same(at, embedding, &same) : DPT_OK;
    if (st != DPT_OK || same)
        return st;
    return dpt_error(
        DPT_ERR_INPUT,
        "%s: tensor '%.300s' changes a head that the base %s does not have%s: name the base of "
        "this adapter, or, where the base ties its head to the embedding and the adapter does not, "
        "merge it with PEFT and give the merged model",
        at->path, at->adapter->header->factors[factor].name, at->adapter->header->base,
        embedding != NULL ? ", in another way than the embedding" : "");
}

dpt_status dpt_store_adapter_check_head(const dpt_store_adapter *adapter, dpt_store_files *io,
                                        const char *path, const dpt_tied_head *head) {
    const adapter_head at = {.adapter = adapter, .io = io, .path = path};
    if (adapter->tensors == NULL)
        return DPT_OK;
    if (adapter->apart.full >= 0 || adapter->apart.a >= 0 || adapter->apart.b >= 0)
        return adapter_check_apart(&at, head);
    if (!head->tied || adapter->ties || head->embedding < 0 ||
        dpt_store_adapter_of(adapter, head->embedding) == NULL ||
        (head->head >= 0 && dpt_store_adapter_of(adapter, head->head) != NULL))
        return DPT_OK;
    return dpt_error(
        DPT_ERR_INPUT,
        "%s: the adapter changes '%.300s', to which the base %s ties its head, without the head, "
        "which PEFT then leaves as it is: train it with `ensure_weight_tying: true`, or merge it "
        "with PEFT and give the merged model",
        path, adapter->catalog->tensors[head->embedding].name, adapter->header->base);
}
