#include "transformer.h"

#include "deltapath/base/assert.h"
#include "deltapath/linalg/reduce.h"
#include "deltapath/nn/embed.h"
#include "deltapath/nn/linear.h"
#include "deltapath/nn/norm.h"

#include <string.h>

int64_t dpt_accumulate_delta_floats(const dpt_param *param, bool whole) {
    int64_t rows = param->rows;
    whole = whole || param->layout.cols == 1;
    return (whole || rows < DPT_ACCUMULATE_ROWS ? rows : DPT_ACCUMULATE_ROWS) * param->cols;
}

bool dpt_accumulate_is_wanted(const dpt_accumulator *to, int index) {
    if (index < 0)
        return false;
    const dpt_param *param = &to->model->params.items[index];
    if (dpt_param_numel(param) == 0 || !param->counted)
        return false;
    return to->call->mode == DPT_BACKWARD_GRADIENT || param->has_delta;
}

/* Begin to add to the gradient of a tensor that is added to in one go. @return where. */
static float *accumulate_visit(const dpt_accumulator *to, int index, dpt_gradient_table table,
                               dpt_gradient_visit *visit) {
    *visit = dpt_gradient_visit_block(to->call->gradient, index, table);
    dpt_gradient_wait(visit, 0);
    return to->call->gradient->to[index];
}

dpt_gradient_visit dpt_accumulate_visit_linear(const dpt_accumulator *to, int weight) {
    const dpt_arch *arch = &to->model->arch;
    bool head = arch->tied && weight == dpt_arch_index(arch, 0, DPT_SLOT_HEAD);
    return dpt_gradient_visit_block(to->call->gradient, weight,
                                    head ? DPT_GRADIENT_HEAD : DPT_GRADIENT_PLAIN);
}

static void accumulate_linear_gradient(const dpt_accumulator *to, int weight, dpt_rows rows) {
    const dpt_param *param = &to->model->params.items[weight];
    dpt_gradient_visit visit = dpt_accumulate_visit_linear(to, weight);
    int64_t K = param->cols, chunk = 0;
    for (int64_t at = 0; at < param->rows; at += visit.rows, chunk++) {
        int64_t n = param->rows - at < visit.rows ? param->rows - at : visit.rows;
        dpt_gradient_wait(&visit, chunk);
        dpt_nn_linear_backward_weight(rows.n, n, K, rows.dy + at, rows.lddy, rows.x, rows.ldx, true,
                                      to->call->gradient->to[weight] + at * K, K);
        dpt_gradient_pass(&visit, chunk);
    }
    dpt_gradient_visited(&visit);
}

void dpt_accumulate_finish(const dpt_accumulator *to, int weight) {
    if (weight >= 0 && to->call->mode == DPT_BACKWARD_GRADIENT)
        dpt_gradient_finish(to->call->gradient, weight);
}

/* Clear the term of each row; accumulate_by_sample adds them up by sample. */
static double *accumulate_begin(const dpt_accumulator *to, int64_t n) {
    memset(to->term, 0, (size_t)n * sizeof *to->term);
    return to->term;
}

static void accumulate_by_sample(const dpt_accumulator *to, int index, dpt_rows rows) {
    const dpt_param *param = &to->model->params.items[index];
    int64_t columns = dpt_model_columns(to->model);
    double *out = to->call->terms + param->tensor;
    double *matrix = to->call->terms + to->model->catalog.count + param->matrix;
    DPT_ASSERT(rows.n == 0 ||
               (rows.sample[0] >= 0 && rows.sample[rows.n - 1] < to->call->batch->sequences));
    for (int64_t i = 0; i < rows.n; i++)
        out[rows.sample[i] * columns] += to->term[i];
    for (int64_t i = 0; param->matrix >= 0 && i < rows.n; i++)
        matrix[rows.sample[i] * columns] += to->term[i];
}

/* The rows of one sample, which lie together, from row `begin` on. */
static dpt_rows accumulate_sample(dpt_rows rows, int64_t begin) {
    int64_t end = begin;
    while (end < rows.n && rows.sample[end] == rows.sample[begin])
        end++;
    return dpt_rows_of(end - begin, rows.sample + begin, rows.dy + begin * rows.lddy, rows.lddy,
                       rows.x != NULL ? rows.x + begin * rows.ldx : NULL, rows.ldx);
}

/* Add sum (e g)^2 of n elements to what the sample has for a tensor; g is lost. */
static void accumulate_square(const dpt_accumulator *to, int index, int64_t sample, int64_t n,
                              float *g) {
    for (int64_t i = 0; i < n; i++)
        g[i] *= to->e[i];
    const dpt_param *param = &to->model->params.items[index];
    double *terms = to->call->terms + sample * dpt_model_columns(to->model);
    double square = dpt_reduce_square(g, n);
    terms[param->tensor] += square;
    if (param->matrix >= 0)
        terms[to->model->catalog.count + param->matrix] += square;
}

static void accumulate_linear_squares(const dpt_accumulator *to, int weight, dpt_rows rows) {
    const dpt_param *param = &to->model->params.items[weight];
    int64_t N = param->rows, K = param->cols;
    float *g = to->squares;
    for (int64_t at = 0; at < N; at += DPT_ACCUMULATE_ROWS) {
        int64_t n = N - at < DPT_ACCUMULATE_ROWS ? N - at : DPT_ACCUMULATE_ROWS;
        dpt_param_delta(param, at, n, to->e);
        for (int64_t begin = 0; begin < rows.n;) {
            dpt_rows own = accumulate_sample(rows, begin);
            dpt_nn_linear_backward_weight(own.n, n, K, own.dy + at, own.lddy, own.x, own.ldx, false,
                                          g, K);
            accumulate_square(to, weight, own.sample[0], n * K, g);
            begin += own.n;
        }
    }
}

static void accumulate_bias_squares(const dpt_accumulator *to, int bias, dpt_rows rows) {
    const dpt_param *param = &to->model->params.items[bias];
    int64_t N = dpt_param_numel(param);
    float *g = to->squares;
    dpt_param_delta(param, 0, param->rows, to->e);
    for (int64_t begin = 0; begin < rows.n;) {
        dpt_rows own = accumulate_sample(rows, begin);
        dpt_nn_linear_backward_bias(own.n, N, own.dy, own.lddy, false, g);
        accumulate_square(to, bias, own.sample[0], N, g);
        begin += own.n;
    }
}

static void accumulate_norm_squares(const dpt_accumulator *to, int weight, dpt_rows rows,
                                    const float *mean, const float *rstd) {
    const dpt_param *param = &to->model->params.items[weight];
    int64_t C = dpt_param_numel(param);
    float *g = to->squares;
    dpt_param_delta(param, 0, C, to->e);
    for (int64_t begin = 0; begin < rows.n;) {
        dpt_rows own = accumulate_sample(rows, begin);
        if (mean != NULL)
            dpt_nn_layernorm_backward_weight(own.n, C, own.dy, own.lddy, own.x, own.ldx,
                                             mean + begin, rstd + begin, false, g);
        else
            dpt_nn_rmsnorm_backward_weight(own.n, C, own.dy, own.lddy, own.x, own.ldx,
                                           rstd != NULL ? rstd + begin : NULL, false, g);
        accumulate_square(to, weight, own.sample[0], C, g);
        begin += own.n;
    }
}

void dpt_accumulate_linear(const dpt_accumulator *to, int weight, dpt_rows rows) {
    if (!dpt_accumulate_is_wanted(to, weight))
        return;
    const dpt_param *param = &to->model->params.items[weight];
    int64_t N = param->rows;
    if (to->call->mode == DPT_BACKWARD_GRADIENT) {
        accumulate_linear_gradient(to, weight, rows);
        return;
    }
    if (to->call->squares) {
        accumulate_linear_squares(to, weight, rows);
        return;
    }
    accumulate_begin(to, rows.n);
    for (int64_t at = 0; at < N; at += DPT_ACCUMULATE_ROWS) {
        int64_t n = N - at < DPT_ACCUMULATE_ROWS ? N - at : DPT_ACCUMULATE_ROWS;
        dpt_shares_progress(&to->model->params);
        dpt_param_delta(param, at, n, to->e);
        dpt_accumulate_some(to, weight, rows, at, n);
    }
    dpt_accumulate_end(to, weight, rows);
}

bool dpt_accumulate_begin(const dpt_accumulator *to, int weight, dpt_rows rows) {
    bool terms = to->call->mode == DPT_BACKWARD_TERMS && !to->call->squares;
    if (!terms)
        dpt_accumulate_linear(to, weight, rows);
    terms = terms && dpt_accumulate_is_wanted(to, weight);
    if (terms)
        accumulate_begin(to, rows.n);
    return terms;
}

void dpt_accumulate_some(const dpt_accumulator *to, int weight, dpt_rows rows, int64_t at,
                         int64_t n) {
    int64_t K = to->model->params.items[weight].cols;
    dpt_nn_linear_terms(rows.n, n, K, rows.dy + at, rows.lddy, rows.x, rows.ldx, to->e, K,
                        to->products, to->term);
}

void dpt_accumulate_end(const dpt_accumulator *to, int weight, dpt_rows rows) {
    accumulate_by_sample(to, weight, rows);
}

void dpt_accumulate_bias(const dpt_accumulator *to, int bias, dpt_rows rows) {
    if (!dpt_accumulate_is_wanted(to, bias))
        return;
    const dpt_param *param = &to->model->params.items[bias];
    int64_t N = dpt_param_numel(param);
    if (to->call->mode == DPT_BACKWARD_GRADIENT) {
        dpt_gradient_visit visit;
        float *g = accumulate_visit(to, bias, DPT_GRADIENT_PLAIN, &visit);
        dpt_nn_linear_backward_bias(rows.n, N, rows.dy, rows.lddy, true, g);
        dpt_gradient_visited(&visit);
        return;
    }
    if (to->call->squares) {
        accumulate_bias_squares(to, bias, rows);
        return;
    }
    double *term = accumulate_begin(to, rows.n);
    dpt_param_delta(param, 0, param->rows, to->e);
    dpt_nn_linear_bias_terms(rows.n, N, rows.dy, rows.lddy, to->e, term);
    accumulate_by_sample(to, bias, rows);
}

void dpt_accumulate_norm(const dpt_accumulator *to, int weight, int bias, dpt_rows rows,
                         const float *mean, const float *rstd) {
    dpt_accumulate_bias(to, bias, rows);
    if (!dpt_accumulate_is_wanted(to, weight))
        return;
    const dpt_param *param = &to->model->params.items[weight];
    int64_t C = dpt_param_numel(param);
    if (to->call->mode == DPT_BACKWARD_GRADIENT) {
        dpt_gradient_visit visit;
        float *gradient = accumulate_visit(to, weight, DPT_GRADIENT_PLAIN, &visit);
        if (mean != NULL)
            dpt_nn_layernorm_backward_weight(rows.n, C, rows.dy, rows.lddy, rows.x, rows.ldx, mean,
                                             rstd, true, gradient);
        else
            dpt_nn_rmsnorm_backward_weight(rows.n, C, rows.dy, rows.lddy, rows.x, rows.ldx, rstd,
                                           true, gradient);
        dpt_gradient_visited(&visit);
        return;
    }
    if (to->call->squares) {
        accumulate_norm_squares(to, weight, rows, mean, rstd);
        return;
    }
    double *term = accumulate_begin(to, rows.n);
    dpt_param_delta(param, 0, C, to->e);
    if (mean != NULL)
        dpt_nn_layernorm_terms(rows.n, C, rows.dy, rows.lddy, rows.x, rows.ldx, mean, rstd, to->e,
                               term);
    else
        dpt_nn_rmsnorm_terms(rows.n, C, rows.dy, rows.lddy, rows.x, rows.ldx, rstd, to->e, term);
    accumulate_by_sample(to, weight, rows);
}

void dpt_accumulate_norm_heads(const dpt_accumulator *to, int weight, int64_t heads, dpt_rows rows,
                               const float *rstd) {
    if (!dpt_accumulate_is_wanted(to, weight))
        return;
    const dpt_param *param = &to->model->params.items[weight];
    int64_t C = dpt_param_numel(param);
    DPT_ASSERT(!to->call->squares); /* they are of images, whose models have no such norm */
    if (to->call->mode == DPT_BACKWARD_GRADIENT) {
        dpt_gradient_visit visit;
        float *g = accumulate_visit(to, weight, DPT_GRADIENT_PLAIN, &visit);
        dpt_nn_rmsnorm_heads_backward_weight(rows.n, heads, C, rows.dy, rows.lddy, rows.x, rows.ldx,
                                             rstd, true, g);
        dpt_gradient_visited(&visit);
        return;
    }
    double *term = accumulate_begin(to, rows.n);
    dpt_param_delta(param, 0, C, to->e);
    dpt_nn_rmsnorm_heads_terms(rows.n, heads, C, rows.dy, rows.lddy, rows.x, rows.ldx, rstd, to->e,
                               term);
    accumulate_by_sample(to, weight, rows);
}

void dpt_accumulate_scale(const dpt_accumulator *to, int weight, dpt_rows rows) {
    dpt_accumulate_norm(to, weight, -1, rows, NULL, NULL);
}

void dpt_accumulate_embed(const dpt_accumulator *to, int table, dpt_rows rows,
                          const int32_t *tokens, int64_t begin, int64_t end) {
    if (!dpt_accumulate_is_wanted(to, table))
        return;
    const dpt_param *param = &to->model->params.items[table];
    int64_t C = param->cols;
    if (to->call->mode == DPT_BACKWARD_GRADIENT) {
        dpt_gradient_visit visit;
        float *g = accumulate_visit(
            to, table, to->model->arch.tied ? DPT_GRADIENT_EMBEDDING : DPT_GRADIENT_PLAIN, &visit);
        dpt_nn_embed_backward(rows.n, C, begin, end, tokens, rows.dy, rows.lddy, g, C);
        dpt_gradient_visited(&visit);
        return;
    }
    double *term = accumulate_begin(to, rows.n);
    for (int64_t i = 0; i < rows.n; i++) { /* E of the few rows that the batch uses */
        if (tokens[i] < begin || tokens[i] >= end)
            continue;
        dpt_param_delta(param, tokens[i] - begin, 1, to->e);
        dpt_nn_embed_terms(1, C, tokens[i], tokens[i] + 1, tokens + i, rows.dy + i * rows.lddy,
                           rows.lddy, to->e, C, term + i);
    }
    accumulate_by_sample(to, table, rows);
}
