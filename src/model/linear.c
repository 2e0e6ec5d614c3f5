#include "transformer.h"

#include "deltapath/nn/linear.h"

#include <omp.h>

/* Products with weights that are formed some rows at a time, while these are in the cache: written to memory and read
 * again they would cost as much as the products of the few tokens that an expert gets. */

/* Of each thread, and of two at least: enough for a product that keeps it busy, and few enough for the last level of
 * the cache, where rows are not too long for that. */
enum { LINEAR_FLOATS = 1 << 19, LINEAR_ROWS_MIN = 64, LINEAR_ROWS_MAX = 256 };

/* Of other matrices, whose tokens are all of a batch: with more of them the output, which is added to once for all rows
 * formed, costs more than the weights. */
enum { MANY_TOKENS = 512, LINEAR_ROWS_MANY = 2048 };

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

int64_t dpt_linear_rows_for(const dpt_param *param, int64_t tokens) {
    int64_t rows = tokens > MANY_TOKENS ? LINEAR_ROWS_MANY : DPT_ACCUMULATE_ROWS;
    int64_t pieces = (param->rows + rows - 1) / rows;
    return pieces > 1 ? (param->rows + pieces - 1) / pieces : param->rows;
}

static int64_t linear_step(const dpt_param *param, const dpt_product_matrix *matrix, int64_t n) {
    return matrix->uneven ? dpt_linear_rows(param) : dpt_linear_rows_for(param, n);
}

static int64_t linear_least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

void dpt_linear_product_forward(const dpt_pass *pass, const dpt_product *p, int64_t n,
                                const float *x, int64_t ldx, float *y, int64_t ldy) {
    float *w = pass->work->rows_of_w;
    for (int i = 0; i < p->count; i++) {
        const dpt_product_matrix *matrix = &p->matrices[i];
        const dpt_param *param = &pass->model->params.items[matrix->index];
        int64_t step = linear_step(param, matrix, n), K = p->K;
        const float *bias = p->bias != NULL ? p->bias + matrix->at : NULL;
        for (int64_t at = 0; at < param->rows; at += step) {
            int64_t rows = linear_least(step, param->rows - at);
            dpt_shares_progress(pass->params);
            dpt_param_weights(param, matrix->t, at, rows, w);
            dpt_nn_linear_forward(n, rows, K, x, ldx, w, K, bias != NULL ? bias + at : NULL,
                                  y + matrix->at + at, ldy);
        }
    }
}

/* dx (+)= dy W(t) of one matrix, and its terms or gradient: E of the same rows is formed with them where they are few. */
static void linear_backward_matrix(const dpt_pass *pass, const dpt_product_matrix *matrix,
                                   dpt_rows own, bool add, float *dx, int64_t lddx) {
    const dpt_param *param = &pass->model->params.items[matrix->index];
    int64_t step = linear_step(param, matrix, own.n), K = param->cols;
    float *w = pass->work->rows_of_w, *e = pass->work->e;
    bool together = dx != NULL && !matrix->fixed && (matrix->uneven || step <= DPT_ACCUMULATE_ROWS);
    bool terms = together && dpt_accumulate_begin(&pass->to, matrix->index, own);
    if (!together && !matrix->fixed)
        dpt_accumulate_linear(&pass->to, matrix->index, own);
    for (int64_t at = 0; at < param->rows && dx != NULL; at += step) {
        int64_t n = linear_least(step, param->rows - at);
        dpt_shares_progress(pass->params);
        if (terms) {
            dpt_param_weights_delta(param, matrix->t, at, n, w, e);
            dpt_accumulate_some(&pass->to, matrix->index, own, at, n);
        } else {
            dpt_param_weights(param, matrix->t, at, n, w);
        }
        dpt_nn_linear_backward_input(own.n, n, K, own.dy + at, own.lddy, w, K, add || at > 0, dx,
                                     lddx);
    }
    if (terms)
        dpt_accumulate_end(&pass->to, matrix->index, own);
}

void dpt_linear_product_backward(const dpt_pass *pass, const dpt_product *p, dpt_rows rows,
                                 bool add, float *dx, int64_t lddx) {
    if (p->N == 0 && !add && dx != NULL) /* a rank without rows has no share of it */
        dpt_nn_linear_backward_input(rows.n, 0, p->K, rows.dy, rows.lddy, NULL, p->K, false, dx,
                                     lddx);
    for (int i = 0; i < p->count; i++) {
        const dpt_product_matrix *matrix = &p->matrices[i];
        dpt_rows own = rows;
        own.dy += matrix->at;
        linear_backward_matrix(pass, matrix, own, add || matrix->at > 0, dx, lddx);
    }
}

void dpt_linear_forward(const dpt_pass *pass, int index, int64_t n, const float *x, int64_t ldx,
                        const float *bias, float *y, int64_t ldy) {
    dpt_product p = linear_product(pass, index, bias);
    if (pass->bf16 != NULL)
        dpt_product_bf16_forward(pass, &p, n, x, ldx, y, ldy);
    else
        dpt_linear_product_forward(pass, &p, n, x, ldx, y, ldy);
}

void dpt_linear_backward(const dpt_pass *pass, int index, dpt_rows rows, bool add, float *dx,
                         int64_t lddx) {
    dpt_product p = linear_product(pass, index, NULL);
    if (pass->bf16 != NULL)
        dpt_product_bf16_backward(pass, &p, rows, add, dx, lddx);
    else
        dpt_linear_product_backward(pass, &p, rows, add, dx, lddx);
}
