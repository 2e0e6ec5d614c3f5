#include "vit.h"

#include "deltapath/nn/linear.h"
#include "deltapath/nn/mlp.h"
#include "deltapath/nn/norm.h"

#include <math.h>
#include <omp.h>

void dpt_vit_sum(dpt_vit_pass *pass, float *values, int64_t n) {
    dpt_status st = dpt_comm_sum_f32(&pass->model->group, values, n);
    pass->status = dpt_status_worse(pass->status, st);
}

float *dpt_vit_input(const dpt_vit_pass *pass, int64_t layer) {
    if (pass->call->mode == DPT_BACKWARD_NONE)
        return pass->work->x;
    return pass->work->x + layer * pass->tokens * pass->v->config.hidden;
}

static void add(int64_t n, const float *a, const float *b, float *out) {
#pragma omp parallel for simd schedule(static) if (n > 1 << 16)
    for (int64_t i = 0; i < n; i++)
        out[i] = a[i] + b[i];
}

dpt_attention_shape dpt_vit_attention_shape(const dpt_vit *v) {
    const dpt_vit_part *p = &v->part;
    return (dpt_attention_shape){.n = v->config.positions,
                                 .hq = p->heads,
                                 .hkv = p->heads,
                                 .hd = v->config.head_dim,
                                 .kv_of = v->kv_of,
                                 .ldq = 3 * p->q,
                                 .ldk = 3 * p->q,
                                 .ldv = 3 * p->q,
                                 .ldo = p->q,
                                 .scale = (float)(1.0 / sqrt((double)v->config.head_dim)),
                                 .causal = false,
                                 .threads = omp_get_max_threads()};
}

void dpt_vit_attention_forward(dpt_vit_pass *pass, const float *x) {
    const dpt_vit_work *k = pass->work;
    const dpt_vit_config *c = &pass->v->config;
    const dpt_vit_part *p = &pass->v->part;
    int64_t T = pass->tokens, C = c->hidden;
    dpt_nn_layernorm_forward(T, C, x, C, k->w.norm1, k->w.norm1_bias, (float)c->eps, k->n1, C,
                             k->mean1, k->rstd1);
    dpt_nn_linear_forward(T, 3 * p->q, C, k->n1, C, k->w.qkv, C, k->w.qkv_bias, k->qkv, 3 * p->q);
    dpt_attention_shape shape = dpt_vit_attention_shape(pass->v);
    for (int64_t s = 0; s < pass->images; s++) {
        int64_t at = s * c->positions;
        const float *q = k->qkv + at * 3 * p->q;
        dpt_nn_attention_forward(&shape, q, q + p->q, q + 2 * p->q, k->o + at * p->q,
                                 k->lse + at * p->heads, k->attention);
    }
    dpt_nn_linear_forward(T, C, p->q, k->o, p->q, k->w.o, p->q, k->w.o_bias, k->part, C);
    dpt_vit_sum(pass, k->part, T * C);
    add(T * C, x, k->part, k->h);
}

void dpt_vit_mlp_inner(const dpt_vit_pass *pass) {
    const dpt_vit_work *k = pass->work;
    const dpt_vit_config *c = &pass->v->config;
    int64_t T = pass->tokens, C = c->hidden, f = pass->v->part.f;
    dpt_nn_layernorm_forward(T, C, k->h, C, k->w.norm2, k->w.norm2_bias, (float)c->eps, k->n2, C,
                             k->mean2, k->rstd2);
    dpt_nn_linear_forward(T, f, C, k->n2, C, k->w.up, C, k->w.up_bias, k->a, f);
    dpt_nn_act_forward(c->act, T * f, k->a, k->m);
}

static void layer_forward(dpt_vit_pass *pass, int64_t layer) {
    const dpt_vit_work *k = pass->work;
    int64_t T = pass->tokens, C = pass->v->config.hidden, f = pass->v->part.f;
    dpt_vit_weights_layer(pass, layer);
    dpt_vit_attention_forward(pass, dpt_vit_input(pass, layer));
    dpt_vit_mlp_inner(pass);
    dpt_nn_linear_forward(T, C, f, k->m, f, k->w.down, f, k->w.down_bias, k->part, C);
    dpt_vit_sum(pass, k->part, T * C);
    add(T * C, k->h, k->part, dpt_vit_input(pass, layer + 1));
}

void dpt_vit_forward(dpt_vit_pass *pass) {
    dpt_vit_embed(pass, dpt_vit_input(pass, 0));
    for (int64_t layer = 0; layer < pass->v->config.layers; layer++)
        layer_forward(pass, layer);
}
