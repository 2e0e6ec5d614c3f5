#include "decoder.h"

#include "deltapath/nn/attention.h"
#include "deltapath/nn/linear.h"
#include "deltapath/nn/mlp.h"
#include "deltapath/nn/norm.h"
#include "deltapath/nn/rope.h"

#include <math.h>
#include <omp.h>

void dpt_decoder_sum(dpt_decoder_pass *pass, float *values, int64_t n) {
    dpt_status st = dpt_comm_sum_f32(&pass->model->group, values, n);
    pass->status = dpt_status_worse(pass->status, st);
}

float *dpt_decoder_input(const dpt_decoder_pass *pass, int64_t layer) {
    if (pass->call->mode == DPT_BACKWARD_NONE)
        return pass->work->x;
    return pass->work->x + layer * pass->tokens * pass->d->config.hidden;
}

static void add(int64_t n, const float *a, const float *b, float *out) {
#pragma omp parallel for simd schedule(static) if (n > 1 << 16)
    for (int64_t i = 0; i < n; i++)
        out[i] = a[i] + b[i];
}

dpt_attention_shape dpt_decoder_attention_shape(const dpt_decoder *d, int64_t layer, int64_t n) {
    const dpt_decoder_part *p = &d->part;
    int64_t hd = d->config.head_dim;
    return (dpt_attention_shape){.n = n,
                                 .hq = p->head_end - p->head_begin,
                                 .hkv = p->kv_end - p->kv_begin,
                                 .hd = hd,
                                 .kv_of = d->kv_of,
                                 .ldq = p->qkv,
                                 .ldk = p->qkv,
                                 .ldv = p->qkv,
                                 .ldo = p->q,
                                 .scale = (float)(1.0 / sqrt((double)hd)),
                                 .causal = true,
                                 .window = d->config.window[layer],
                                 .threads = omp_get_max_threads()};
}

void dpt_decoder_attention_forward(dpt_decoder_pass *pass, int64_t layer, const float *x) {
    const dpt_decoder_work *k = pass->work;
    const dpt_decoder_part *p = &pass->d->part;
    const dpt_batch *batch = pass->call->batch;
    int64_t T = pass->tokens, C = pass->d->config.hidden, hd = pass->d->config.head_dim;
    int64_t heads = p->head_end - p->head_begin, kv_heads = p->kv_end - p->kv_begin;
    dpt_nn_rmsnorm_forward(T, C, x, C, k->w.norm1, (float)pass->d->config.rms_eps, k->n1, C,
                           k->rstd1);
    dpt_nn_linear_forward(T, p->qkv, C, k->n1, C, k->w.qkv, C, k->w.qkv_bias, k->qkv, p->qkv);
    /* queries and keys are neighbours in a row, so one rotation serves both */
    dpt_nn_rope_forward(batch->sequences, batch->first, heads + kv_heads, hd, hd / 2, k->cos,
                        k->sin, k->qkv, p->qkv);
    for (int64_t s = 0; s < batch->sequences; s++) {
        int64_t at = batch->first[s];
        dpt_attention_shape shape =
            dpt_decoder_attention_shape(pass->d, layer, batch->first[s + 1] - at);
        const float *q = k->qkv + at * p->qkv;
        dpt_nn_attention_forward(&shape, q, q + p->q, q + p->q + p->kv, k->o + at * p->q,
                                 k->lse + at * heads, k->attention);
    }
    dpt_nn_linear_forward(T, C, p->q, k->o, p->q, k->w.o, p->q, k->w.o_bias, k->part, C);
    dpt_decoder_sum(pass, k->part, T * C);
    add(T * C, x, k->part, k->h);
}

void dpt_decoder_mlp_inner(const dpt_decoder_pass *pass) {
    const dpt_decoder_work *k = pass->work;
    int64_t T = pass->tokens, C = pass->d->config.hidden, f = pass->d->part.f;
    dpt_nn_rmsnorm_forward(T, C, k->h, C, k->w.norm2, (float)pass->d->config.rms_eps, k->n2, C,
                           k->rstd2);
    dpt_nn_linear_forward(T, 2 * f, C, k->n2, C, k->w.gate_up, C, k->w.gate_up_bias, k->gate_up,
                          2 * f);
    dpt_nn_swiglu_forward(T, f, k->gate_up, 2 * f, k->gate_up + f, 2 * f, k->m, f);
}

static void layer_forward(dpt_decoder_pass *pass, int64_t layer) {
    const dpt_decoder_work *k = pass->work;
    int64_t T = pass->tokens, C = pass->d->config.hidden, f = pass->d->part.f;
    dpt_decoder_weights_layer(pass, layer);
    dpt_decoder_attention_forward(pass, layer, dpt_decoder_input(pass, layer));
    dpt_decoder_mlp_inner(pass);
    dpt_nn_linear_forward(T, C, f, k->m, f, k->w.down, f, k->w.down_bias, k->part, C);
    dpt_decoder_sum(pass, k->part, T * C);
    add(T * C, k->h, k->part, dpt_decoder_input(pass, layer + 1));
}

void dpt_decoder_forward(dpt_decoder_pass *pass) {
    const dpt_batch *batch = pass->call->batch;
    for (int64_t s = 0; s < batch->sequences; s++)
        for (int64_t i = batch->first[s]; i < batch->first[s + 1]; i++)
            pass->work->sequence[i] = s;
    float *x = dpt_decoder_input(pass, 0);
    dpt_decoder_embed(pass, x);
    dpt_decoder_sum(pass, x, pass->tokens * pass->d->config.hidden);
    for (int64_t layer = 0; layer < pass->d->config.layers; layer++)
        layer_forward(pass, layer);
}
