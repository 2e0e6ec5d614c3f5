#include "transformer.h"

#include "deltapath/nn/norm.h"

#include <string.h>

/* The two branches of a layer, each of which adds to the residual stream. */
typedef struct block_branch {
    dpt_slot norm, scale; /* of what it adds */
    float *y;             /* (T, C) what goes into these, where there is one */
    dpt_norm_stats stats;
} block_branch;

static block_branch block_attention(const dpt_pass *pass) {
    return (block_branch){.norm = DPT_SLOT_OUT_NORM1,
                          .scale = DPT_SLOT_SCALE1,
                          .y = pass->work->y1,
                          .stats = pass->work->out1};
}

static block_branch block_mlp(const dpt_pass *pass) {
    return (block_branch){.norm = DPT_SLOT_OUT_NORM2,
                          .scale = DPT_SLOT_SCALE2,
                          .y = pass->work->y2,
                          .stats = pass->work->out2};
}

static void block_add(int64_t n, const float *a, const float *b, float *out) {
#pragma omp parallel for simd schedule(static) if (n > 1 << 16)
    for (int64_t i = 0; i < n; i++)
        out[i] = a[i] + b[i];
}

/* out = x + norm(y), x + scale y, or x + y. A branch has one of the two at most. */
static void block_join(const dpt_pass *pass, const block_branch *branch, const float *y,
                       const float *x, float *out) {
    int64_t T = pass->tokens, C = pass->width;
    float *part = pass->work->part;
    if (pass->arch->row[branch->norm] != NULL)
        dpt_pass_norm(pass, branch->norm, T, y, part, branch->stats);
    else if (pass->arch->row[branch->scale] != NULL)
        dpt_nn_scale(T, C, y, C, pass->work->w[branch->scale], part, C);
    else
        part = (float *)y;
    block_add(T * C, x, part, out);
}

/* forward: out = x + norm(y) or x + scale y. @return the gradient of y, given that of out. */
static const float *block_join_backward(const dpt_pass *pass, int64_t layer,
                                        const block_branch *branch, const float *dout) {
    const dpt_work *k = pass->work;
    int64_t T = pass->tokens, C = pass->width;
    dpt_rows rows = dpt_pass_rows(pass, dout, C, branch->y, C);
    if (pass->arch->row[branch->norm] != NULL) {
        dpt_pass_norm_backward(pass, layer, branch->norm, rows, branch->stats, false, k->dy);
    } else if (pass->arch->row[branch->scale] != NULL) {
        dpt_accumulate_scale(&pass->to, dpt_pass_index(pass, layer, branch->scale), rows);
        dpt_nn_scale(T, C, dout, C, k->w[branch->scale], k->dy, C);
    } else {
        return dout;
    }
    return k->dy;
}

/* Where a branch puts what it adds: the backward pass needs it where a norm or a factor follows. */
static float *block_output(const dpt_pass *pass, const block_branch *branch) {
    return branch->y != NULL ? branch->y : pass->work->part;
}

static const float *block_mlp_reads(const dpt_pass *pass, const float *x) {
    return pass->arch->parallel ? x : pass->work->h;
}

/* h = x + attention(x). */
static void block_forward_attention(dpt_pass *pass, int64_t layer, const float *x) {
    block_branch branch = block_attention(pass);
    float *y = block_output(pass, &branch);
    dpt_attention_forward(pass, layer, x, y);
    block_join(pass, &branch, y, x, pass->work->h);
}

void dpt_block_forward(dpt_pass *pass, int64_t layer, const float *x, float *out) {
    block_branch branch = block_mlp(pass);
    float *y = block_output(pass, &branch);
    dpt_weights_form(pass, layer, DPT_SLOTS_LAYER, DPT_SLOTS_HEAD);
    block_forward_attention(pass, layer, x);
    dpt_mlp_forward(pass, layer, block_mlp_reads(pass, x), y);
    block_join(pass, &branch, y, pass->work->h, out);
}

/* The MLP reads the input of the layer: its share of that input's gradient waits in h, which is free then, until
 * the attention has taken the gradient of the output too. */
static void block_backward_parallel(dpt_pass *pass, int64_t layer, const float *x) {
    const dpt_work *k = pass->work;
    int64_t n = pass->tokens * pass->width;
    block_branch attention = block_attention(pass), mlp = block_mlp(pass);
    memset(k->h, 0, (size_t)n * sizeof *k->h);
    dpt_mlp_backward(pass, layer, x, block_join_backward(pass, layer, &mlp, k->dx), k->h);
    const float *dy = block_join_backward(pass, layer, &attention, k->dx);
    dpt_attention_backward(pass, layer, x, dy, k->dx);
    dpt_pass_add(pass, k->h, k->dx);
}

/* What the backward pass needs of the forward pass. */
static void block_recompute(dpt_pass *pass, int64_t layer, const float *x) {
    block_branch mlp = block_mlp(pass);
    bool held = dpt_pass_holds(pass, layer);
    if (!held && dpt_arch_recomputes(pass->arch, DPT_SLOT_O))
        block_forward_attention(pass, layer, x);
    else
        dpt_attention_recompute(pass, layer, x);
    if (held || !dpt_arch_recomputes(pass->arch, DPT_SLOT_DOWN)) {
        dpt_mlp_recompute(pass, layer, block_mlp_reads(pass, x));
        return;
    }
    dpt_mlp_forward(pass, layer, block_mlp_reads(pass, x), mlp.y);
    if (pass->arch->row[mlp.norm] != NULL) /* for its statistics */
        dpt_pass_norm(pass, mlp.norm, pass->tokens, mlp.y, pass->work->part, mlp.stats);
}

void dpt_block_backward(dpt_pass *pass, int64_t layer, const float *x) {
    const dpt_work *k = pass->work;
    block_branch attention = block_attention(pass), mlp = block_mlp(pass);
    dpt_weights_form(pass, layer, DPT_SLOTS_LAYER, DPT_SLOTS_HEAD);
    block_recompute(pass, layer, x);
    if (pass->arch->parallel) {
        block_backward_parallel(pass, layer, x);
        return;
    }
    dpt_mlp_backward(pass, layer, k->h, block_join_backward(pass, layer, &mlp, k->dx), k->dx);
    dpt_attention_backward(pass, layer, x, block_join_backward(pass, layer, &attention, k->dx),
                           k->dx);
}
