#include "transformer.h"

#include "deltapath/nn/linear.h"

#include <omp.h>

/* Products with weights that are formed some rows at a time, while these are in the cache: written to memory and read
 * again they would cost as much as the products of the few tokens that an expert gets. */

/* Of each thread, and of two at least: enough for a product that keeps it busy, and few enough for the last level of
 * the cache, where rows are not too long for that. */
enum { LINEAR_FLOATS = 1 << 19, LINEAR_ROWS_MIN = 64, LINEAR_ROWS_MAX = 256 };

int64_t dpt_linear_rows(const dpt_param *param) {
    int64_t threads = omp_get_max_threads(), rows = LINEAR_ROWS_MAX;
    if (param->cols > LINEAR_FLOATS / LINEAR_ROWS_MAX)
        rows = LINEAR_FLOATS / param->cols;
    rows = (rows < LINEAR_ROWS_MIN ? LINEAR_ROWS_MIN : rows) * (threads > 2 ? threads : 2);
    return rows < param->rows ? rows : param->rows;
}

int64_t dpt_linear_floats(const dpt_param *param) {
    return dpt_linear_rows(param) * param->cols;
}

/* The matrix as one of products in bf16. */
static dpt_product linear_product(const dpt_pass *pass, int index, const float *bias) {
    const dpt_param *param = &pass->model->params.items[index];
    return (dpt_product){
        .count = 1,
        .matrices = {{.index = index, .bias = -1, .t = pass->call->t, .uneven = true}},
        .N = param->rows,
        .K = param->cols,
        .bias = bias};
}

void dpt_linear_forward(const dpt_pass *pass, int index, int64_t n, const float *x, int64_t ldx,
                        const float *bias, float *y, int64_t ldy) {
    const dpt_param *param = &pass->model->params.items[index];
    if (pass->bf16 != NULL) {
        dpt_product p = linear_product(pass, index, bias);
        dpt_product_bf16_forward(pass, &p, n, x, ldx, y, ldy);
        return;
    }
    int64_t step = dpt_linear_rows(param), K = param->cols;
    float *w = pass->work->rows_of_w;
    for (int64_t at = 0; at < param->rows; at += step) {
        int64_t rows = param->rows - at < step ? param->rows - at : step;
        dpt_param_weights(param, pass->call->t, at, rows, w);
        dpt_nn_linear_forward(n, rows, K, x, ldx, w, K, bias != NULL ? bias + at : NULL, y + at,
                              ldy);
    }
}

void dpt_linear_backward(const dpt_pass *pass, int index, dpt_rows rows, bool add, float *dx,
                         int64_t lddx) {
    const dpt_param *param = &pass->model->params.items[index];
    if (pass->bf16 != NULL) {
        dpt_product p = linear_product(pass, index, NULL);
        dpt_product_bf16_backward(pass, &p, rows, add, dx, lddx);
        return;
    }
    int64_t step = dpt_linear_rows(param), K = param->cols;
    float *w = pass->work->rows_of_w, *e = pass->work->e;
    bool terms = dpt_accumulate_begin(&pass->to, index, rows);
    for (int64_t at = 0; at < param->rows; at += step) {
        int64_t n = param->rows - at < step ? param->rows - at : step;
        if (terms) {
            dpt_param_weights_delta(param, pass->call->t, at, n, w, e);
            dpt_accumulate_some(&pass->to, index, rows, at, n);
        } else {
            dpt_param_weights(param, pass->call->t, at, n, w);
        }
        dpt_nn_linear_backward_input(rows.n, n, K, rows.dy + at, rows.lddy, w, K, add || at > 0, dx,
                                     lddx);
    }
    if (terms)
        dpt_accumulate_end(&pass->to, index, rows);
}
