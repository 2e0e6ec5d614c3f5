#include "transformer.h"

#include "deltapath/nn/norm.h"

#include <math.h>
#include <omp.h>

static dpt_attention_shape attention_shape(const dpt_pass *pass, int64_t layer, int64_t s) {
    const dpt_arch *arch = pass->arch;
    const dpt_slice *p = pass->slice;
    double scale = dpt_arch_attention_scale(arch);
    if (arch->attention_by_layer)
        scale /= (double)(layer + 1);
    return (dpt_attention_shape){.n = pass->first[s + 1] - pass->first[s],
                                 .hq = p->heads,
                                 .hkv = p->kv_heads,
                                 .hd = arch->head_dim,
                                 .kv_of = pass->model->kv_of,
                                 .ldq = p->qkv,
                                 .ldk = p->qkv,
                                 .ldv = p->qkv,
                                 .ldo = p->q,
                                 .scale = (float)scale,
                                 .cap = (float)arch->attention_cap,
                                 .causal = arch->causal,
                                 .window = arch->window != NULL ? arch->window[layer] : 0,
                                 .threads = omp_get_max_threads()};
}

static bool attention_has_norm(const dpt_pass *pass, dpt_slot slot) {
    return pass->arch->row[slot] != NULL;
}

/* The heads that a norm of queries or of keys is of. */
typedef struct attention_heads {
    dpt_slot slot;
    int64_t heads, at; /* number, first column of q, k and v */
    float *rstd;       /* (T, heads) */
} attention_heads;

static attention_heads attention_heads_of(const dpt_pass *pass, dpt_slot slot) {
    const dpt_slice *p = pass->slice;
    float *rstd = pass->work->qk_rstd;
    if (slot == DPT_SLOT_Q_NORM)
        return (attention_heads){.slot = slot, .heads = p->heads, .rstd = rstd};
    return (attention_heads){
        .slot = slot, .heads = p->kv_heads, .at = p->q, .rstd = rstd + pass->tokens * p->heads};
}

/* Norm of each of these heads in place; what goes into it is kept for the backward pass. */
static void attention_norm_heads(const dpt_pass *pass, dpt_slot slot) {
    const dpt_work *k = pass->work;
    int64_t ld = pass->slice->qkv, ldx = pass->slice->q + pass->slice->kv;
    attention_heads h = attention_heads_of(pass, slot);
    dpt_nn_rmsnorm_heads_forward(pass->tokens, h.heads, pass->arch->head_dim, k->qkv + h.at, ld,
                                 k->w[slot], (float)pass->arch->eps, k->qkv + h.at, ld,
                                 k->raw + h.at, ldx, h.rstd);
}

/* Norms of q and k in place. */
static void attention_norm_qk(dpt_pass *pass) {
    if (!attention_has_norm(pass, DPT_SLOT_Q_NORM))
        return;
    if (pass->arch->norm_qk_whole) {
        dpt_norm_qk_forward(pass);
        return;
    }
    attention_norm_heads(pass, DPT_SLOT_Q_NORM);
    attention_norm_heads(pass, DPT_SLOT_K_NORM);
}

/* o = attention(q, k, v) of each sequence. */
static void attention_heads_forward(const dpt_pass *pass, int64_t layer) {
    const dpt_work *k = pass->work;
    const dpt_slice *p = pass->slice;
    for (int64_t s = 0; s < pass->sequences; s++) {
        int64_t at = pass->first[s];
        dpt_attention_shape shape = attention_shape(pass, layer, s);
        const float *q = k->qkv + at * p->qkv;
        float *o = k->o + at * p->q, *lse = k->lse + at * p->heads;
        dpt_nn_attention_forward(&shape, q, q + p->q, q + p->q + p->kv, o, lse, k->attention);
        if (k->w[DPT_SLOT_SINKS] != NULL)
            dpt_nn_attention_sink_forward(shape.n, shape.hq, shape.hd, k->w[DPT_SLOT_SINKS], o,
                                          shape.ldo, lse);
    }
}

static const float *attention_input(const dpt_pass *pass, const float *x) {
    return dpt_pass_norm_in(pass, DPT_SLOT_NORM1, x, pass->work->n1, pass->work->norm1);
}

/* o of x. */
static void attention_inner(dpt_pass *pass, int64_t layer, const float *x) {
    const dpt_work *k = pass->work;
    const dpt_slice *p = pass->slice;
    int64_t T = pass->tokens, C = pass->width;
    const float *n1 = attention_input(pass, x);
    dpt_product_forward(pass, layer, DPT_SLOT_Q, DPT_SLOT_Q_BIAS, T, n1, C, k->qkv, p->qkv);
    attention_norm_qk(pass);
    dpt_rotate_forward(pass, layer, k->qkv, p->qkv);
    attention_heads_forward(pass, layer);
}

void dpt_attention_recompute(dpt_pass *pass, int64_t layer, const float *x) {
    if (dpt_pass_holds(pass, layer))
        attention_input(pass, x);
    else
        attention_inner(pass, layer, x);
}

void dpt_attention_forward(dpt_pass *pass, int64_t layer, const float *x, float *out) {
    int64_t T = pass->tokens, C = pass->width, q = pass->slice->q;
    attention_inner(pass, layer, x);
    dpt_product_forward(pass, layer, DPT_SLOT_O, DPT_SLOT_O_BIAS, T, pass->work->o, q, out, C);
    dpt_pass_sum(pass, out, T * C);
}

/* forward: o' = o / (1 + exp(sink - lse)). Terms of the sinks, a row (heads) a token. */
static void attention_sinks_backward(const dpt_pass *pass, int64_t layer) {
    const dpt_work *k = pass->work;
    const dpt_slice *p = pass->slice;
    if (k->w[DPT_SLOT_SINKS] == NULL)
        return;
    for (int64_t s = 0; s < pass->sequences; s++) {
        int64_t at = pass->first[s];
        dpt_nn_attention_sink_backward(pass->first[s + 1] - at, p->heads, pass->arch->head_dim,
                                       k->w[DPT_SLOT_SINKS], k->o + at * p->q, k->d_o + at * p->q,
                                       p->q, k->lse + at * p->heads, k->sinks + at * p->heads,
                                       p->heads);
    }
    dpt_accumulate_bias(&pass->to, dpt_pass_index(pass, layer, DPT_SLOT_SINKS),
                        dpt_pass_rows(pass, k->sinks, p->heads, NULL, 0));
}

static void attention_heads_backward(const dpt_pass *pass, int64_t layer) {
    const dpt_work *k = pass->work;
    const dpt_slice *p = pass->slice;
    attention_sinks_backward(pass, layer);
    for (int64_t s = 0; s < pass->sequences; s++) {
        int64_t at = pass->first[s];
        dpt_attention_shape shape = attention_shape(pass, layer, s);
        const float *q = k->qkv + at * p->qkv;
        float *dq = k->dqkv + at * p->qkv;
        dpt_nn_attention_backward(&shape, q, q + p->q, q + p->q + p->kv, k->o + at * p->q,
                                  k->lse + at * p->heads, k->d_o + at * p->q, dq, dq + p->q,
                                  dq + p->q + p->kv, k->attention);
    }
    dpt_rotate_backward(pass, layer, k->dqkv, p->qkv);
}

/* forward: y = norm(x) of each head. dqkv holds the gradient of y on entry and that of x on return. */
static void attention_norm_heads_backward(const dpt_pass *pass, int64_t layer, dpt_slot slot) {
    const dpt_work *k = pass->work;
    int64_t ld = pass->slice->qkv, ldx = pass->slice->q + pass->slice->kv;
    attention_heads h = attention_heads_of(pass, slot);
    const float *x = k->raw + h.at;
    float *dy = k->dqkv + h.at;
    dpt_accumulate_norm_heads(&pass->to, dpt_pass_index(pass, layer, slot), h.heads,
                              dpt_pass_rows(pass, dy, ld, x, ldx), h.rstd);
    dpt_nn_rmsnorm_heads_backward_input(pass->tokens, h.heads, pass->arch->head_dim, dy, ld, x, ldx,
                                        k->w[slot], h.rstd, false, dy, ld);
}

static void attention_norm_qk_backward(dpt_pass *pass, int64_t layer) {
    if (!attention_has_norm(pass, DPT_SLOT_Q_NORM))
        return;
    if (pass->arch->norm_qk_whole) {
        dpt_norm_qk_backward(pass, layer);
        return;
    }
    attention_norm_heads_backward(pass, layer, DPT_SLOT_Q_NORM);
    attention_norm_heads_backward(pass, layer, DPT_SLOT_K_NORM);
}

void dpt_attention_backward(dpt_pass *pass, int64_t layer, const float *x, const float *dy,
                            float *dx) {
    const dpt_work *k = pass->work;
    const dpt_slice *p = pass->slice;
    int64_t T = pass->tokens, C = pass->width;
    const float *n1 = attention_has_norm(pass, DPT_SLOT_NORM1) ? k->n1 : x;
    dpt_product_backward(pass, layer, DPT_SLOT_O, DPT_SLOT_O_BIAS,
                         dpt_pass_rows(pass, dy, C, k->o, p->q), k->d_o, p->q);
    attention_heads_backward(pass, layer);
    attention_norm_qk_backward(pass, layer);
    dpt_product_backward(pass, layer, DPT_SLOT_Q, DPT_SLOT_Q_BIAS,
                         dpt_pass_rows(pass, k->dqkv, p->qkv, n1, C), k->part, C);
    dpt_pass_sum(pass, k->part, T * C);
    dpt_pass_norm_in_backward(pass, layer, DPT_SLOT_NORM1, k->part, x, k->norm1, dx);
}
