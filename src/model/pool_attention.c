#include "transformer.h"

#include "deltapath/nn/mlp.h"
#include "deltapath/nn/pool.h"

#include <math.h>
#include <string.h>

/* The layers' buffers serve again: in qkv the queries of all images, which are one row, and the keys and values of each
 * token; in lse the probabilities; hidden and m of the MLP, and dqkv, whose room is that of hidden and m once the MLP is
 * through. n1 holds the tokens after the last norm, and h is the output. */

static dpt_pool_shape pool_shape(const dpt_pass *pass) {
    const dpt_slice *p = pass->slice;
    return (dpt_pool_shape){.n = pass->arch->image_tokens,
                            .heads = p->heads,
                            .hd = pass->arch->head_dim,
                            .ldk = p->qkv,
                            .ldv = p->qkv,
                            .scale = (float)(1.0 / sqrt((double)pass->arch->head_dim))};
}

/* a = O(attention of the probe over the tokens). */
static void pool_attend(dpt_pass *pass) {
    const dpt_work *k = pass->work;
    const dpt_slice *p = pass->slice;
    int64_t C = pass->width, R = pass->sequences;
    dpt_pool_shape shape = pool_shape(pass);
    dpt_product_forward(pass, 0, DPT_SLOT_POOL_Q, DPT_SLOT_POOL_Q_BIAS, 1,
                        k->w[DPT_SLOT_POOL_PROBE], C, k->qkv, p->qkv);
    dpt_product_forward(pass, 0, DPT_SLOT_POOL_K, DPT_SLOT_POOL_K_BIAS, pass->tokens, k->n1, C,
                        k->qkv + p->q, p->qkv);
    for (int64_t s = 0; s < R; s++) {
        const float *key = k->qkv + pass->first[s] * p->qkv + p->q;
        dpt_nn_pool_forward(&shape, k->qkv, key, key + p->kv, k->lse + pass->first[s] * p->heads,
                            k->o + s * p->q);
    }
    dpt_product_forward(pass, 0, DPT_SLOT_POOL_O, DPT_SLOT_POOL_O_BIAS, R, k->o, p->q, k->pool_a,
                        C);
    dpt_pass_sum(pass, k->pool_a, R * C);
}

void dpt_pool_attention_forward(dpt_pass *pass, const float *x, float *y) {
    const dpt_work *k = pass->work;
    int64_t C = pass->width, R = pass->sequences, f = pass->slice->f;
    dpt_pass_norm(pass, DPT_SLOT_FINAL_NORM, pass->tokens, x, k->n1, k->norm1);
    pool_attend(pass);
    dpt_pass_norm(pass, DPT_SLOT_POOL_NORM, R, k->pool_a, k->pool_n, k->norm2);
    dpt_product_forward(pass, 0, DPT_SLOT_POOL_UP, DPT_SLOT_POOL_UP_BIAS, R, k->pool_n, C,
                        k->hidden, f);
    dpt_nn_act_forward(pass->arch->act, R * f, k->hidden, k->m);
    dpt_product_forward(pass, 0, DPT_SLOT_POOL_DOWN, DPT_SLOT_POOL_DOWN_BIAS, R, k->m, f, y, C);
    dpt_pass_sum(pass, y, R * C);
    for (int64_t i = 0; i < R * C; i++)
        y[i] += k->pool_a[i];
}

/* One row an image: gradient of an output and what it was made from. */
static dpt_rows pool_rows(const dpt_pass *pass, const float *dy, int64_t lddy, const float *x,
                          int64_t ldx) {
    return dpt_rows_of(pass->sequences, pass->work->row_sequence, dy, lddy, x, ldx);
}

/* forward: y = a + down(act(up(norm a))). d holds the gradient of y, then that of a. */
static void pool_backward_mlp(dpt_pass *pass, float *d) {
    const dpt_work *k = pass->work;
    int64_t C = pass->width, R = pass->sequences, f = pass->slice->f;
    dpt_product_backward(pass, 0, DPT_SLOT_POOL_DOWN, DPT_SLOT_POOL_DOWN_BIAS,
                         pool_rows(pass, d, C, k->m, f), k->dm, f);
    dpt_nn_act_backward(pass->arch->act, R * f, k->dm, k->hidden, k->hidden);
    dpt_product_backward(pass, 0, DPT_SLOT_POOL_UP, DPT_SLOT_POOL_UP_BIAS,
                         pool_rows(pass, k->hidden, f, k->pool_n, C), k->part, C);
    dpt_pass_sum(pass, k->part, R * C);
    dpt_pass_norm_backward(pass, 0, DPT_SLOT_POOL_NORM, pool_rows(pass, k->part, C, k->pool_a, C),
                           k->norm2, true, d);
}

/* forward: q = probe Wq^T + b, the same for all images. Their gradients are in the rows of the first tokens. */
static void pool_backward_probe(const dpt_pass *pass) {
    const dpt_work *k = pass->work;
    const dpt_slice *p = pass->slice;
    int64_t C = pass->width, R = pass->sequences, ld = pass->arch->image_tokens * p->qkv;
    for (int64_t s = 0; s < R; s++)
        memcpy(k->pool_n + s * C, k->w[DPT_SLOT_POOL_PROBE], (size_t)C * sizeof *k->pool_n);
    dpt_product_backward(pass, 0, DPT_SLOT_POOL_Q, DPT_SLOT_POOL_Q_BIAS,
                         pool_rows(pass, k->dqkv, ld, k->pool_n, C), k->part, C);
    dpt_accumulate_bias(&pass->to, dpt_pass_index(pass, 0, DPT_SLOT_POOL_PROBE),
                        pool_rows(pass, k->part, C, NULL, 0));
}

/* Gradients of queries, keys and values, given that of a. */
static void pool_backward_attend(dpt_pass *pass, const float *d) {
    const dpt_work *k = pass->work;
    const dpt_slice *p = pass->slice;
    int64_t C = pass->width, R = pass->sequences;
    dpt_pool_shape shape = pool_shape(pass);
    dpt_product_backward(pass, 0, DPT_SLOT_POOL_O, DPT_SLOT_POOL_O_BIAS,
                         pool_rows(pass, d, C, k->o, p->q), k->d_o, p->q);
    for (int64_t s = 0; s < R; s++) {
        int64_t at = pass->first[s] * p->qkv + p->q;
        float *dq = k->dqkv + pass->first[s] * p->qkv;
        dpt_nn_pool_backward(&shape, k->qkv, k->qkv + at, k->qkv + at + p->kv,
                             k->lse + pass->first[s] * p->heads, k->o + s * p->q, k->d_o + s * p->q,
                             dq, dq + p->q, dq + p->q + p->kv);
    }
}

void dpt_pool_attention_backward(dpt_pass *pass, const float *x, float *d) {
    const dpt_work *k = pass->work;
    const dpt_slice *p = pass->slice;
    int64_t C = pass->width, T = pass->tokens;
    const float *dk = k->dqkv + p->q;
    pool_backward_mlp(pass, d);
    pool_backward_attend(pass, d);
    pool_backward_probe(pass);
    dpt_product_backward(pass, 0, DPT_SLOT_POOL_K, DPT_SLOT_POOL_K_BIAS,
                         dpt_pass_rows(pass, dk, p->qkv, k->n1, C), k->part, C);
    dpt_pass_sum(pass, k->part, T * C);
    dpt_pass_norm_backward(pass, 0, DPT_SLOT_FINAL_NORM, dpt_pass_rows(pass, k->part, C, x, C),
                           k->norm1, false, k->dx);
}
