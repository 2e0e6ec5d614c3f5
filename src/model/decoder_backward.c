#include "decoder.h"

#include "deltapath/nn/attention.h"
#include "deltapath/nn/linear.h"
#include "deltapath/nn/mlp.h"
#include "deltapath/nn/norm.h"
#include "deltapath/nn/rope.h"

static dpt_leave_rows rows_of(const dpt_decoder_pass *pass, const float *dy, int64_t lddy,
                              const float *x, int64_t ldx) {
    return dpt_leave_rows_of(pass->tokens, pass->work->sequence, dy, lddy, x, ldx);
}

static void leave(const dpt_decoder_pass *pass, int64_t layer, dpt_decoder_layer_tensor weight,
                  dpt_decoder_layer_tensor bias, dpt_leave_rows rows) {
    dpt_leave_linear(&pass->leave, dpt_decoder_index(layer, weight), rows);
    dpt_leave_bias(&pass->leave, dpt_decoder_index(layer, bias), rows);
}

/* forward: n2 = norm2(h); [g u] = n2 [Wg Wu]^T; m = swiglu(g, u); x' = h + sum over ranks m Wd^T.
 * dx holds the gradient of x' on entry and that of h on return. */
static void mlp_backward(dpt_decoder_pass *pass, int64_t layer) {
    const dpt_decoder_work *k = pass->work;
    int64_t T = pass->tokens, C = pass->d->config.hidden, f = pass->d->part.f;
    float *g = k->gate_up, *u = k->gate_up + f;
    leave(pass, layer, DPT_DECODER_DOWN, DPT_DECODER_DOWN_BIAS, rows_of(pass, k->dx, C, k->m, f));
    dpt_nn_linear_backward_input(T, C, f, k->dx, C, k->w.down, f, false, k->dm, f);
    dpt_nn_swiglu_backward(T, f, k->dm, f, g, 2 * f, u, 2 * f, g, u);
    leave(pass, layer, DPT_DECODER_GATE, DPT_DECODER_GATE_BIAS, rows_of(pass, g, 2 * f, k->n2, C));
    leave(pass, layer, DPT_DECODER_UP, DPT_DECODER_UP_BIAS, rows_of(pass, u, 2 * f, k->n2, C));
    dpt_nn_linear_backward_input(T, 2 * f, C, g, 2 * f, k->w.gate_up, C, false, k->part, C);
    dpt_decoder_sum(pass, k->part, T * C);
    dpt_leave_rmsnorm(&pass->leave, dpt_decoder_index(layer, DPT_DECODER_NORM2),
                      rows_of(pass, k->part, C, k->h, C), k->rstd2);
    dpt_nn_rmsnorm_backward_input(T, C, k->part, C, k->h, C, k->w.norm2, k->rstd2, true, k->dx, C);
}

static void heads_backward(const dpt_decoder_pass *pass, int64_t layer) {
    const dpt_decoder_work *k = pass->work;
    const dpt_decoder_part *p = &pass->d->part;
    const dpt_batch *batch = pass->call->batch;
    int64_t hd = pass->d->config.head_dim, heads = p->head_end - p->head_begin;
    for (int64_t s = 0; s < batch->sequences; s++) {
        int64_t at = batch->first[s];
        dpt_attention_shape shape =
            dpt_decoder_attention_shape(pass->d, layer, batch->first[s + 1] - at);
        const float *q = k->qkv + at * p->qkv;
        float *dq = k->dqkv + at * p->qkv;
        dpt_nn_attention_backward(&shape, q, q + p->q, q + p->q + p->kv, k->o + at * p->q,
                                  k->lse + at * heads, k->d_o + at * p->q, dq, dq + p->q,
                                  dq + p->q + p->kv, k->attention);
    }
    dpt_nn_rope_backward(batch->sequences, batch->first, heads + (p->kv_end - p->kv_begin), hd,
                         hd / 2, k->cos, k->sin, k->dqkv, p->qkv);
}

/* forward: n1 = norm1(x); [q k v] = n1 Wqkv^T; o = attention(rope q, rope k, v);
 * h = x + sum over ranks o Wo^T. dx holds the gradient of h on entry and that of x on return. */
static void attention_backward(dpt_decoder_pass *pass, int64_t layer, const float *x) {
    const dpt_decoder_work *k = pass->work;
    const dpt_decoder_part *p = &pass->d->part;
    int64_t T = pass->tokens, C = pass->d->config.hidden;
    leave(pass, layer, DPT_DECODER_O, DPT_DECODER_O_BIAS, rows_of(pass, k->dx, C, k->o, p->q));
    dpt_nn_linear_backward_input(T, C, p->q, k->dx, C, k->w.o, p->q, false, k->d_o, p->q);
    heads_backward(pass, layer);
    const float *dq = k->dqkv, *dk = dq + p->q, *dv = dk + p->kv;
    leave(pass, layer, DPT_DECODER_Q, DPT_DECODER_Q_BIAS, rows_of(pass, dq, p->qkv, k->n1, C));
    leave(pass, layer, DPT_DECODER_K, DPT_DECODER_K_BIAS, rows_of(pass, dk, p->qkv, k->n1, C));
    leave(pass, layer, DPT_DECODER_V, DPT_DECODER_V_BIAS, rows_of(pass, dv, p->qkv, k->n1, C));
    dpt_nn_linear_backward_input(T, p->qkv, C, dq, p->qkv, k->w.qkv, C, false, k->part, C);
    dpt_decoder_sum(pass, k->part, T * C);
    dpt_leave_rmsnorm(&pass->leave, dpt_decoder_index(layer, DPT_DECODER_NORM1),
                      rows_of(pass, k->part, C, x, C), k->rstd1);
    dpt_nn_rmsnorm_backward_input(T, C, k->part, C, x, C, k->w.norm1, k->rstd1, true, k->dx, C);
}

void dpt_decoder_backward(dpt_decoder_pass *pass) {
    for (int64_t layer = pass->d->config.layers - 1; layer >= 0; layer--) {
        const float *x = dpt_decoder_input(pass, layer);
        dpt_decoder_weights_layer(pass, layer);
        dpt_decoder_attention_forward(pass, layer, x);
        dpt_decoder_mlp_inner(pass);
        mlp_backward(pass, layer);
        attention_backward(pass, layer, x);
    }
    const dpt_decoder_part *p = &pass->d->part;
    int64_t C = pass->d->config.hidden;
    dpt_leave_embed(&pass->leave, DPT_DECODER_EMBED, rows_of(pass, pass->work->dx, C, NULL, 0),
                    pass->call->batch->tokens, p->row_begin, p->row_end);
}
