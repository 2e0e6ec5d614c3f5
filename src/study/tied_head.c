#include "tied_head.h"

#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/stop.h"
#include "deltapath/tensor/prefix.h"
#include "deltapath/tensor/role.h"

#include <string.h>

static const char HEAD[] = DPT_NAME_HEAD, EMBEDDING[] = DPT_NAME_EMBEDDING;

enum { PIECE = 1 << 16, BYTES_WIDEST = 4 };

/* The number of a tensor whatever its prefixes; -1: there is none. */
static dpt_status tied_find(const dpt_catalog *catalog, const char *name, int *tensor) {
    dpt_prefix_index names;
    dpt_status st = dpt_prefix_index_create(catalog, &names);
    *tensor = st == DPT_OK ? dpt_prefix_find(&names, name) : -1;
    dpt_prefix_index_destroy(&names);
    return st;
}

static dpt_status tied_read(const dpt_source *source, int tensor, int64_t ig, int64_t n,
                            char *stored, float *values) {
    dpt_range range = {.tensor = tensor, .ig = ig, .n = n};
    dpt_status st = source->read(source->ctx, range, stored);
    if (st == DPT_OK)
        dpt_dtype_to_f32(source->catalog->tensors[tensor].dtype, stored, values, n);
    return st;
}

/* This rank's share of the elements. */
static dpt_status tied_compare(const dpt_comm *comm, const dpt_source *source, int head,
                               int embedding, int64_t *differs) {
    int64_t numel = source->catalog->tensors[head].numel;
    int64_t each = (numel + comm->size - 1) / comm->size;
    int64_t at = each * comm->rank, end = at + each < numel ? at + each : numel;
    char *stored = dpt_mem_alloc(PIECE, BYTES_WIDEST, "values to compare");
    float *values = dpt_mem_alloc(2 * PIECE, sizeof *values, "values to compare");
    dpt_status st = stored != NULL && values != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    for (; at < end && st == DPT_OK && !*differs; at += PIECE) {
        int64_t n = end - at < PIECE ? end - at : PIECE;
        st = dpt_stop_check();
        if (st == DPT_OK)
            st = tied_read(source, head, at, n, stored, values);
        if (st == DPT_OK)
            st = tied_read(source, embedding, at, n, stored, values + PIECE);
        for (int64_t i = 0; i < n && st == DPT_OK; i++)
            *differs = *differs || values[i] != values[PIECE + i];
    }
    dpt_mem_free(values);
    dpt_mem_free(stored);
    return st;
}

/* @param[in] config  the model whose configuration ties the head. */
static dpt_status tied_check(const dpt_comm *comm, dpt_store *store, const dpt_store *config,
                             bool *copy) {
    const dpt_source source = dpt_store_source(store);
    int head = -1, embedding = -1;
    *copy = false;
    dpt_status st = tied_find(source.catalog, HEAD, &head);
    if (st == DPT_OK)
        st = tied_find(source.catalog, EMBEDDING, &embedding);
    st = dpt_agree(comm, st);
    if (st != DPT_OK || head < 0 || embedding < 0)
        return st;
    const dpt_tensor_info *a = &source.catalog->tensors[head];
    const dpt_tensor_info *b = &source.catalog->tensors[embedding];
    if (!dpt_dtype_editable(a->dtype) || !dpt_dtype_editable(b->dtype))
        return DPT_OK; /* refused with its name when the model is made */
    int64_t differs = a->numel != b->numel;
    if (!differs)
        st = dpt_agree(comm, tied_compare(comm, &source, head, embedding, &differs));
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_comm_max_i64(comm, &differs, 1));
    *copy = !differs;
    if (st == DPT_OK && differs)
        st = dpt_error(DPT_ERR_INPUT,
                       "%s: %s has other values than the embedding, to which tie_word_embeddings "
                       "in the configuration of %s ties it: write `false` there, or remove the "
                       "tensor",
                       dpt_store_path(store), HEAD, dpt_store_path(config));
    return st;
}

dpt_status dpt_tied_head_check(const dpt_comm *comm, const dpt_inputs *in) {
    bool tied = dpt_store_is_tied(in->post), copy = false;
    dpt_status st = DPT_OK;
    /* Both models run with the configuration of the post-trained one. */
    if (tied || dpt_store_is_tied(in->pre))
        st = tied_check(comm, in->pre, tied ? in->post : in->pre, &copy);
    copy = false;
    if (tied && st == DPT_OK)
        st = tied_check(comm, in->post, in->post, &copy);
    int head = -1;
    if (st == DPT_OK && copy)
        st = dpt_agree(comm, tied_find(in->catalog, HEAD, &head));
    if (head >= 0 && in->selected[head])
        dpt_log(
            DPT_LOG_WARN,
            "%s: %s is a copy of the embedding, to which config.json ties the head: edits of it "
            "change no loss: select.exclude leaves it out",
            in->job->post, HEAD);
    for (int d = 0; d < in->job->njudged && st == DPT_OK; d++)
        if (in->reference[d] != NULL && dpt_store_is_tied(in->reference[d]))
            st = tied_check(comm, in->reference[d], in->reference[d], &copy);
    return st;
}
