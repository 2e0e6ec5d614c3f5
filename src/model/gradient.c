#include "transformer.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"
#include "deltapath/linalg/reduce.h"

#include <string.h>

enum { GRADIENT_PIECE = 1 << 20 }; /* elements of E formed at a time */

/* Elements of a block that are its rank's to keep the gradient of. */
static int64_t gradient_numel(const dpt_param *param) {
    return param->counted ? dpt_param_numel(param) : 0;
}

int64_t dpt_gradient_bytes(const dpt_model *model) {
    const dpt_model_gradient *gradient = NULL;
    int count = model->params.count;
    int64_t bytes = (int64_t)sizeof *gradient +
                    count * (int64_t)(sizeof *gradient->blocks + sizeof *gradient->numel);
    for (int i = 0; i < count; i++)
        bytes += gradient_numel(&model->params.items[i]) * (int64_t)sizeof **gradient->blocks;
    return bytes;
}

dpt_status dpt_model_gradient_create(const dpt_model *model, dpt_model_gradient **out) {
    *out = NULL;
    dpt_model_gradient *gradient = dpt_mem_zalloc(1, sizeof *gradient, "gradient");
    if (gradient == NULL)
        return DPT_ERR_OUTPUT;
    int count = model->params.count;
    gradient->blocks = dpt_mem_zalloc(count, sizeof *gradient->blocks, "list of gradients");
    gradient->numel = dpt_mem_zalloc(count, sizeof *gradient->numel, "list of gradients");
    dpt_status st = gradient->blocks != NULL && gradient->numel != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    for (int i = 0; st == DPT_OK && i < count; i++) {
        gradient->count = i + 1;
        gradient->numel[i] = gradient_numel(&model->params.items[i]);
        if (gradient->numel[i] == 0)
            continue;
        gradient->blocks[i] = dpt_mem_zalloc(gradient->numel[i], sizeof(float), "gradients");
        if (gradient->blocks[i] == NULL)
            st = DPT_ERR_OUTPUT;
    }
    if (st == DPT_OK)
        *out = gradient;
    else
        dpt_model_gradient_destroy(gradient);
    return st;
}

void dpt_model_gradient_destroy(dpt_model_gradient *gradient) {
    if (gradient == NULL)
        return;
    for (int i = 0; gradient->blocks != NULL && i < gradient->count; i++)
        dpt_mem_free(gradient->blocks[i]);
    dpt_mem_free(gradient->blocks);
    dpt_mem_free(gradient->numel);
    dpt_mem_free(gradient);
}

int dpt_model_gradient_count(const dpt_model_gradient *gradient) {
    return gradient->count;
}

float *dpt_model_gradient_block(const dpt_model_gradient *gradient, int i, int64_t *numel) {
    *numel = gradient->numel[i];
    return gradient->blocks[i];
}

dpt_status dpt_model_gradient_sum(dpt_model_gradient *gradient, const dpt_comm *data) {
    dpt_status st = DPT_OK;
    for (int i = 0; i < gradient->count; i++) {
        if (gradient->blocks[i] == NULL)
            continue;
        dpt_status got = dpt_comm_sum_f32(data, gradient->blocks[i], gradient->numel[i]);
        st = dpt_status_worse(st, got);
    }
    return dpt_agree(data, st);
}

/* <grad, E> of one block. */
static double gradient_dot_block(const dpt_param *param, const float *grad, float *e) {
    int64_t numel = dpt_param_numel(param);
    double dot = 0.0;
    for (int64_t at = 0; at < numel; at += GRADIENT_PIECE) {
        int64_t n = numel - at < GRADIENT_PIECE ? numel - at : GRADIENT_PIECE;
        dpt_param_delta_run(param, at, n, e);
        dot += dpt_reduce_dot(grad + at, e, n);
    }
    return dot;
}

static void gradient_dot_unit(const dpt_model *model, const dpt_model_gradient *gradient, int unit,
                              float *e, double *terms) {
    const dpt_params *params = &model->params;
    int begin, end;
    dpt_shares_blocks(params->shares, unit, &begin, &end);
    for (int at = begin; at < end; at++) {
        const dpt_param *param = dpt_share_param(params, at);
        const float *block = gradient->blocks[param - params->items];
        if (block == NULL || !param->has_delta)
            continue;
        double dot = gradient_dot_block(param, block, e);
        terms[param->tensor] += dot;
        if (param->matrix >= 0)
            terms[model->catalog.count + param->matrix] += dot;
    }
}

dpt_status dpt_model_gradient_dot(dpt_model *model, const dpt_model_gradient *gradient,
                                  double *terms) {
    int units = model->params.shares->units;
    dpt_status st = model->bound
                        ? DPT_OK
                        : dpt_error(DPT_ERR_INTERNAL, "model: terms need an edit: bind one first");
    float *e = dpt_mem_alloc(GRADIENT_PIECE, sizeof *e, "piece of an edit");
    if (e == NULL)
        st = DPT_ERR_OUTPUT;
    if (model->together)
        st = dpt_agree(&model->replicas, dpt_agree(&model->group, st));
    if (st == DPT_OK)
        memset(terms, 0, (size_t)dpt_model_columns(model) * sizeof *terms);
    for (int unit = 0; unit < units && st == DPT_OK; unit++) {
        dpt_shares_take(&model->params, unit, unit + 1 < units ? unit + 1 : -1, true);
        gradient_dot_unit(model, gradient, unit, e, terms);
    }
    dpt_mem_free(e);
    return st;
}

/* The part of a block that falls into a run. */
static void gradient_place(const dpt_param *param, const float *from, dpt_range range, float *out) {
    dpt_param_cut cut = {.line = -1};
    while (dpt_param_next_cut(param, range, &cut)) {
        dpt_param_line line = cut.part;
        float *to = out + (line.ig - range.ig);
        if (line.step == 1 && line.stride == 1)
            memcpy(to, from + line.at, (size_t)line.n * sizeof *to);
        else
            for (int64_t i = 0; i < line.n; i++)
                to[i * line.stride] = from[line.at + i * line.step];
    }
}

dpt_status dpt_model_gradient_range(const dpt_model *model, const dpt_model_gradient *gradient,
                                    dpt_range range, float *out) {
    const dpt_params *params = &model->params;
    DPT_ASSERT_SAME(&model->group, range.tensor);
    DPT_ASSERT_SAME(&model->group, range.ig);
    DPT_ASSERT_SAME(&model->group, range.n);
    memset(out, 0, (size_t)range.n * sizeof *out);
    for (int i = params->first[range.tensor]; i >= 0; i = params->items[i].next)
        if (gradient->blocks[i] != NULL)
            gradient_place(&params->items[i], gradient->blocks[i], range, out);
    return dpt_agree(&model->group, dpt_comm_sum_f32(&model->group, out, range.n));
}
