#include "token_list.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/store/tokenizer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Which rows of two vocabularies are of the same token. */

enum { TOKENS_MAX = 1 << 26 };

/* By text; of those with one text an added token is the one that a tokenizer takes, then the smallest id. */
static int rows_by_text(const void *a, const void *b) {
    const dpt_token *x = a, *y = b;
    int order = strcmp(x->text, y->text);
    if (order == 0)
        order = (int)y->added - (int)x->added;
    return order != 0 ? order : (x->id > y->id) - (x->id < y->id);
}

/* Each text once, sorted. @param[out] limit  above all ids. */
static dpt_status rows_load(const dpt_store *store, dpt_token_list *list, int64_t *limit) {
    dpt_status st = dpt_token_list_read(dpt_store_header_of(store), list);
    if (st != DPT_OK)
        return st;
    int64_t kept = 0;
    bool good = list->good && list->count > 0;
    if (good)
        qsort(list->tokens, (size_t)list->count, sizeof *list->tokens, rows_by_text);
    *limit = 0;
    for (int64_t i = 0; i < list->count && good; i++) {
        dpt_token token = list->tokens[i];
        good = token.id >= 0 && token.id < TOKENS_MAX;
        if (kept > 0 && strcmp(list->tokens[kept - 1].text, token.text) == 0)
            continue;
        list->tokens[kept++] = token;
        *limit = token.id >= *limit ? token.id + 1 : *limit;
    }
    list->count = kept;
    return good ? DPT_OK
                : dpt_error(
                      DPT_ERR_INPUT,
                      "%s: on_mismatch: rows pairs tokens, and its tokenizer.json (or "
                      "vocab.json) is not there or cannot be read: copy it next to the weights",
                      dpt_store_path(store));
}

/* @param[in] a, b  of pre and post, sorted by text. */
static void rows_join(const dpt_token_list *a, const dpt_token_list *b, dpt_token_rows *out) {
    for (int64_t i = 0; i < out->post; i++)
        out->pre_of[i] = -1;
    for (int64_t i = 0, j = 0; j < b->count; j++) {
        while (i < a->count && strcmp(a->tokens[i].text, b->tokens[j].text) < 0)
            i++;
        bool both = i < a->count && strcmp(a->tokens[i].text, b->tokens[j].text) == 0;
        int32_t *slot = &out->pre_of[b->tokens[j].id];
        if (both && (*slot < 0 || b->tokens[j].added)) /* two texts of one id */
            *slot = (int32_t)a->tokens[i].id;
    }
    out->same = out->pre == out->post;
    for (int64_t i = 0; i < out->post; i++) {
        out->shared += out->pre_of[i] >= 0;
        out->same = out->same && out->pre_of[i] == i;
    }
}

static dpt_status rows_find(const dpt_store *pre, const dpt_store *post, dpt_token_rows *out) {
    dpt_token_list a = {.count = 0}, b = {.count = 0};
    dpt_status st = rows_load(pre, &a, &out->pre);
    if (st == DPT_OK)
        st = rows_load(post, &b, &out->post);
    if (st == DPT_OK) {
        out->pre_of = dpt_mem_alloc(out->post, sizeof *out->pre_of, "rows of tokens");
        st = out->pre_of != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    }
    if (st == DPT_OK)
        rows_join(&a, &b, out);
    dpt_token_list_destroy(&a);
    dpt_token_list_destroy(&b);
    return st;
}

dpt_status dpt_tokenizer_pair_rows(const dpt_comm *comm, const dpt_store *pre,
                                   const dpt_store *post, dpt_token_rows *out) {
    *out = (dpt_token_rows){.post = 0};
    dpt_status st = dpt_agree(comm, comm->rank == 0 ? rows_find(pre, post, out) : DPT_OK);
    int64_t numbers[] = {out->pre, out->post, out->shared, out->same};
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_comm_broadcast(comm, numbers, sizeof numbers, 0));
    if (st == DPT_OK && comm->rank != 0) {
        *out = (dpt_token_rows){
            .pre = numbers[0], .post = numbers[1], .shared = numbers[2], .same = numbers[3] != 0};
        out->pre_of = dpt_mem_alloc(out->post, sizeof *out->pre_of, "rows of tokens");
        st = out->pre_of != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    }
    st = dpt_agree(comm, st);
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_comm_broadcast(comm, out->pre_of,
                                                out->post * (int64_t)sizeof *out->pre_of, 0));
    if (st != DPT_OK)
        dpt_token_rows_destroy(out);
    return st;
}

void dpt_token_rows_destroy(dpt_token_rows *rows) {
    dpt_mem_free(rows->pre_of);
    *rows = (dpt_token_rows){.post = 0};
}
