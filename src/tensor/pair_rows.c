#include "pair_rows.h"

#include "deltapath/tensor/role.h"

#include <stddef.h>

/* Embeddings and heads of models whose tokenizers differ: row i of post belongs to the row of pre with the same token. */

enum { CHUNK = 1 << 12 };

bool dpt_pair_rows_apply(const dpt_token_rows *tokens, const dpt_tensor_info *pre,
                         const dpt_tensor_info *post) {
    bool fits = tokens != NULL && dpt_role_has_vocabulary(post->name) && pre->ndim == post->ndim &&
                (post->ndim == 1 || post->ndim == 2) && dpt_dtype_editable(pre->dtype) &&
                dpt_dtype_editable(post->dtype);
    if (fits && post->ndim == 2)
        fits = pre->shape[1] == post->shape[1];
    return fits && (pre->shape[0] != post->shape[0] || !tokens->same);
}

static int64_t rows_cols(const dpt_tensor_info *info) {
    return info->ndim == 2 ? info->shape[1] : 1;
}

static bool rows_is(const dpt_pair *pair, int tensor) {
    return pair->by_rows != NULL && pair->by_rows[tensor];
}

/* Row of pre for a row of post; -1, also where pre has no row for the token. */
static int64_t rows_partner(const dpt_pair *pair, int tensor, int64_t row) {
    const dpt_token_rows *tokens = pair->post.tokens;
    int64_t rows = pair->pre.source.catalog->tensors[pair->pre_of[tensor]].shape[0];
    int64_t partner = row < tokens->post ? tokens->pre_of[row] : -1;
    return partner < rows ? partner : -1;
}

/* Rows of a tensor of post that have a partner. */
static int64_t rows_shared(const dpt_pair *pair, int tensor) {
    int64_t rows = pair->catalog.tensors[tensor].shape[0], shared = 0;
    for (int64_t row = 0; row < rows && row < pair->post.tokens->post; row++)
        shared += rows_partner(pair, tensor, row) >= 0;
    return shared;
}

int64_t dpt_pair_shared(const dpt_pair *pair, int tensor) {
    const dpt_tensor_info *info = &pair->catalog.tensors[tensor];
    return rows_is(pair, tensor) ? rows_shared(pair, tensor) * rows_cols(info) : info->numel;
}

bool dpt_pair_next_left_out(const dpt_pair *pair, dpt_range range, int64_t *at, int64_t *n) {
    int64_t from = *at + *n;
    if (!rows_is(pair, range.tensor))
        return false;
    int64_t cols = rows_cols(&pair->catalog.tensors[range.tensor]);
    for (; from < range.n; from = ((range.ig + from) / cols + 1) * cols - range.ig) {
        int64_t row = (range.ig + from) / cols, end = (row + 1) * cols - range.ig;
        if (rows_partner(pair, range.tensor, row) >= 0)
            continue;
        *at = from;
        *n = (end < range.n ? end : range.n) - from;
        return true;
    }
    return false;
}

/* A run of elements of one model in the pair's type. */
static dpt_status rows_read_run(const dpt_source *source, dpt_dtype to, dpt_range range,
                                void *out) {
    dpt_dtype from = source->catalog->tensors[range.tensor].dtype;
    float stored[CHUNK];
    dpt_status st = DPT_OK;
    if (from == to)
        return source->read(source->ctx, range, out);
    for (int64_t at = 0; at < range.n && st == DPT_OK; at += CHUNK) {
        dpt_range part = {.tensor = range.tensor,
                          .ig = range.ig + at,
                          .n = range.n - at < CHUNK ? range.n - at : CHUNK};
        st = source->read(source->ctx, part, stored);
        if (st == DPT_OK) /* the pair's type is fp32 where those of its models differ */
            dpt_dtype_to_f32(from, stored, (float *)out + at, part.n);
    }
    return st;
}

/* Rows that follow each other in both models, or have no partner, are read at once. */
dpt_status dpt_pair_rows_read(const dpt_pair *pair, dpt_range range, void *out) {
    const dpt_tensor_info *info = &pair->catalog.tensors[range.tensor];
    int64_t cols = rows_cols(info), size = dpt_dtype_size(info->dtype);
    dpt_status st = DPT_OK;
    for (int64_t at = 0, next; at < range.n && st == DPT_OK; at = next) {
        int64_t row = (range.ig + at) / cols, partner = rows_partner(pair, range.tensor, row),
                last = row;
        do {
            last++;
            next = last * cols - range.ig;
        } while (next < range.n && rows_partner(pair, range.tensor, last) ==
                                       (partner < 0 ? -1 : partner + last - row));
        next = next < range.n ? next : range.n;
        dpt_range run = {.tensor = range.tensor, .ig = range.ig + at, .n = next - at};
        if (partner >= 0) {
            run.tensor = pair->pre_of[range.tensor];
            run.ig += (partner - row) * cols;
        }
        st = rows_read_run(partner >= 0 ? &pair->pre.source : &pair->post.source, info->dtype, run,
                           (char *)out + at * size);
    }
    return st;
}

dpt_status dpt_pair_rows_fetch(const dpt_pair *pair, const dpt_block *want, void *out) {
    int64_t size = dpt_dtype_size(pair->catalog.tensors[want->tensor].dtype);
    bool whole = want->rows == 1 || want->stride == want->cols;
    int64_t runs = whole ? 1 : want->rows, n = whole ? want->rows * want->cols : want->cols;
    dpt_status st = DPT_OK;
    for (int64_t i = 0; i < runs && n > 0 && st == DPT_OK; i++) {
        dpt_range run = {.tensor = want->tensor, .ig = want->ig + i * want->stride, .n = n};
        st = dpt_pair_rows_read(pair, run, (char *)out + i * n * size);
    }
    return st;
}
