#include "vit.h"

#include "deltapath/nn/linear.h"
#include "deltapath/nn/mlp.h"
#include "deltapath/nn/norm.h"

static dpt_leave_rows rows_of(const dpt_vit_pass *pass, const float *dy, int64_t lddy,
                              const float *x, int64_t ldx) {
    return dpt_leave_rows_of(pass->tokens, pass->work->image_of, dy, lddy, x, ldx);
}

static void leave(const dpt_vit_pass *pass, int64_t layer, dpt_vit_layer_tensor weight,
                  dpt_vit_layer_tensor bias, dpt_leave_rows rows) {
    dpt_leave_linear(&pass->leave, dpt_vit_index(layer, weight), rows);
    dpt_leave_bias(&pass->leave, dpt_vit_index(layer, bias), rows);
}

/* forward: n2 = norm2(h); a = n2 Wu^T + bu; m = act(a); x' = h + sum over ranks m Wd^T + bd.
 * dx holds the gradient of x' on entry and that of h on return. */
static void mlp_backward(dpt_vit_pass *pass, int64_t layer) {
    const dpt_vit_work *k = pass->work;
    const dpt_vit_config *c = &pass->v->config;
    int64_t T = pass->tokens, C = c->hidden, f = pass->v->part.f;
    leave(pass, layer, DPT_VIT_DOWN, DPT_VIT_DOWN_BIAS, rows_of(pass, k->dx, C, k->m, f));
    dpt_nn_linear_backward_input(T, C, f, k->dx, C, k->w.down, f, false, k->dm, f);
    dpt_nn_act_backward(c->act, T * f, k->dm, k->a, k->dm);
    leave(pass, layer, DPT_VIT_UP, DPT_VIT_UP_BIAS, rows_of(pass, k->dm, f, k->n2, C));
    dpt_nn_linear_backward_input(T, f, C, k->dm, f, k->w.up, C, false, k->part, C);
    dpt_vit_sum(pass, k->part, T * C);
    dpt_leave_layernorm(&pass->leave, dpt_vit_index(layer, DPT_VIT_NORM2),
                        dpt_vit_index(layer, DPT_VIT_NORM2_BIAS),
                        rows_of(pass, k->part, C, k->h, C), k->mean2, k->rstd2);
    dpt_nn_layernorm_backward_input(T, C, k->part, C, k->h, C, k->w.norm2, k->mean2, k->rstd2, true,
                                    k->dx, C);
}

static void heads_backward(const dpt_vit_pass *pass) {
    const dpt_vit_work *k = pass->work;
    const dpt_vit_part *p = &pass->v->part;
    dpt_attention_shape shape = dpt_vit_attention_shape(pass->v);
    for (int64_t s = 0; s < pass->images; s++) {
        int64_t at = s * pass->v->config.positions;
        const float *q = k->qkv + at * 3 * p->q;
        float *dq = k->dqkv + at * 3 * p->q;
        dpt_nn_attention_backward(&shape, q, q + p->q, q + 2 * p->q, k->o + at * p->q,
                                  k->lse + at * p->heads, k->d_o + at * p->q, dq, dq + p->q,
                                  dq + 2 * p->q, k->attention);
    }
}

/* forward: n1 = norm1(x); [q k v] = n1 Wqkv^T + b; o = attention(q, k, v);
 * h = x + sum over ranks o Wo^T + bo. dx holds the gradient of h on entry and that of x on return. */
static void attention_backward(dpt_vit_pass *pass, int64_t layer, const float *x) {
    const dpt_vit_work *k = pass->work;
    int64_t T = pass->tokens, C = pass->v->config.hidden, q = pass->v->part.q;
    leave(pass, layer, DPT_VIT_O, DPT_VIT_O_BIAS, rows_of(pass, k->dx, C, k->o, q));
    dpt_nn_linear_backward_input(T, C, q, k->dx, C, k->w.o, q, false, k->d_o, q);
    heads_backward(pass);
    for (int i = 0; i < 3; i++)
        leave(pass, layer, (dpt_vit_layer_tensor)(DPT_VIT_Q + i),
              (dpt_vit_layer_tensor)(DPT_VIT_Q_BIAS + i),
              rows_of(pass, k->dqkv + i * q, 3 * q, k->n1, C));
    dpt_nn_linear_backward_input(T, 3 * q, C, k->dqkv, 3 * q, k->w.qkv, C, false, k->part, C);
    dpt_vit_sum(pass, k->part, T * C);
    dpt_leave_layernorm(&pass->leave, dpt_vit_index(layer, DPT_VIT_NORM1),
                        dpt_vit_index(layer, DPT_VIT_NORM1_BIAS), rows_of(pass, k->part, C, x, C),
                        k->mean1, k->rstd1);
    dpt_nn_layernorm_backward_input(T, C, k->part, C, x, C, k->w.norm1, k->mean1, k->rstd1, true,
                                    k->dx, C);
}

void dpt_vit_backward(dpt_vit_pass *pass) {
    for (int64_t layer = pass->v->config.layers - 1; layer >= 0; layer--) {
        const float *x = dpt_vit_input(pass, layer);
        dpt_vit_weights_layer(pass, layer);
        dpt_vit_attention_forward(pass, x);
        dpt_vit_mlp_inner(pass);
        mlp_backward(pass, layer);
        attention_backward(pass, layer, x);
    }
    dpt_vit_embed_backward(pass);
}
