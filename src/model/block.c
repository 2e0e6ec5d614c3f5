#include "transformer.h"

#include "deltapath/nn/linear.h"
#include "deltapath/nn/mlp.h"
#include "deltapath/nn/norm.h"

#include <math.h>
#include <omp.h>

static void block_add(int64_t n, const float *a, const float *b, float *out) {
#pragma omp parallel for simd schedule(static) if (n > 1 << 16)
    for (int64_t i = 0; i < n; i++)
        out[i] = a[i] + b[i];
}

static dpt_attention_shape block_attention_shape(const dpt_pass *pass, int64_t layer, int64_t s) {
    const dpt_arch *arch = pass->arch;
    const dpt_slice *p = pass->slice;
    return (dpt_attention_shape){.n = pass->first[s + 1] - pass->first[s],
                                 .hq = p->heads,
                                 .hkv = p->kv_heads,
                                 .hd = arch->head_dim,
                                 .kv_of = pass->model->kv_of,
                                 .ldq = p->qkv,
                                 .ldk = p->qkv,
                                 .ldv = p->qkv,
                                 .ldo = p->q,
                                 .scale = (float)(1.0 / sqrt((double)arch->head_dim)),
                                 .causal = arch->causal,
                                 .window = arch->window != NULL ? arch->window[layer] : 0,
                                 .threads = omp_get_max_threads()};
}

/* Norm of each of the heads that begin at x, in place. */
static void block_head_norm(const dpt_pass *pass, dpt_slot slot, int64_t heads, float *x) {
    int64_t hd = pass->arch->head_dim, ld = pass->slice->qkv;
    for (int64_t j = 0; pass->arch->row[slot] != NULL && j < heads; j++)
        dpt_nn_rmsnorm_forward(pass->tokens, hd, x + j * hd, ld, pass->work->w[slot],
                               (float)pass->arch->eps, x + j * hd, ld, NULL);
}

/* o = attention(rope q, rope k, v): queries and keys are neighbours in a row, so one rotation serves both. */
static void block_heads_forward(const dpt_pass *pass, int64_t layer) {
    const dpt_work *k = pass->work;
    const dpt_slice *p = pass->slice;
    dpt_rotate_forward(pass, layer, k->qkv, p->qkv);
    for (int64_t s = 0; s < pass->sequences; s++) {
        int64_t at = pass->first[s];
        dpt_attention_shape shape = block_attention_shape(pass, layer, s);
        const float *q = k->qkv + at * p->qkv;
        dpt_nn_attention_forward(&shape, q, q + p->q, q + p->q + p->kv, k->o + at * p->q,
                                 k->lse + at * p->heads, k->attention);
    }
}

/* h = x + attention(norm1 x); keeps n1, qkv, o, lse and the statistics. */
static void block_attention_forward(dpt_pass *pass, int64_t layer, const float *x) {
    const dpt_work *k = pass->work;
    const dpt_slice *p = pass->slice;
    int64_t T = pass->tokens, C = pass->width;
    dpt_pass_norm(pass, DPT_SLOT_NORM1, T, x, k->n1, k->norm1);
    dpt_nn_linear_forward(T, p->qkv, C, k->n1, C, k->w[DPT_SLOT_Q], C, k->w[DPT_SLOT_Q_BIAS],
                          k->qkv, p->qkv);
    block_head_norm(pass, DPT_SLOT_Q_NORM, p->heads, k->qkv);
    block_head_norm(pass, DPT_SLOT_K_NORM, p->kv_heads, k->qkv + p->q);
    block_heads_forward(pass, layer);
    dpt_nn_linear_forward(T, C, p->q, k->o, p->q, k->w[DPT_SLOT_O], p->q, k->w[DPT_SLOT_O_BIAS],
                          k->part, C);
    dpt_pass_sum(pass, k->part, T * C);
    block_add(T * C, x, k->part, k->h);
}

/* First of the rows that are stacked on the input of the MLP. */
static dpt_slot block_mlp_slot(const dpt_pass *pass) {
    return pass->arch->row[DPT_SLOT_GATE] != NULL ? DPT_SLOT_GATE : DPT_SLOT_UP;
}

/* n2 = norm2(h); m = act(gate) up, or act(up), of n2. */
static void block_mlp_inner(const dpt_pass *pass) {
    const dpt_work *k = pass->work;
    int64_t T = pass->tokens, C = pass->width, f = pass->slice->f, hidden = pass->slice->hidden;
    dpt_slot in = block_mlp_slot(pass),
             bias = in == DPT_SLOT_GATE ? DPT_SLOT_GATE_BIAS : DPT_SLOT_UP_BIAS;
    dpt_pass_norm(pass, DPT_SLOT_NORM2, T, k->h, k->n2, k->norm2);
    dpt_nn_linear_forward(T, hidden, C, k->n2, C, k->w[in], C, k->w[bias], k->hidden, hidden);
    if (in == DPT_SLOT_GATE)
        dpt_nn_gated_forward(pass->arch->act, (float)pass->arch->act_limit, T, f, k->hidden, hidden,
                             k->hidden + f, hidden, k->m, f);
    else
        dpt_nn_act_forward(pass->arch->act, T * f, k->hidden, k->m);
}

void dpt_block_forward(dpt_pass *pass, int64_t layer, const float *x, float *out) {
    const dpt_work *k = pass->work;
    int64_t T = pass->tokens, C = pass->width, f = pass->slice->f;
    dpt_weights_form(pass, layer, DPT_SLOTS_LAYER, DPT_SLOTS_HEAD);
    block_attention_forward(pass, layer, x);
    block_mlp_inner(pass);
    dpt_nn_linear_forward(T, C, f, k->m, f, k->w[DPT_SLOT_DOWN], f, k->w[DPT_SLOT_DOWN_BIAS],
                          k->part, C);
    dpt_pass_sum(pass, k->part, T * C);
    block_add(T * C, k->h, k->part, out);
}

static dpt_rows block_rows(const dpt_pass *pass, const float *dy, int64_t lddy, const float *x,
                           int64_t ldx) {
    return dpt_rows_of(pass->tokens, pass->work->sequence, dy, lddy, x, ldx);
}

static void block_accumulate(const dpt_pass *pass, int64_t layer, dpt_slot weight, dpt_slot bias,
                             dpt_rows rows) {
    dpt_accumulate_linear(&pass->to, dpt_pass_index(pass, layer, weight), rows);
    dpt_accumulate_bias(&pass->to, dpt_pass_index(pass, layer, bias), rows);
}

/* forward: m = act(g) u or act(a), of [g u] or a. The gradient goes into the place of these. */
static void block_mlp_inner_backward(const dpt_pass *pass, int64_t layer) {
    const dpt_work *k = pass->work;
    int64_t T = pass->tokens, C = pass->width, f = pass->slice->f, hidden = pass->slice->hidden;
    float *g = k->hidden, *u = k->hidden + hidden - f;
    if (block_mlp_slot(pass) == DPT_SLOT_GATE) {
        dpt_nn_gated_backward(pass->arch->act, (float)pass->arch->act_limit, T, f, k->dm, f, g,
                              hidden, u, hidden, g, u);
        block_accumulate(pass, layer, DPT_SLOT_GATE, DPT_SLOT_GATE_BIAS,
                         block_rows(pass, g, hidden, k->n2, C));
    } else {
        dpt_nn_act_backward(pass->arch->act, T * f, k->dm, u, u);
    }
    block_accumulate(pass, layer, DPT_SLOT_UP, DPT_SLOT_UP_BIAS,
                     block_rows(pass, u, hidden, k->n2, C));
}

/* forward: n2 = norm2(h); a = n2 Win^T; m = act(a); x' = h + sum over ranks m Wd^T.
 * dx holds the gradient of x' on entry and that of h on return. */
static void block_mlp_backward(dpt_pass *pass, int64_t layer) {
    const dpt_work *k = pass->work;
    int64_t T = pass->tokens, C = pass->width, f = pass->slice->f, hidden = pass->slice->hidden;
    block_accumulate(pass, layer, DPT_SLOT_DOWN, DPT_SLOT_DOWN_BIAS,
                     block_rows(pass, k->dx, C, k->m, f));
    dpt_nn_linear_backward_input(T, C, f, k->dx, C, k->w[DPT_SLOT_DOWN], f, false, k->dm, f);
    block_mlp_inner_backward(pass, layer);
    dpt_nn_linear_backward_input(T, hidden, C, k->hidden, hidden, k->w[block_mlp_slot(pass)], C,
                                 false, k->part, C);
    dpt_pass_sum(pass, k->part, T * C);
    dpt_pass_norm_backward(pass, layer, DPT_SLOT_NORM2, block_rows(pass, k->part, C, k->h, C),
                           k->norm2, true, k->dx);
}

static void block_heads_backward(const dpt_pass *pass, int64_t layer) {
    const dpt_work *k = pass->work;
    const dpt_slice *p = pass->slice;
    for (int64_t s = 0; s < pass->sequences; s++) {
        int64_t at = pass->first[s];
        dpt_attention_shape shape = block_attention_shape(pass, layer, s);
        const float *q = k->qkv + at * p->qkv;
        float *dq = k->dqkv + at * p->qkv;
        dpt_nn_attention_backward(&shape, q, q + p->q, q + p->q + p->kv, k->o + at * p->q,
                                  k->lse + at * p->heads, k->d_o + at * p->q, dq, dq + p->q,
                                  dq + p->q + p->kv, k->attention);
    }
    dpt_rotate_backward(pass, layer, k->dqkv, p->qkv);
}

/* forward: y = norm(x) of each head. dy, of its layout, holds the gradient of y on entry and that of x on return.
 * The attention is through with o and lse, whose room takes y and the statistics. */
static void block_head_norm_backward(const dpt_pass *pass, int64_t layer, dpt_slot slot,
                                     int64_t heads, const float *x, float *dy) {
    const dpt_work *k = pass->work;
    const float *w = k->w[slot];
    int64_t T = pass->tokens, hd = pass->arch->head_dim, ld = pass->slice->qkv;
    for (int64_t j = 0; j < heads; j++, x += hd, dy += hd) {
        dpt_nn_rmsnorm_forward(T, hd, x, ld, w, (float)pass->arch->eps, k->o, hd, k->lse);
        dpt_accumulate_norm(&pass->to, dpt_pass_index(pass, layer, slot), -1,
                            block_rows(pass, dy, ld, x, ld), NULL, k->lse);
        dpt_nn_rmsnorm_backward_input(T, hd, dy, ld, x, ld, w, k->lse, false, dy, ld);
    }
}

/* The norms of q and k were in place: what went into them is computed again. */
static void block_head_norms_backward(const dpt_pass *pass, int64_t layer) {
    const dpt_work *k = pass->work;
    const dpt_slice *p = pass->slice;
    if (pass->arch->row[DPT_SLOT_Q_NORM] == NULL)
        return;
    dpt_nn_linear_forward(pass->tokens, p->q + p->kv, pass->width, k->n1, pass->width,
                          k->w[DPT_SLOT_Q], pass->width, k->w[DPT_SLOT_Q_BIAS], k->qkv, p->qkv);
    block_head_norm_backward(pass, layer, DPT_SLOT_Q_NORM, p->heads, k->qkv, k->dqkv);
    block_head_norm_backward(pass, layer, DPT_SLOT_K_NORM, p->kv_heads, k->qkv + p->q,
                             k->dqkv + p->q);
}

/* forward: n1 = norm1(x); [q k v] = n1 Wqkv^T; o = attention(rope norm q, rope norm k, v);
 * h = x + sum over ranks o Wo^T. dx holds the gradient of h on entry and that of x on return. */
static void block_attention_backward(dpt_pass *pass, int64_t layer, const float *x) {
    const dpt_work *k = pass->work;
    const dpt_slice *p = pass->slice;
    int64_t T = pass->tokens, C = pass->width;
    block_accumulate(pass, layer, DPT_SLOT_O, DPT_SLOT_O_BIAS,
                     block_rows(pass, k->dx, C, k->o, p->q));
    dpt_nn_linear_backward_input(T, C, p->q, k->dx, C, k->w[DPT_SLOT_O], p->q, false, k->d_o, p->q);
    block_heads_backward(pass, layer);
    block_head_norms_backward(pass, layer);
    const float *dq = k->dqkv, *dk = dq + p->q, *dv = dk + p->kv;
    block_accumulate(pass, layer, DPT_SLOT_Q, DPT_SLOT_Q_BIAS,
                     block_rows(pass, dq, p->qkv, k->n1, C));
    block_accumulate(pass, layer, DPT_SLOT_K, DPT_SLOT_K_BIAS,
                     block_rows(pass, dk, p->qkv, k->n1, C));
    block_accumulate(pass, layer, DPT_SLOT_V, DPT_SLOT_V_BIAS,
                     block_rows(pass, dv, p->qkv, k->n1, C));
    dpt_nn_linear_backward_input(T, p->qkv, C, dq, p->qkv, k->w[DPT_SLOT_Q], C, false, k->part, C);
    dpt_pass_sum(pass, k->part, T * C);
    dpt_pass_norm_backward(pass, layer, DPT_SLOT_NORM1, block_rows(pass, k->part, C, x, C),
                           k->norm1, true, k->dx);
}

void dpt_block_backward(dpt_pass *pass, int64_t layer, const float *x) {
    dpt_weights_form(pass, layer, DPT_SLOTS_LAYER, DPT_SLOTS_HEAD);
    block_attention_forward(pass, layer, x);
    block_mlp_inner(pass);
    block_mlp_backward(pass, layer);
    block_attention_backward(pass, layer, x);
}
