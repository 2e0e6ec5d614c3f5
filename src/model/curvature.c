#include "transformer.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/linalg/reduce.h"

#include <string.h>

/* sum E_i^2 G_i^2, of each rank over the rows that it holds. A gradient of which ranks of the group hold partial sums has
 * to be added up before it is squared: those are key-value heads that several ranks use. All others lie on one rank. */

enum { CURVATURE_PIECE = 1 << 20 }; /* elements formed at a time */

/* Scratch of a piece. */
typedef struct curvature_work {
    float *e;       /* (CURVATURE_PIECE) E, then E times G */
    float *total;   /* (CURVATURE_PIECE) gradient over the group */
    float *holders; /* (CURVATURE_PIECE) ranks that hold an element */
    int64_t *held;  /* (tensors) elements that the blocks of the group have together */
} curvature_work;

int64_t dpt_model_squares_bytes(void) {
    return 3 * (int64_t)CURVATURE_PIECE * (int64_t)sizeof(float);
}

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

static double curvature_of_rows(const dpt_param *param, const float *gradient, float *e) {
    dpt_param part = dpt_gradient_part(param);
    int64_t numel = part.rows * part.cols, first = param->own_row * param->cols;
    double sum = 0.0;
    for (int64_t at = 0; at < numel; at += CURVATURE_PIECE) {
        int64_t n = numel - at < CURVATURE_PIECE ? numel - at : CURVATURE_PIECE;
        dpt_param_delta_part(&part, first, at, n, e);
        for (int64_t i = 0; i < n; i++)
            e[i] *= gradient[at + i];
        sum += dpt_reduce_dot(e, e, n);
    }
    return sum;
}

typedef struct curvature_piece {
    const curvature_work *work;
    dpt_range range;
    double sum;
} curvature_piece;

/* What some rows of a block, from its element `first` on, and the piece have in common, line by line. */
typedef void (*curvature_line_fn)(curvature_piece *piece, const dpt_param *part, int64_t first,
                                  dpt_param_line line);

static void curvature_mark_line(curvature_piece *piece, const dpt_param *part, int64_t first,
                                dpt_param_line line) {
    (void)part;
    (void)first;
    float *holders = piece->work->holders + (line.ig - piece->range.ig);
    for (int64_t i = 0; i < line.n; i++)
        holders[i * line.stride] += 1.0F;
}

/* Each holder counts its share of an element. */
static void curvature_sum_line(curvature_piece *piece, const dpt_param *part, int64_t first,
                               dpt_param_line line) {
    float *e = piece->work->e;
    const float *total = piece->work->total + (line.ig - piece->range.ig);
    const float *holders = piece->work->holders + (line.ig - piece->range.ig);
    if (line.step == 1)
        dpt_param_delta_part(part, first, line.at, line.n, e);
    for (int64_t i = 0; i < line.n && line.step > 1; i++)
        dpt_param_delta_part(part, first, line.at + i * line.step, 1, e + i);
    for (int64_t i = 0; i < line.n; i++) {
        double x = (double)e[i] * (double)total[i * line.stride];
        piece->sum += x * x / (double)holders[i * line.stride];
    }
}

/* Call `take` for every line of a piece that the rows of this rank have. */
static void curvature_each_line(const dpt_model *model, const dpt_model_gradient *gradient,
                                curvature_piece *piece, curvature_line_fn take) {
    const dpt_params *params = &model->params;
    for (int i = params->first[piece->range.tensor]; i >= 0; i = params->items[i].next) {
        const dpt_param *param = &params->items[i];
        dpt_param part = dpt_gradient_part(param);
        dpt_param_cut cut = {.line = -1};
        while (gradient->own[i] != NULL && dpt_param_next_cut(&part, piece->range, &cut))
            take(piece, &part, param->own_row * param->cols, cut.part);
    }
}

static dpt_status curvature_sum(const dpt_model *model, float *values, int64_t n) {
    dpt_status st = dpt_comm_sum_f32(&model->group, values, n);
    return dpt_status_worse(st, dpt_comm_sum_f32(&model->replicas, values, n));
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
        curvature_piece piece = {.work = work, .range = range};
        memset(work->holders, 0, (size_t)range.n * sizeof *work->holders);
        curvature_each_line(model, gradient, &piece, curvature_mark_line);
        st = dpt_status_worse(st, curvature_sum(model, work->holders, range.n));
        st = dpt_status_worse(st, dpt_model_gradient_range(model, gradient, range, work->total));
        curvature_each_line(model, gradient, &piece, curvature_sum_line);
        *sum += piece.sum;
    }
    return st;
}

/* The rows of this rank, then the tensors that several ranks have together. */
static dpt_status curvature_of_all(const dpt_model *model, const dpt_model_gradient *gradient,
                                   const curvature_work *work, double *squares) {
    const dpt_tensor_info *tensors = model->catalog.tensors;
    dpt_status st = DPT_OK;
    for (int i = 0; i < gradient->count; i++) {
        const dpt_param *param = &model->params.items[i];
        if (gradient->own[i] != NULL && param->has_delta &&
            work->held[param->tensor] <= tensors[param->tensor].numel)
            squares[param->tensor] += curvature_of_rows(param, gradient->own[i], work->e);
    }
    for (int k = 0; k < model->catalog.count; k++)
        if (work->held[k] > tensors[k].numel)
            st = dpt_status_worse(st, curvature_of_shared(model, gradient, k, work, &squares[k]));
    return st;
}

dpt_status dpt_model_gradient_squares(const dpt_model *model, const dpt_model_gradient *gradient,
                                      double *squares) {
    int tensors = model->catalog.count;
    curvature_work work = {.e = NULL};
    dpt_status st = model->bound ? curvature_work_create(tensors, &work)
                                 : dpt_error(DPT_ERR_INTERNAL,
                                             "model: a curvature needs an edit: bind one first");
    st = dpt_agree(&model->replicas, dpt_agree(&model->group, st));
    if (st != DPT_OK)
        goto done;
    memset(squares, 0, (size_t)tensors * sizeof *squares);
    st = dpt_gradient_count_held(model, gradient, work.held);
    st = dpt_status_worse(st, curvature_of_all(model, gradient, &work, squares));
    st = dpt_status_worse(st, dpt_comm_sum_f64(&model->group, squares, tensors));
    st = dpt_status_worse(st, dpt_comm_sum_f64(&model->replicas, squares, tensors));
    st = dpt_agree(&model->replicas, dpt_agree(&model->group, st));
done:
    curvature_work_destroy(&work);
    return st;
}
