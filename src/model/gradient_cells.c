#include "transformer.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"

#include <string.h>

/* From the rows of ranks to the owners of cells. A tensor whose elements lie on one rank each goes there in runs, straight
 * from the rows. Two kinds are added up on all ranks instead, cell by cell: of which ranks of a group hold partial sums
 * (norms, key-value heads that several use), and whose runs would be single elements. */

typedef struct cells_work {
    const dpt_model *model;
    const dpt_model_gradient *gradient;
    dpt_sink sink;
    int64_t *held; /* (tensors) elements that all ranks have together */
    int64_t
        *apart; /* (tensors) 1 where neighbours in the tensor are none in the rows of some rank */
    float *sum; /* (DPT_CELL) */
} cells_work;

static dpt_status cells_create(const dpt_model *model, const dpt_model_gradient *gradient,
                               dpt_sink sink, cells_work *out) {
    int tensors = model->catalog.count;
    *out = (cells_work){.model = model, .gradient = gradient, .sink = sink};
    out->held = dpt_mem_zalloc(tensors, sizeof *out->held, "elements of gradients");
    out->apart = dpt_mem_zalloc(tensors, sizeof *out->apart, "elements of gradients");
    out->sum = dpt_mem_alloc(DPT_CELL, sizeof *out->sum, "cell of a gradient");
    return out->held != NULL && out->apart != NULL && out->sum != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

static void cells_destroy(cells_work *work) {
    dpt_mem_free(work->held);
    dpt_mem_free(work->apart);
    dpt_mem_free(work->sum);
}

static dpt_status cells_agree(const dpt_model *model, dpt_status st) {
    return dpt_agree(&model->replicas, dpt_agree(&model->group, st));
}

/* Which tensors go which way, on all ranks alike. */
static dpt_status cells_sort(const cells_work *work) {
    const dpt_model *model = work->model;
    int tensors = model->catalog.count;
    for (int i = 0; i < work->gradient->count; i++) {
        const dpt_param *param = &model->params.items[i];
        dpt_param part = dpt_gradient_part(param);
        if (work->gradient->own[i] == NULL || dpt_param_lines(&part) == 0)
            continue;
        dpt_param_line line = dpt_param_get_line(&part, 0);
        if (line.n > 1 && (line.step != 1 || line.stride != 1))
            work->apart[param->tensor] = 1;
    }
    dpt_status st = dpt_gradient_count_held(model, work->gradient, work->held);
    st = dpt_status_worse(st, dpt_comm_max_i64(&model->group, work->apart, tensors));
    return dpt_status_worse(st, dpt_comm_max_i64(&model->replicas, work->apart, tensors));
}

/* The runs of a tensor that this rank has. @param[out] ranges, data or NULL: they are counted. @return their number. */
static int64_t cells_list_runs(const cells_work *work, int tensor, dpt_range *ranges,
                               const void **data) {
    const dpt_params *params = &work->model->params;
    int64_t n = 0;
    for (int i = params->first[tensor]; i >= 0; i = params->items[i].next) {
        const float *own = work->gradient->own[i];
        dpt_param part = dpt_gradient_part(&params->items[i]);
        int64_t ig = -1, at = -1; /* after the line before */
        for (int64_t k = 0; own != NULL && k < dpt_param_lines(&part); k++) {
            dpt_param_line line = dpt_param_get_line(&part, k);
            bool begins = line.ig != ig || line.at != at;
            if (begins && ranges != NULL) {
                ranges[n] = (dpt_range){.tensor = tensor, .ig = line.ig};
                data[n] = own + line.at;
            }
            n += begins;
            if (ranges != NULL)
                ranges[n - 1].n += line.n;
            ig = line.ig + line.n;
            at = line.at + line.n;
        }
    }
    return n;
}

static dpt_status cells_send(const cells_work *work, int tensor) {
    int64_t n = cells_list_runs(work, tensor, NULL, NULL);
    dpt_range *ranges = dpt_mem_alloc(n, sizeof *ranges, "runs of a gradient");
    const void **data = dpt_mem_alloc(n, sizeof *data, "runs of a gradient");
    dpt_status st =
        cells_agree(work->model, ranges != NULL && data != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    if (st == DPT_OK) {
        cells_list_runs(work, tensor, ranges, data);
        st = work->sink.scatter(work->sink.ctx, n, ranges, data);
    }
    dpt_mem_free(ranges);
    dpt_mem_free((void *)data);
    return st;
}

static dpt_status cells_sum(const cells_work *work, int tensor) {
    int64_t numel = work->model->catalog.tensors[tensor].numel;
    dpt_status st = DPT_OK;
    for (int64_t at = 0; at < numel && st == DPT_OK; at += DPT_CELL) {
        dpt_range cell = {
            .tensor = tensor, .ig = at, .n = numel - at < DPT_CELL ? numel - at : DPT_CELL};
        st = dpt_model_gradient_range(work->model, work->gradient, cell, work->sum);
        float *own = work->sink.view(work->sink.ctx, cell);
        if (st == DPT_OK && own != NULL)
            memcpy(own, work->sum, (size_t)cell.n * sizeof *own);
    }
    return st;
}

dpt_status dpt_model_gradient_write(const dpt_model *model, const dpt_model_gradient *gradient,
                                    dpt_sink sink) {
    const dpt_tensor_info *tensors = model->catalog.tensors;
    cells_work work;
    dpt_status st = cells_agree(model, cells_create(model, gradient, sink, &work));
    if (st == DPT_OK)
        st = cells_agree(model, cells_sort(&work));
    for (int t = 0; t < model->catalog.count && st == DPT_OK; t++) {
        if (work.held[t] == 0)
            continue;
        bool sums = work.apart[t] != 0 || work.held[t] > tensors[t].numel;
        st = sums ? cells_sum(&work, t) : cells_send(&work, t);
    }
    cells_destroy(&work);
    return cells_agree(model, st);
}
