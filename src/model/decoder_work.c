#include "decoder.h"

#include "deltapath/base/mem.h"
#include "deltapath/nn/attention.h"
#include "deltapath/nn/linear.h"

#include <omp.h>

enum {
    LOGITS_FLOATS = 1 << 26, /* logits held at a time, as far as the least number of rows allows */
    LOGITS_ROWS_MIN = 128,   /* fewer rows would make the products of the head slow */
};

int64_t dpt_decoder_head_rows(const dpt_decoder *d, int64_t scored) {
    int64_t rows = LOGITS_FLOATS / d->part.rows_most;
    rows = rows < LOGITS_ROWS_MIN ? LOGITS_ROWS_MIN : rows;
    return rows < scored ? rows : scored;
}

static int64_t most(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* The room of the MLP's activations takes the gradients of the attention when these are free. */
static void lay_out_inner(const dpt_decoder_part *p, int64_t T, char *base, int64_t *used,
                          dpt_decoder_work *w) {
    int64_t size = (int64_t)sizeof(float);
    int64_t mlp = 0, attention = 0;
    char *room = base != NULL ? base + *used : NULL;
    w->gate_up = dpt_work_take(room, &mlp, T * 2 * p->f, size);
    w->m = dpt_work_take(room, &mlp, T * p->f, size);
    w->dm = dpt_work_take(room, &mlp, T * p->f, size);
    w->dqkv = dpt_work_take(room, &attention, T * p->qkv, size);
    w->d_o = dpt_work_take(room, &attention, T * p->q, size);
    *used += most(mlp, attention);
}

/* Pointers into base for T tokens; @return the bytes. With base NULL only counts. */
static int64_t lay_out(const dpt_decoder *d, int64_t T, int64_t longest, bool backward, char *base,
                       dpt_decoder_work *w) {
    const dpt_decoder_config *c = &d->config;
    const dpt_decoder_part *p = &d->part;
    int64_t used = 0, size = (int64_t)sizeof(float), heads = p->head_end - p->head_begin;
    int64_t widest = most(most(c->hidden, p->q), p->f);
    dpt_attention_shape shape = {.n = longest, .hq = heads, .threads = omp_get_max_threads()};
    w->x = dpt_work_take(base, &used, T * c->hidden * (backward ? c->layers + 1 : 1), size);
    w->dx = dpt_work_take(base, &used, backward ? T * c->hidden : 0, size);
    w->n1 = dpt_work_take(base, &used, T * c->hidden, size);
    w->n2 = dpt_work_take(base, &used, T * c->hidden, size);
    w->h = dpt_work_take(base, &used, T * c->hidden, size);
    w->part = dpt_work_take(base, &used, T * c->hidden, size);
    w->qkv = dpt_work_take(base, &used, T * p->qkv, size);
    w->o = dpt_work_take(base, &used, T * p->q, size);
    w->lse = dpt_work_take(base, &used, T * heads, size);
    w->rstd1 = dpt_work_take(base, &used, T, size);
    w->rstd2 = dpt_work_take(base, &used, T, size);
    lay_out_inner(p, T, base, &used, w);
    w->logits = dpt_work_take(base, &used, dpt_decoder_head_rows(d, T) * p->v, size);
    w->cos = dpt_work_take(base, &used, longest * (c->head_dim / 2), size);
    w->sin = dpt_work_take(base, &used, longest * (c->head_dim / 2), size);
    w->attention = dpt_work_take(base, &used, (int64_t)dpt_nn_attention_scratch(&shape), size);
    w->products =
        dpt_work_take(base, &used, (int64_t)dpt_nn_linear_terms_scratch(T, INT32_MAX), size);
    w->e = dpt_work_take(base, &used, backward ? dpt_leave_delta_floats(widest, 0) : 0, size);
    w->arena = dpt_work_take(base, &used, dpt_decoder_arena(d), size);
    w->term = dpt_work_take(base, &used, T, sizeof(double));
    w->sums = dpt_work_take(base, &used, 2 * T, sizeof(double));
    w->rows = dpt_work_take(base, &used, T, sizeof(int64_t));
    w->best = dpt_work_take(base, &used, T, sizeof(int64_t));
    w->sequence = dpt_work_take(base, &used, T, sizeof(int64_t));
    w->row_sequence = dpt_work_take(base, &used, T, sizeof(int64_t));
    w->targets = dpt_work_take(base, &used, T, sizeof(int32_t));
    w->max = dpt_work_take(base, &used, T, size);
    w->scale = dpt_work_take(base, &used, T, size);
    return used;
}

int64_t dpt_decoder_work_bytes(const dpt_decoder *d, int64_t tokens, int64_t longest,
                               bool backward) {
    dpt_decoder_work w;
    return lay_out(d, tokens, longest, backward, NULL, &w);
}

dpt_status dpt_decoder_work_reserve(dpt_decoder *d, int64_t tokens, int64_t longest,
                                    bool backward) {
    dpt_decoder_work *w = &d->work;
    if (w->base != NULL && tokens <= w->tokens && longest <= w->longest &&
        (w->backward || !backward))
        return DPT_OK;
    tokens = most(tokens, w->tokens);
    longest = most(longest, w->longest);
    backward = backward || w->backward;
    dpt_decoder_work_release(w);
    int64_t bytes = dpt_decoder_work_bytes(d, tokens, longest, backward);
    w->base = dpt_mem_alloc(bytes, 1, "activations and weights of a layer");
    if (w->base == NULL)
        return DPT_ERR_OUTPUT;
    w->tokens = tokens;
    w->longest = longest;
    w->backward = backward;
    lay_out(d, tokens, longest, backward, w->base, w);
    dpt_decoder_weights_place(d, w->arena, &w->w);
    dpt_nn_rope_table(longest, d->config.head_dim / 2, d->inv_freq, w->cos, w->sin);
    return DPT_OK;
}

void dpt_decoder_work_release(dpt_decoder_work *work) {
    dpt_mem_free(work->base);
    *work = (dpt_decoder_work){.base = NULL};
}
