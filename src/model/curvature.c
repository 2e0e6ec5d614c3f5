#include "transformer.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/linalg/reduce.h"

#include <string.h>

/* sum E_i^2 G_i^2. A gradient of which ranks of the group hold partial sums has to be added up before it is
 * squared: those are key-value heads that several ranks use. All other blocks lie on one rank each. */

enum { CURVATURE_PIECE = 1 << 20 }; /* elements formed at a time */

/* Scratch of a piece. */
typedef struct curvature_work {
    float *e;       /* (CURVATURE_PIECE) E, then E times G */
    float *total;   /* (CURVATURE_PIECE) gradient over the group */
    float *holders; /* (CURVATURE_PIECE) ranks that hold an element */
    int64_t *held;  /* (tensors) elements that the blocks of the group have together */
} curvature_work;

static void curvature_work_destroy(curvature_work *work) {
    dpt_mem_free(work->e);
    dpt_mem_free(work->total);
    dpt_mem_free(work->holders);
    dpt_mem_free(work->held);
}

static dpt_status curvature_work_create(int tensors, curvature_work *out) {
    out->e = dpt_mem_alloc(CURVATURE_PIECE, sizeof *out->e, "piece of an edit");
    out->total = dpt_mem_alloc(CURVATURE_PIECE, sizeof *out->total, "piece of a gradient");
    out->holders = dpt_mem_alloc(CURVATURE_PIECE, sizeof *out->holders, "ranks of a gradient");
    out->held = dpt_mem_zalloc(tensors, sizeof *out->held, "elements of gradients");
    return out->e != NULL && out->total != NULL && out->holders != NULL && out->held != NULL
               ? DPT_OK
               : DPT_ERR_OUTPUT;
}

/* The block as one column, of which any run of elements can be formed. */
static dpt_param curvature_flat(const dpt_param *param) {
    dpt_param flat = *param;
    flat.block.rows = dpt_param_numel(param);
    flat.block.cols = 1;
    return flat;
}

static double curvature_of_block(const dpt_param *param, const float *gradient, float *e) {
    dpt_param flat = curvature_flat(param);
    double sum = 0.0;
    for (int64_t at = 0; at < flat.block.rows; at += CURVATURE_PIECE) {
        int64_t n = flat.block.rows - at < CURVATURE_PIECE ? flat.block.rows - at : CURVATURE_PIECE;
        dpt_param_delta(&flat, at, n, e);
        for (int64_t i = 0; i < n; i++)
            e[i] *= gradient[at + i];
        sum += dpt_reduce_dot(e, e, n);
    }
    return sum;
}

/* Call `take` for each run of elements that a block and a range have in common. */
typedef void (*curvature_run_fn)(void *ctx, const dpt_param *param, int64_t at, dpt_range run);

static void curvature_each_run(const dpt_param *param, dpt_range range, curvature_run_fn take,
                               void *ctx) {
    const dpt_block *block = &param->block;
    for (int64_t row = 0; row < block->rows; row++) {
        int64_t begin = block->ig + row * block->stride, end = begin + block->cols;
        int64_t low = begin > range.ig ? begin : range.ig;
        int64_t high = end < range.ig + range.n ? end : range.ig + range.n;
        if (low < high)
            take(ctx, param, row * block->cols + (low - begin),
                 (dpt_range){.tensor = range.tensor, .ig = low, .n = high - low});
    }
}

typedef struct curvature_piece {
    const curvature_work *work;
    int64_t ig;
    double sum;
} curvature_piece;

static void curvature_mark_run(void *ctx, const dpt_param *param, int64_t at, dpt_range run) {
    const curvature_piece *piece = ctx;
    (void)param;
    (void)at;
    for (int64_t i = 0; i < run.n; i++)
        piece->work->holders[run.ig - piece->ig + i] += 1.0F;
}

/* Each holder counts its share of an element. */
static void curvature_sum_run(void *ctx, const dpt_param *param, int64_t at, dpt_range run) {
    curvature_piece *piece = ctx;
    float *e = piece->work->e;
    const float *total = piece->work->total + (run.ig - piece->ig);
    const float *holders = piece->work->holders + (run.ig - piece->ig);
    dpt_param flat = curvature_flat(param);
    dpt_param_delta(&flat, at, run.n, e);
    for (int64_t i = 0; i < run.n; i++) {
        double x = (double)e[i] * (double)total[i];
        piece->sum += x * x / (double)holders[i];
    }
}

/* Call `take` for every run of a range that the blocks of this rank have. */
static void curvature_each_block(const dpt_model *model, const dpt_model_gradient *gradient,
                                 dpt_range range, curvature_run_fn take, void *ctx) {
    for (int i = 0; i < gradient->count; i++)
        if (gradient->blocks[i] != NULL && model->params.items[i].tensor == range.tensor)
            curvature_each_run(&model->params.items[i], range, take, ctx);
}

/* This rank's share of a tensor of which several ranks hold partial sums. */
static dpt_status curvature_of_shared(const dpt_model *model, const dpt_model_gradient *gradient,
                                      int tensor, const curvature_work *work, double *sum) {
    int64_t numel = model->catalog.tensors[tensor].numel;
    dpt_status st = DPT_OK;
    for (int64_t at = 0; at < numel; at += CURVATURE_PIECE) {
        dpt_range range = {.tensor = tensor,
                           .ig = at,
                           .n = numel - at < CURVATURE_PIECE ? numel - at : CURVATURE_PIECE};
        curvature_piece piece = {.work = work, .ig = at};
        memset(work->holders, 0, (size_t)range.n * sizeof *work->holders);
        curvature_each_block(model, gradient, range, curvature_mark_run, &piece);
        st = dpt_status_worse(st, dpt_comm_sum_f32(&model->group, work->holders, range.n));
        st = dpt_status_worse(st, dpt_model_gradient_range(model, gradient, range, work->total));
        curvature_each_block(model, gradient, range, curvature_sum_run, &piece);
        *sum += piece.sum;
    }
    return st;
}

dpt_status dpt_model_gradient_squares(const dpt_model *model, const dpt_model_gradient *gradient,
                                      double *squares) {
    int tensors = model->catalog.count;
    curvature_work work = {.e = NULL};
    dpt_status st = model->bound ? curvature_work_create(tensors, &work)
                                 : dpt_error(DPT_ERR_INTERNAL,
                                             "model: a curvature needs an edit: bind one first");
    st = dpt_agree(&model->group, st);
    if (st != DPT_OK)
        goto done;
    memset(squares, 0, (size_t)tensors * sizeof *squares);
    for (int i = 0; i < gradient->count; i++)
        if (gradient->blocks[i] != NULL)
            work.held[model->params.items[i].tensor] += gradient->numel[i];
    st = dpt_comm_sum_i64(&model->group, work.held, tensors);
    for (int i = 0; i < gradient->count; i++) {
        const dpt_param *param = &model->params.items[i];
        if (gradient->blocks[i] != NULL && param->has_delta &&
            work.held[param->tensor] <= model->catalog.tensors[param->tensor].numel)
            squares[param->tensor] += curvature_of_block(param, gradient->blocks[i], work.e);
    }
    for (int k = 0; k < tensors; k++)
        if (work.held[k] > model->catalog.tensors[k].numel)
            st = dpt_status_worse(st, curvature_of_shared(model, gradient, k, &work, &squares[k]));
    st = dpt_status_worse(st, dpt_comm_sum_f64(&model->group, squares, tensors));
    st = dpt_agree(&model->group, st);
done:
    curvature_work_destroy(&work);
    return st;
}
