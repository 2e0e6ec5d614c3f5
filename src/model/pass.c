#include "transformer.h"

#include "deltapath/nn/norm.h"
#include "deltapath/tensor/shard.h"

#include <string.h>

void dpt_pass_sum(dpt_pass *pass, float *values, int64_t n) {
    dpt_shares_progress(pass->params);
    dpt_status st = dpt_comm_sum_f32(&pass->model->group, values, n);
    pass->status = dpt_status_worse(pass->status, st);
}

void dpt_pass_add(const dpt_pass *pass, const float *a, float *sum) {
    int64_t n = pass->tokens * pass->width;
#pragma omp parallel for simd schedule(static) if (n > 1 << 16)
    for (int64_t i = 0; i < n; i++)
        sum[i] += a[i];
}

bool dpt_pass_holds(const dpt_pass *pass, int64_t layer) {
    return pass->call->mode != DPT_BACKWARD_NONE && layer >= pass->arch->layers - pass->here.held;
}

/* Have the activations of a layer where they wait, or in the room that all others share. */
static void pass_point(dpt_pass *pass, int64_t layer) {
    pass->here = pass->model->work;
    if (layer < pass->arch->layers && dpt_pass_holds(pass, layer))
        dpt_work_point(pass->model, layer, &pass->here);
}

float *dpt_pass_input(const dpt_pass *pass, int64_t layer) {
    if (pass->call->mode == DPT_BACKWARD_NONE)
        return pass->work->x;
    int64_t at = pass->slice->ranks > 1 ? layer % 2 : layer;
    return pass->work->x + at * pass->tokens * pass->width;
}

/* This rank's tokens of the input of a layer; NULL where all are kept by all. */
static float *pass_kept(const dpt_pass *pass, int64_t layer, int64_t *first, int64_t *n) {
    int ranks = pass->slice->ranks;
    int64_t end;
    if (ranks == 1 || pass->call->mode == DPT_BACKWARD_NONE)
        return NULL;
    dpt_shard_split(pass->tokens, ranks, pass->model->group.rank, first, &end);
    *n = end - *first;
    return pass->work->kept + layer * ((pass->tokens + ranks - 1) / ranks) * pass->width;
}

/* Keep the input of a layer, of which another takes the room. */
static void pass_keep(const dpt_pass *pass, int64_t layer) {
    int64_t first, n, C = pass->width;
    float *kept = pass_kept(pass, layer, &first, &n);
    if (kept != NULL)
        memcpy(kept, dpt_pass_input(pass, layer) + first * C, (size_t)(n * C) * sizeof *kept);
}

/* Have the input of a layer again, whole. */
static void pass_fetch(dpt_pass *pass, int64_t layer) {
    int64_t first, n;
    const float *kept = pass_kept(pass, layer, &first, &n);
    if (kept == NULL)
        return;
    dpt_status st =
        dpt_comm_allgather_even(&pass->model->group, kept, pass->tokens,
                                pass->width * (int64_t)sizeof *kept, dpt_pass_input(pass, layer));
    pass->status = dpt_status_worse(pass->status, st);
}

int dpt_pass_index(const dpt_pass *pass, int64_t layer, dpt_slot slot) {
    return dpt_arch_index(pass->arch, layer, slot);
}

dpt_rows dpt_pass_rows(const dpt_pass *pass, const float *dy, int64_t lddy, const float *x,
                       int64_t ldx) {
    return dpt_rows_of(pass->tokens, pass->work->sequence, dy, lddy, x, ldx);
}

void dpt_pass_accumulate(const dpt_pass *pass, int64_t layer, dpt_slot weight, dpt_slot bias,
                         dpt_rows rows) {
    dpt_accumulate_linear(&pass->to, dpt_pass_index(pass, layer, weight), rows);
    dpt_accumulate_bias(&pass->to, dpt_pass_index(pass, layer, bias), rows);
}

void dpt_pass_norm(const dpt_pass *pass, dpt_slot slot, int64_t n, const float *x, float *y,
                   dpt_norm_stats stats) {
    const float *w = pass->work->w[slot], *b = pass->work->w[slot + 1];
    int64_t C = pass->width;
    float eps = (float)pass->arch->eps;
    if (pass->arch->norm != DPT_NORM_LAYER)
        dpt_nn_rmsnorm_forward(n, C, x, C, w, eps, y, C, stats.rstd);
    else
        dpt_nn_layernorm_forward(n, C, x, C, w, b, eps, y, C, stats.mean, stats.rstd);
}

void dpt_pass_norm_backward(const dpt_pass *pass, int64_t layer, dpt_slot slot, dpt_rows rows,
                            dpt_norm_stats stats, bool add, float *dx) {
    const float *w = pass->work->w[slot];
    int64_t C = pass->width;
    dpt_accumulate_norm(&pass->to, dpt_pass_index(pass, layer, slot),
                        dpt_pass_index(pass, layer, (dpt_slot)(slot + 1)), rows, stats.mean,
                        stats.rstd);
    if (pass->arch->norm != DPT_NORM_LAYER)
        dpt_nn_rmsnorm_backward_input(rows.n, C, rows.dy, C, rows.x, C, w, stats.rstd, add, dx, C);
    else
        dpt_nn_layernorm_backward_input(rows.n, C, rows.dy, C, rows.x, C, w, stats.mean, stats.rstd,
                                        add, dx, C);
}

const float *dpt_pass_norm_in(const dpt_pass *pass, dpt_slot slot, const float *x, float *y,
                              dpt_norm_stats stats) {
    if (pass->arch->row[slot] == NULL)
        return x;
    dpt_pass_norm(pass, slot, pass->tokens, x, y, stats);
    return y;
}

void dpt_pass_norm_in_backward(const dpt_pass *pass, int64_t layer, dpt_slot slot, const float *dy,
                               const float *x, dpt_norm_stats stats, float *dx) {
    int64_t C = pass->width;
    if (pass->arch->row[slot] != NULL)
        dpt_pass_norm_backward(pass, layer, slot, dpt_pass_rows(pass, dy, C, x, C), stats, true,
                               dx);
    else
        dpt_pass_add(pass, dy, dx);
}

/* Sequences of the batch: those of its tokens, or the patches of its images. */
static void pass_number(dpt_pass *pass) {
    const dpt_batch *batch = pass->call->batch;
    int64_t positions = pass->arch->image_tokens, *first = pass->work->first;
    pass->sequences = batch->sequences;
    pass->first = batch->images != NULL ? first : batch->first;
    for (int64_t s = 0; batch->images != NULL && s <= pass->sequences; s++)
        first[s] = s * positions;
    pass->tokens = pass->first[pass->sequences];
    for (int64_t s = 0; s < pass->sequences; s++)
        for (int64_t i = pass->first[s]; i < pass->first[s + 1]; i++) {
            pass->work->sequence[i] = s;
            pass->work->position[i] = (int32_t)(i - pass->first[s]);
        }
}

/* The unit that comes after one on the way there, or on the way back; -1: none. */
static int pass_next(const dpt_arch *arch, dpt_pass_walk walk, bool back, int unit) {
    if (back)
        return unit - 1;
    if (unit < dpt_pass_unit_head(arch))
        return unit + 1;
    return walk.backward ? unit - 1 : -1;
}

static void pass_take(const dpt_arch *arch, dpt_params *params, dpt_pass_walk walk, bool back,
                      int unit) {
    dpt_shares_take(params, unit, pass_next(arch, walk, back, unit), walk.edit);
}

static void pass_enter(dpt_pass_walk walk, int unit) {
    if (walk.gradient != NULL)
        dpt_gradient_enter(walk.gradient, unit);
}

static void pass_leave(dpt_pass_walk walk, int unit) {
    if (walk.gradient == NULL)
        return;
    dpt_gradient_leave(walk.gradient, unit);
    if (unit == 0)
        dpt_gradient_next(walk.gradient);
}

void dpt_pass_walk_idle(dpt_model *model, dpt_pass_walk walk) {
    int head = dpt_pass_unit_head(&model->arch);
    for (int unit = 0; unit <= head; unit++)
        pass_take(&model->arch, &model->params, walk, false, unit);
    pass_leave(walk, head);
    for (int unit = head - 1; unit >= 0 && walk.backward; unit--) {
        pass_take(&model->arch, &model->params, walk, true, unit);
        pass_leave(walk, unit);
    }
}

/* There: the loss, and the gradient of the last layer's output. */
static void pass_forward(dpt_pass *pass, dpt_pass_walk walk) {
    const dpt_arch *arch = pass->arch;
    bool images = pass->call->batch->images != NULL;
    pass_take(arch, pass->params, walk, false, 0);
    (images ? dpt_embed_patches : dpt_embed_tokens)(pass, dpt_pass_input(pass, 0));
    for (int64_t layer = 0; layer < arch->layers; layer++) {
        pass_take(arch, pass->params, walk, false, dpt_pass_unit_layer(layer));
        pass_keep(pass, layer);
        pass_point(pass, layer);
        dpt_block_forward(pass, layer, dpt_pass_input(pass, layer),
                          dpt_pass_input(pass, layer + 1));
    }
    pass_point(pass, arch->layers);
    pass_take(arch, pass->params, walk, false, dpt_pass_unit_head(arch));
    pass_enter(walk, dpt_pass_unit_head(arch));
    dpt_head_run(pass);
    pass_leave(walk, dpt_pass_unit_head(arch));
}

/* And back, which a call that wants the loss alone leaves to the other replicas. */
static void pass_backward(dpt_pass *pass, dpt_pass_walk walk) {
    const dpt_arch *arch = pass->arch;
    bool wanted = pass->call->mode != DPT_BACKWARD_NONE;
    for (int64_t layer = arch->layers - 1; layer >= 0; layer--) {
        pass_take(arch, pass->params, walk, true, dpt_pass_unit_layer(layer));
        if (wanted) {
            pass_fetch(pass, layer);
            pass_enter(walk, dpt_pass_unit_layer(layer));
            pass_point(pass, layer);
            dpt_block_backward(pass, layer, dpt_pass_input(pass, layer));
        }
        pass_leave(walk, dpt_pass_unit_layer(layer));
    }
    pass_point(pass, arch->layers);
    pass_take(arch, pass->params, walk, true, 0);
    pass_enter(walk, 0);
    if (wanted && pass->call->batch->images != NULL)
        dpt_embed_patches_backward(pass);
    else if (wanted)
        dpt_embed_tokens_backward(pass);
    pass_leave(walk, 0);
}

dpt_status dpt_pass_run(dpt_model *model, const dpt_model_call *call, dpt_pass_walk walk) {
    const dpt_work *work = &model->work;
    dpt_pass pass = {.model = model,
                     .params = &model->params,
                     .arch = &model->arch,
                     .slice = &model->slice,
                     .here = *work,
                     .call = call,
                     .bf16 = model->precision == DPT_PRECISION_BF16 ? model->bf16 : NULL,
                     .to = {.model = model,
                            .call = call,
                            .term = work->term,
                            .e = work->e,
                            .squares = work->squares,
                            .products = work->products},
                     .width = model->arch.length[DPT_AXIS_WIDTH],
                     .status = DPT_OK};
    pass.work = &pass.here;
    pass_number(&pass);
    if (pass.tokens == 0) {
        if (model->together)
            dpt_pass_walk_idle(model, walk);
        return DPT_OK;
    }
    pass_forward(&pass, walk);
    if (walk.backward)
        pass_backward(&pass, walk);
    if (pass.bf16 != NULL)
        pass.status = dpt_status_worse(pass.status, dpt_bf16_get_status(pass.bf16));
    return pass.status;
}
