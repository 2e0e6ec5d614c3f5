#include "decoder.h"

#include "deltapath/nn/embed.h"
#include "deltapath/nn/linear.h"
#include "deltapath/nn/norm.h"

#include <string.h>

/* Whether this rank has anything to leave for a tensor in the mode of the call. */
static bool wanted(const dpt_decoder_pass *pass, int index) {
    const dpt_param *param = &pass->model->params.items[index];
    if (dpt_param_numel(param) == 0 || !param->counted)
        return false;
    return pass->call->mode == DPT_BACKWARD_GRADIENT || param->moved;
}

/* Clear the term of each row; fold adds them up by sequence. */
static double *begin_terms(const dpt_decoder_pass *pass, int64_t n) {
    memset(pass->work->term, 0, (size_t)n * sizeof *pass->work->term);
    return pass->work->term;
}

static void fold(const dpt_decoder_pass *pass, int index, int64_t n, const int64_t *sequence) {
    double *out = pass->call->terms + pass->model->params.items[index].tensor;
    for (int64_t i = 0; i < n; i++)
        out[sequence[i] * pass->model->catalog.count] += pass->work->term[i];
}

void dpt_decoder_leave_linear(const dpt_decoder_pass *pass, int weight, dpt_decoder_rows rows) {
    if (!wanted(pass, weight))
        return;
    const dpt_param *param = &pass->model->params.items[weight];
    int64_t N = param->block.rows, K = param->block.cols;
    if (pass->call->mode == DPT_BACKWARD_GRADIENT) {
        dpt_nn_linear_backward_weight(rows.n, N, K, rows.dy, rows.lddy, rows.x, rows.ldx, true,
                                      pass->call->gradient->blocks[weight], K);
        return;
    }
    double *term = begin_terms(pass, rows.n);
    for (int64_t at = 0; at < N; at += DPT_E_ROWS) {
        int64_t n = N - at < DPT_E_ROWS ? N - at : DPT_E_ROWS;
        dpt_param_delta(param, at, n, pass->work->e);
        dpt_nn_linear_terms(rows.n, n, K, rows.dy + at, rows.lddy, rows.x, rows.ldx, pass->work->e,
                            K, pass->work->products, term);
    }
    fold(pass, weight, rows.n, rows.sequence);
}

void dpt_decoder_leave_bias(const dpt_decoder_pass *pass, int bias, dpt_decoder_rows rows) {
    if (!wanted(pass, bias))
        return;
    const dpt_param *param = &pass->model->params.items[bias];
    int64_t N = param->block.cols;
    if (pass->call->mode == DPT_BACKWARD_GRADIENT) {
        dpt_nn_linear_backward_bias(rows.n, N, rows.dy, rows.lddy, true,
                                    pass->call->gradient->blocks[bias]);
        return;
    }
    double *term = begin_terms(pass, rows.n);
    dpt_param_delta(param, 0, 1, pass->work->e);
    dpt_nn_linear_bias_terms(rows.n, N, rows.dy, rows.lddy, pass->work->e, term);
    fold(pass, bias, rows.n, rows.sequence);
}

void dpt_decoder_leave_norm(const dpt_decoder_pass *pass, int weight, dpt_decoder_rows rows,
                            const float *rstd) {
    if (!wanted(pass, weight))
        return;
    const dpt_param *param = &pass->model->params.items[weight];
    int64_t C = param->block.cols;
    if (pass->call->mode == DPT_BACKWARD_GRADIENT) {
        dpt_nn_rmsnorm_backward_weight(rows.n, C, rows.dy, rows.lddy, rows.x, rows.ldx, rstd, true,
                                       pass->call->gradient->blocks[weight]);
        return;
    }
    double *term = begin_terms(pass, rows.n);
    dpt_param_delta(param, 0, 1, pass->work->e);
    dpt_nn_rmsnorm_terms(rows.n, C, rows.dy, rows.lddy, rows.x, rows.ldx, rstd, pass->work->e,
                         term);
    fold(pass, weight, rows.n, rows.sequence);
}

void dpt_decoder_leave_embed(const dpt_decoder_pass *pass, const float *dx) {
    if (!wanted(pass, DPT_EMBED))
        return;
    const dpt_param *param = &pass->model->params.items[DPT_EMBED];
    const dpt_decoder_part *p = &pass->d->part;
    const int32_t *tokens = pass->call->batch->tokens;
    int64_t T = pass->tokens, C = param->block.cols;
    if (pass->call->mode == DPT_BACKWARD_GRADIENT) {
        dpt_nn_embed_backward(T, C, p->row_begin, p->row_end, tokens, dx, C,
                              pass->call->gradient->blocks[DPT_EMBED], C);
        return;
    }
    double *term = begin_terms(pass, T);
    for (int64_t i = 0; i < T; i++) { /* E of the few rows that the batch uses */
        if (tokens[i] < p->row_begin || tokens[i] >= p->row_end)
            continue;
        dpt_param_delta(param, tokens[i] - p->row_begin, 1, pass->work->e);
        dpt_nn_embed_terms(1, C, tokens[i], tokens[i] + 1, tokens + i, dx + i * C, C, pass->work->e,
                           C, term + i);
    }
    fold(pass, DPT_EMBED, T, pass->work->sequence);
}
