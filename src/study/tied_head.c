#include "tied_head.h"

#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/stop.h"
#include "deltapath/model/model.h"

enum { PIECE = 1 << 16, BYTES_WIDEST = 4 };

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

/* What a file has of a head that is tied. */
typedef enum tied_kind { TIED_ABSENT, TIED_COPY, TIED_OTHER } tied_kind;

static dpt_status tied_find_kind(const dpt_comm *comm, dpt_store *store, const dpt_tied_head *at,
                                 tied_kind *kind) {
    const dpt_source source = dpt_store_source(store);
    *kind = TIED_ABSENT;
    if (at->head < 0 || at->embedding < 0)
        return DPT_OK;
    const dpt_tensor_info *a = &source.catalog->tensors[at->head];
    const dpt_tensor_info *b = &source.catalog->tensors[at->embedding];
    *kind = TIED_OTHER;
    int64_t differs = a->numel != b->numel;
    dpt_status st = DPT_OK;
    if (!dpt_dtype_editable(a->dtype) || !dpt_dtype_editable(b->dtype))
        return DPT_OK;
    if (!differs)
        st = dpt_agree(comm, tied_compare(comm, &source, at->head, at->embedding, &differs));
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_comm_max_i64(comm, &differs, 1));
    *kind = differs ? TIED_OTHER : TIED_COPY;
    return st;
}

static dpt_status tied_refuse(dpt_store *store, int head, const dpt_store *config) {
    return dpt_error(DPT_ERR_INPUT,
                     "%s: %s has other values than the embedding, to which the configuration of %s "
                     "ties it: write `tie_word_embeddings: false` there, or remove the tensor",
                     dpt_store_path(store), dpt_store_catalog(store)->tensors[head].name,
                     dpt_store_path(config));
}

/* What a file of quantised tensors takes has to be one tensor of the same type. */
static bool tied_fits(const dpt_inputs *in, const dpt_tied_head *at) {
    const dpt_tensor_info *tensors = in->catalog->tensors;
    char text[96];
    int64_t bytes;
    return !in->job->requantises ||
           (tensors[at->head].dtype == tensors[at->embedding].dtype &&
            !dpt_store_quantised(in->post, at->head, text, sizeof text, &bytes) &&
            !dpt_store_quantised(in->post, at->embedding, text, sizeof text, &bytes));
}

static bool tied_leaves_any(const dpt_inputs *in) {
    bool any = false;
    for (int t = 0; t < in->catalog->count; t++)
        any = any || in->selected[t];
    return any;
}

/* The post-trained model has a copy, and the pre-trained one no other head. */
static dpt_status tied_take(dpt_inputs *in, const dpt_tied_head *at) {
    const char *name = in->catalog->tensors[at->head].name;
    if (!tied_fits(in, at))
        return dpt_error(
            DPT_ERR_INPUT,
            "%s: %s is a copy of the embedding, to which the configuration ties it, and the two "
            "are not plain tensors of one type: remove the tensor, or leave output.quantise out",
            in->job->post, name);
    bool chosen = in->selected[at->head];
    in->selected[at->head] = false;
    if (!tied_leaves_any(in))
        return dpt_job_locate_select(
            in->job, dpt_error(DPT_ERR_USAGE,
                               "select: %s alone is left to edit, a copy of the embedding, to "
                               "which the configuration of %s ties it: select %s",
                               name, in->job->post, in->catalog->tensors[at->embedding].name));
    if (chosen)
        dpt_log(DPT_LOG_INFO,
                "%s: %s is a copy of the embedding, to which the configuration ties it: it %s",
                in->job->post, name,
                in->selected[at->embedding] ? "gets the values of the edited embedding"
                                            : "stays, as the embedding is not selected");
    in->out_catalog.tensors[at->head].dtype = in->out_catalog.tensors[at->embedding].dtype;
    in->copy = *at;
    return DPT_OK;
}

static dpt_status tied_check_reference(const dpt_comm *comm, dpt_store *store) {
    dpt_tied_head at;
    tied_kind kind = TIED_ABSENT;
    dpt_status st = dpt_agree(
        comm, dpt_model_config_head(dpt_store_config(store), dpt_store_catalog(store), &at));
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_store_check_head(store, &at));
    if (st == DPT_OK && at.tied)
        st = tied_find_kind(comm, store, &at, &kind);
    return st == DPT_OK && kind == TIED_OTHER ? tied_refuse(store, at.head, store) : st;
}

dpt_status dpt_tied_head_check(const dpt_comm *comm, dpt_inputs *in) {
    const dpt_tied_head *pre = &in->pair.pre.head, *post = &in->pair.post.head;
    tied_kind kinds[2] = {TIED_ABSENT, TIED_ABSENT};
    bool model = dpt_inputs_needs_model(in);
    dpt_status st = DPT_OK;
    /* Both models run with the configuration of the post-trained one. */
    if (post->tied || pre->tied)
        st = tied_find_kind(comm, in->pre, pre, &kinds[0]);
    if (st == DPT_OK && model && kinds[0] == TIED_OTHER)
        st = tied_refuse(in->pre, pre->head, post->tied ? in->post : in->pre);
    if (st == DPT_OK && post->tied)
        st = tied_find_kind(comm, in->post, post, &kinds[1]);
    if (st == DPT_OK && model && kinds[1] == TIED_OTHER)
        st = tied_refuse(in->post, post->head, in->post);
    if (st == DPT_OK && kinds[0] != TIED_OTHER && kinds[1] == TIED_COPY)
        st = tied_take(in, post);
    for (int d = 0; d < in->job->njudged && st == DPT_OK && model; d++)
        if (in->reference[d] != NULL)
            st = tied_check_reference(comm, in->reference[d]);
    return st;
}
