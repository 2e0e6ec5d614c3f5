#include "transformer.h"

#include "deltapath/nn/mlp.h"

/* First of the rows that are stacked on the input of the MLP. */
static dpt_slot mlp_slot(const dpt_pass *pass) {
    return pass->arch->row[DPT_SLOT_GATE] != NULL ? DPT_SLOT_GATE : DPT_SLOT_UP;
}

static dpt_slot mlp_bias_slot(const dpt_pass *pass) {
    return mlp_slot(pass) == DPT_SLOT_GATE ? DPT_SLOT_GATE_BIAS : DPT_SLOT_UP_BIAS;
}

/* m = act(gate) up, or act(up), of what the first product gave. */
static void mlp_activate(const dpt_pass *pass) {
    const dpt_work *k = pass->work;
    int64_t T = pass->tokens, f = pass->slice->f, hidden = pass->slice->hidden;
    if (mlp_slot(pass) == DPT_SLOT_GATE)
        dpt_nn_gated_forward(pass->arch->act, (float)pass->arch->act_limit, T, f, k->hidden, hidden,
                             k->hidden + f, hidden, k->m, f);
    else
        dpt_nn_act_forward(pass->arch->act, T * f, k->hidden, k->m);
}

/* m of n. */
static void mlp_inner(const dpt_pass *pass, int64_t layer, const float *n) {
    dpt_product_forward(pass, layer, mlp_slot(pass), mlp_bias_slot(pass), pass->tokens, n,
                        pass->width, pass->work->hidden, pass->slice->hidden);
    mlp_activate(pass);
}

static void mlp_outer(const dpt_pass *pass, int64_t layer, float *out) {
    const dpt_work *k = pass->work;
    int64_t f = pass->slice->f, C = pass->width;
    dpt_product_forward(pass, layer, DPT_SLOT_DOWN, DPT_SLOT_DOWN_BIAS, pass->tokens, k->m, f, out,
                        C);
}

static const float *mlp_input(const dpt_pass *pass, const float *x) {
    return dpt_pass_norm_in(pass, DPT_SLOT_NORM2, x, pass->work->n2, pass->work->norm2);
}

void dpt_mlp_forward(dpt_pass *pass, int64_t layer, const float *x, float *out) {
    const float *n = mlp_input(pass, x);
    if (pass->arch->experts.count > 0) {
        dpt_experts_forward(pass, layer, n, out);
    } else {
        mlp_inner(pass, layer, n);
        mlp_outer(pass, layer, out);
    }
    dpt_pass_sum(pass, out, pass->tokens * pass->width);
}

void dpt_mlp_recompute(const dpt_pass *pass, int64_t layer, const float *x) {
    const float *n = mlp_input(pass, x);
    if (pass->arch->experts.count > 0) /* which are taken one by one on the way back */
        return;
    if (dpt_pass_holds(pass, layer))
        mlp_activate(pass);
    else
        mlp_inner(pass, layer, n);
}

/* forward: m = act(g) u or act(a), of [g u] or a. The gradient goes into the place of these. */
static void mlp_inner_backward(const dpt_pass *pass) {
    const dpt_work *k = pass->work;
    int64_t T = pass->tokens, f = pass->slice->f, hidden = pass->slice->hidden;
    float *g = k->hidden, *u = k->hidden + hidden - f;
    if (mlp_slot(pass) == DPT_SLOT_GATE)
        dpt_nn_gated_backward(pass->arch->act, (float)pass->arch->act_limit, T, f, k->dm, f, g,
                              hidden, u, hidden, g, u);
    else
        dpt_nn_act_backward(pass->arch->act, T * f, k->dm, u, u);
}

/* forward: a = n Win^T; m = act(a); y = m Wd^T, this rank's share. @param[out] dn its share of the gradient of n. */
static void mlp_backward_dense(const dpt_pass *pass, int64_t layer, const float *n, const float *dy,
                               float *dn) {
    const dpt_work *k = pass->work;
    int64_t C = pass->width, f = pass->slice->f, hidden = pass->slice->hidden;
    dpt_product_backward(pass, layer, DPT_SLOT_DOWN, DPT_SLOT_DOWN_BIAS,
                         dpt_pass_rows(pass, dy, C, k->m, f), k->dm, f);
    mlp_inner_backward(pass);
    dpt_product_backward(pass, layer, mlp_slot(pass), mlp_bias_slot(pass),
                         dpt_pass_rows(pass, k->hidden, hidden, n, C), dn, C);
}

void dpt_mlp_backward(dpt_pass *pass, int64_t layer, const float *x, const float *dy, float *dx) {
    const dpt_work *k = pass->work;
    const float *n = pass->arch->row[DPT_SLOT_NORM2] != NULL ? k->n2 : x;
    if (pass->arch->experts.count > 0)
        dpt_experts_backward(pass, layer, n, dy, k->part);
    else
        mlp_backward_dense(pass, layer, n, dy, k->part);
    dpt_pass_sum(pass, k->part, pass->tokens * pass->width);
    dpt_pass_norm_in_backward(pass, layer, DPT_SLOT_NORM2, k->part, x, k->norm2, dx);
}
