#include "leave.h"

#include "deltapath/nn/embed.h"
#include "deltapath/nn/linear.h"
#include "deltapath/nn/norm.h"

#include <string.h>

int64_t dpt_leave_delta_floats(int64_t widest, int64_t longest) {
    int64_t rows = DPT_LEAVE_ROWS * widest;
    return rows > longest ? rows : longest;
}

/* Whether this rank has anything to leave for a tensor in the mode of the call. */
static bool wanted(const dpt_leave *leave, int index) {
    const dpt_param *param = &leave->model->params.items[index];
    if (dpt_param_numel(param) == 0 || !param->counted)
        return false;
    return leave->call->mode == DPT_BACKWARD_GRADIENT || param->moved;
}

/* Clear the term of each row; fold adds them up by sample. */
static double *begin_terms(const dpt_leave *leave, int64_t n) {
    memset(leave->term, 0, (size_t)n * sizeof *leave->term);
    return leave->term;
}

static void fold(const dpt_leave *leave, int index, dpt_leave_rows rows) {
    double *out = leave->call->terms + leave->model->params.items[index].tensor;
    for (int64_t i = 0; i < rows.n; i++)
        out[rows.sample[i] * leave->model->catalog.count] += leave->term[i];
}

void dpt_leave_linear(const dpt_leave *leave, int weight, dpt_leave_rows rows) {
    if (!wanted(leave, weight))
        return;
    const dpt_param *param = &leave->model->params.items[weight];
    int64_t N = param->block.rows, K = param->block.cols;
    if (leave->call->mode == DPT_BACKWARD_GRADIENT) {
        dpt_nn_linear_backward_weight(rows.n, N, K, rows.dy, rows.lddy, rows.x, rows.ldx, true,
                                      leave->call->gradient->blocks[weight], K);
        return;
    }
    double *term = begin_terms(leave, rows.n);
    for (int64_t at = 0; at < N; at += DPT_LEAVE_ROWS) {
        int64_t n = N - at < DPT_LEAVE_ROWS ? N - at : DPT_LEAVE_ROWS;
        dpt_param_delta(param, at, n, leave->e);
        dpt_nn_linear_terms(rows.n, n, K, rows.dy + at, rows.lddy, rows.x, rows.ldx, leave->e, K,
                            leave->products, term);
    }
    fold(leave, weight, rows);
}

void dpt_leave_bias(const dpt_leave *leave, int bias, dpt_leave_rows rows) {
    if (!wanted(leave, bias))
        return;
    const dpt_param *param = &leave->model->params.items[bias];
    int64_t N = dpt_param_numel(param);
    if (leave->call->mode == DPT_BACKWARD_GRADIENT) {
        dpt_nn_linear_backward_bias(rows.n, N, rows.dy, rows.lddy, true,
                                    leave->call->gradient->blocks[bias]);
        return;
    }
    double *term = begin_terms(leave, rows.n);
    dpt_param_delta(param, 0, param->block.rows, leave->e);
    dpt_nn_linear_bias_terms(rows.n, N, rows.dy, rows.lddy, leave->e, term);
    fold(leave, bias, rows);
}

void dpt_leave_rmsnorm(const dpt_leave *leave, int weight, dpt_leave_rows rows, const float *rstd) {
    if (!wanted(leave, weight))
        return;
    const dpt_param *param = &leave->model->params.items[weight];
    int64_t C = param->block.cols;
    if (leave->call->mode == DPT_BACKWARD_GRADIENT) {
        dpt_nn_rmsnorm_backward_weight(rows.n, C, rows.dy, rows.lddy, rows.x, rows.ldx, rstd, true,
                                       leave->call->gradient->blocks[weight]);
        return;
    }
    double *term = begin_terms(leave, rows.n);
    dpt_param_delta(param, 0, 1, leave->e);
    dpt_nn_rmsnorm_terms(rows.n, C, rows.dy, rows.lddy, rows.x, rows.ldx, rstd, leave->e, term);
    fold(leave, weight, rows);
}

void dpt_leave_layernorm(const dpt_leave *leave, int weight, int bias, dpt_leave_rows rows,
                         const float *mean, const float *rstd) {
    dpt_leave_bias(leave, bias, rows);
    if (!wanted(leave, weight))
        return;
    const dpt_param *param = &leave->model->params.items[weight];
    int64_t C = param->block.cols;
    if (leave->call->mode == DPT_BACKWARD_GRADIENT) {
        dpt_nn_layernorm_backward_weight(rows.n, C, rows.dy, rows.lddy, rows.x, rows.ldx, mean,
                                         rstd, true, leave->call->gradient->blocks[weight]);
        return;
    }
    double *term = begin_terms(leave, rows.n);
    dpt_param_delta(param, 0, 1, leave->e);
    dpt_nn_layernorm_terms(rows.n, C, rows.dy, rows.lddy, rows.x, rows.ldx, mean, rstd, leave->e,
                           term);
    fold(leave, weight, rows);
}

void dpt_leave_embed(const dpt_leave *leave, int table, dpt_leave_rows rows, const int32_t *tokens,
                     int64_t begin, int64_t end) {
    if (!wanted(leave, table))
        return;
    const dpt_param *param = &leave->model->params.items[table];
    int64_t C = param->block.cols;
    if (leave->call->mode == DPT_BACKWARD_GRADIENT) {
        dpt_nn_embed_backward(rows.n, C, begin, end, tokens, rows.dy, rows.lddy,
                              leave->call->gradient->blocks[table], C);
        return;
    }
    double *term = begin_terms(leave, rows.n);
    for (int64_t i = 0; i < rows.n; i++) { /* E of the few rows that the batch uses */
        if (tokens[i] < begin || tokens[i] >= end)
            continue;
        dpt_param_delta(param, tokens[i] - begin, 1, leave->e);
        dpt_nn_embed_terms(1, C, tokens[i], tokens[i] + 1, tokens + i, rows.dy + i * rows.lddy,
                           rows.lddy, leave->e, C, term + i);
    }
    fold(leave, table, rows);
}
