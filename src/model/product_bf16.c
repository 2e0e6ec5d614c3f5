#include "transformer.h"

#include "deltapath/base/assert.h"
#include "deltapath/nn/bf16.h"
#include "deltapath/nn/linear.h"

#include <omp.h>

/* Products in bf16 with sums in fp32. Only what the weights are multiplied by is rounded, activations and their
 * gradients. Between bf16 models W(t) = post + t (edit - post) is two products with values as they are stored; the same
 * two of the way back, dy post and dy edit, give the terms: <g, E> of a token is dy (E x) = (dy E) x. Any other W(t) is
 * the sum of two bf16 matrices, and E is rounded for its terms. */

/* Products of these sides stay in the second level of the cache: at width 2048 they are up to 1.5 times as fast as larger
 * ones. */
enum {
    ROWS = 256, /* tokens of a thread taken at a time, */
    PIECES =
        4, /* and pieces of so many for which x is rounded once where it goes into several products */
    ROWS_MIN = 64,       /* fewer would make products slow */
    ELEMENTS = 1 << 22,  /* of a buffer, as far as that allows */
    INNER = 512,         /* columns of dy taken at a time */
    OUTPUTS = 512,       /* columns of y, */
    OUTPUTS_ALONE = 2048 /* but so many where they need not be brought together */
};

_Static_assert((int)DPT_ACCUMULATE_ROWS <= (int)OUTPUTS, "products with rows of E fit the buffers");

static int64_t product_least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* Elements of a row in the buffers. */
static int64_t product_width(int64_t K) {
    const int64_t outer = INNER > OUTPUTS ? INNER : OUTPUTS;
    return K > outer ? K : outer;
}

/* Tokens taken at a time. */
static int64_t product_rows(int64_t K) {
    int64_t width = product_width(K), rows = (int64_t)ROWS * omp_get_max_threads();
    if (rows > ELEMENTS / width)
        rows = ELEMENTS / width;
    return rows > ROWS_MIN ? rows : ROWS_MIN;
}

void dpt_product_bf16_elements(const dpt_param *param, int64_t tokens, int64_t *half,
                               int64_t *both) {
    int64_t rows = product_rows(param->cols), width = product_width(param->cols);
    *half = product_least(tokens, PIECES * rows) * width;
    *both = product_least(tokens, rows) * width;
}

/* The two matrices of W(t). */
typedef struct product_weights {
    const uint16_t *a, *b; /* b NULL: there is one alone */
    float t;               /* W(t) = a + t (b - a), or with `sum` a + b */
    bool sum, uneven;
} product_weights;

static const dpt_param *product_param(const dpt_pass *pass, const dpt_product_matrix *matrix) {
    return &pass->model->params.items[matrix->index];
}

/* From element `first` on. */
static product_weights product_stored(const dpt_product_matrix *matrix,
                                      const dpt_param_stored *stored, int64_t first) {
    return (product_weights){.a = stored->post + first,
                             .b = stored->edit != NULL ? stored->edit + first : NULL,
                             .t = stored->t,
                             .uneven = matrix->uneven};
}

/* Rows [at, at + n) of a matrix, formed where they do not lie there; a matrix without room of its own is formed in that of
 * the experts. */
static product_weights product_find(const dpt_pass *pass, const dpt_product_matrix *matrix,
                                    int64_t at, int64_t n) {
    const dpt_param *param = product_param(pass, matrix);
    int64_t first = at * param->cols, numel = dpt_param_numel(param);
    dpt_param_stored stored;
    if (numel == 0)
        return (product_weights){.a = pass->work->half[0]}; /* of which nothing is read */
    if (dpt_param_get_stored(param, matrix->t, false, &stored))
        return product_stored(matrix, &stored, first);
    if (matrix->room != NULL)
        return (product_weights){
            .a = matrix->room + first, .b = matrix->room + numel + first, .sum = true};
    uint16_t *high = (uint16_t *)(void *)pass->work->rows_of_w, *low = high + n * param->cols;
    dpt_param_weights_split(param, matrix->t, at, n, high, low);
    return (product_weights){.a = high, .b = low, .sum = true, .uneven = matrix->uneven};
}

/* Rows of a matrix that product_find takes at a time. */
static int64_t product_step(const dpt_pass *pass, const dpt_product_matrix *matrix) {
    const dpt_param *param = product_param(pass, matrix);
    dpt_param_stored stored;
    bool whole = matrix->room != NULL || dpt_param_get_stored(param, matrix->t, false, &stored);
    return whole ? param->rows : dpt_linear_rows(param);
}

/* y = x W^T + b of N rows of W. */
static void product_forward_rows(const dpt_pass *pass, const product_weights *w, int64_t n,
                                 int64_t N, int64_t K, const uint16_t *x, const float *bias,
                                 float *y, int64_t ldy) {
    const dpt_work *k = pass->work;
    bool pair = w->b != NULL && !w->sum;
    bool straight = !pair && bias == NULL && ldy == N && N <= OUTPUTS_ALONE;
    int64_t step = straight ? N : OUTPUTS;
    for (int64_t at = 0; at < N; at += step) {
        int64_t part = product_least(step, N - at);
        dpt_bf16_shape shape = {.M = n, .N = part, .K = K, .trans_b = true, .uneven = w->uneven};
        float *z = straight ? y : k->both[0];
        dpt_bf16_multiply(pass->bf16, &shape, x, w->a + at * K, z);
        shape.add = w->sum;
        if (w->b != NULL)
            dpt_bf16_multiply(pass->bf16, &shape, x, w->b + at * K, pair ? k->both[1] : z);
        if (!straight)
            dpt_nn_bf16_join(n, part, z, pair ? k->both[1] : NULL, w->t,
                             bias != NULL ? bias + at : NULL, false, y + at, ldy);
    }
}

void dpt_product_bf16_forward(const dpt_pass *pass, const dpt_product *p, int64_t n, const float *x,
                              int64_t ldx, float *y, int64_t ldy) {
    int64_t rows = product_rows(p->K);
    for (int64_t t = 0; t < n; t += rows) {
        int64_t part = product_least(rows, n - t);
        dpt_nn_bf16_round(part, p->K, x + t * ldx, ldx, pass->work->half[0]);
        for (int i = 0; i < p->count; i++) {
            const dpt_product_matrix *matrix = &p->matrices[i];
            int64_t N = product_param(pass, matrix)->rows, step = product_step(pass, matrix);
            const float *bias = p->bias != NULL ? p->bias + matrix->at : NULL;
            for (int64_t at = 0; at < N; at += step) {
                int64_t some = product_least(step, N - at);
                product_weights w = product_find(pass, matrix, at, some);
                product_forward_rows(pass, &w, part, some, p->K, pass->work->half[0],
                                     bias != NULL ? bias + at : NULL, y + t * ldy + matrix->at + at,
                                     ldy);
            }
        }
    }
}

/* Tokens [t, t + n) of rows, and their columns of dy from `at` on. */
static dpt_rows product_cut(dpt_rows rows, int64_t t, int64_t n, int64_t at) {
    return dpt_rows_of(n, rows.sample + t, rows.dy + t * rows.lddy + at, rows.lddy,
                       rows.x + t * rows.ldx, rows.ldx);
}

/* dx (+)= dy W of N rows of W, and with `term` the terms of E = b - a. dx NULL: not wanted. */
static void product_backward_rows(const dpt_pass *pass, const product_weights *w, int64_t N,
                                  int64_t K, dpt_rows rows, bool add, float *dx, int64_t lddx,
                                  double *term) {
    const dpt_work *k = pass->work;
    bool pair = w->b != NULL && !w->sum, straight = !pair && dx != NULL && lddx == K;
    float *z = straight ? dx : k->both[0];
    dpt_bf16_shape shape = {.M = rows.n, .N = K, .add = straight && add, .uneven = w->uneven};
    for (int64_t at = 0; at < N || at == 0; at += INNER) {
        shape.K = product_least(INNER, N - at);
        dpt_nn_bf16_round(rows.n, shape.K, rows.dy + at, rows.lddy, k->half[0]);
        dpt_bf16_multiply(pass->bf16, &shape, k->half[0], w->a + at * K, z);
        shape.add = shape.add || w->sum;
        if (w->b != NULL)
            dpt_bf16_multiply(pass->bf16, &shape, k->half[0], w->b + at * K, pair ? k->both[1] : z);
        shape.add = true;
    }
    if (term != NULL)
        dpt_nn_bf16_terms(rows.n, K, z, k->both[1], w->t, rows.x, rows.ldx, term, add, dx, lddx);
    else if (!straight)
        dpt_nn_bf16_join(rows.n, K, z, pair ? k->both[1] : NULL, w->t, NULL, add, dx, lddx);
}

/* Terms of `some` rows of E of tokens whose x is rounded: those of dy (x E^T). */
static void product_add_terms(const dpt_pass *pass, const dpt_product_matrix *matrix, int64_t some,
                              dpt_rows rows, double *term) {
    const dpt_work *k = pass->work;
    int64_t K = product_param(pass, matrix)->cols, step = product_rows(K);
    for (int64_t t = 0; t < rows.n; t += step) {
        dpt_rows part = product_cut(rows, t, product_least(step, rows.n - t), 0);
        dpt_bf16_shape shape = {
            .M = part.n, .N = some, .K = K, .trans_b = true, .uneven = matrix->uneven};
        dpt_bf16_multiply(pass->bf16, &shape, k->half[1] + t * K, k->e_half, k->both[0]);
        dpt_nn_linear_add_products(part.n, some, part.dy, part.lddy, k->both[0], some, term + t);
    }
}

/* Terms of a matrix whose E is formed. */
static void product_form_terms(const dpt_pass *pass, const dpt_product_matrix *matrix,
                               dpt_rows rows) {
    const dpt_param *param = product_param(pass, matrix);
    const dpt_work *k = pass->work;
    int64_t N = param->rows, K = param->cols, step = PIECES * product_rows(K);
    for (int64_t at = 0; at < N; at += DPT_ACCUMULATE_ROWS) {
        int64_t some = product_least(DPT_ACCUMULATE_ROWS, N - at);
        dpt_shares_progress(pass->params);
        dpt_param_delta_bf16(param, at, some, k->e_half);
        for (int64_t t = 0; t < rows.n; t += step) {
            dpt_rows part = product_cut(rows, t, product_least(step, rows.n - t), at);
            if (at == 0 || rows.n > step)
                dpt_nn_bf16_round(part.n, K, part.x, part.ldx, k->half[1]);
            product_add_terms(pass, matrix, some, part, pass->to.term + t);
        }
    }
}

/* g += dy^T x of rows [from, end) of g. */
static void product_add_rows(const dpt_pass *pass, const dpt_product_matrix *matrix, dpt_rows rows,
                             int64_t from, int64_t end) {
    const dpt_param *param = product_param(pass, matrix);
    const dpt_work *k = pass->work;
    int64_t K = param->cols, step = PIECES * product_rows(K);
    float *g = pass->call->gradient->to[matrix->index];
    for (int64_t t = 0; t < rows.n; t += step) {
        int64_t n = product_least(step, rows.n - t);
        dpt_nn_bf16_round(n, K, rows.x + t * rows.ldx, rows.ldx, k->half[1]);
        for (int64_t at = from; at < end; at += INNER) {
            dpt_rows part = product_cut(rows, t, n, at);
            int64_t some = product_least(INNER, end - at);
            dpt_bf16_shape shape = {
                .M = some, .N = K, .K = n, .trans_a = true, .add = true, .uneven = matrix->uneven};
            dpt_nn_bf16_round(n, some, part.dy, part.lddy, k->half[0]);
            dpt_bf16_multiply(pass->bf16, &shape, k->half[0], k->half[1], g + at * K);
        }
    }
}

/* g += dy^T x, when it is this rank's turn. */
static void product_add_gradient(const dpt_pass *pass, const dpt_product_matrix *matrix,
                                 dpt_rows rows) {
    int64_t N = product_param(pass, matrix)->rows, chunk = 0;
    dpt_gradient_visit visit = dpt_accumulate_visit_linear(&pass->to, matrix->index);
    for (int64_t at = 0; at < N; at += visit.rows, chunk++) {
        dpt_gradient_wait(&visit, chunk);
        product_add_rows(pass, matrix, rows, at, at + product_least(visit.rows, N - at));
        dpt_gradient_pass(&visit, chunk);
    }
    dpt_gradient_visited(&visit);
}

/* What the backward pass of a matrix takes besides dx. @return whether the terms come with dx, of stored values. */
static bool product_accumulate(const dpt_pass *pass, const dpt_product_matrix *matrix, dpt_rows own,
                               bool *terms, dpt_param_stored *stored) {
    const dpt_accumulator *to = &pass->to;
    const dpt_param *param = product_param(pass, matrix);
    bool wanted = !matrix->fixed && dpt_accumulate_is_wanted(to, matrix->index);
    *terms = wanted && to->call->mode == DPT_BACKWARD_TERMS && !to->call->squares;
    if (!*terms) {
        if (wanted && to->call->squares)
            dpt_accumulate_linear(to, matrix->index, own);
        else if (wanted)
            product_add_gradient(pass, matrix, own);
        return false;
    }
    (void)dpt_accumulate_begin(to, matrix->index, own); /* clears the terms, which are wanted */
    if (dpt_param_get_stored(param, matrix->t, true, stored) && stored->edit != NULL)
        return true;
    product_form_terms(pass, matrix, own);
    return false;
}

/* One matrix, whose columns of dy begin at `at`. */
static void product_backward_matrix(const dpt_pass *pass, const dpt_product_matrix *matrix,
                                    dpt_rows rows, bool add, float *dx, int64_t lddx) {
    const dpt_param *param = product_param(pass, matrix);
    int64_t N = param->rows, K = param->cols, tokens = product_rows(K);
    int64_t step = product_step(pass, matrix);
    bool terms;
    dpt_param_stored stored;
    dpt_rows own = rows;
    own.dy += matrix->at;
    bool both = product_accumulate(pass, matrix, own, &terms, &stored);
    for (int64_t t = 0; t < rows.n && (dx != NULL || both); t += tokens) {
        int64_t n = product_least(tokens, rows.n - t);
        for (int64_t at = 0; at < N || at == 0; at += both || N == 0 ? N + 1 : step) {
            int64_t some = both ? N : product_least(step, N - at);
            product_weights w =
                both ? product_stored(matrix, &stored, 0) : product_find(pass, matrix, at, some);
            product_backward_rows(pass, &w, some, K, product_cut(own, t, n, at), add || at > 0,
                                  dx != NULL ? dx + t * lddx : NULL, lddx,
                                  both ? pass->to.term + t : NULL);
        }
    }
    if (terms)
        dpt_accumulate_end(&pass->to, matrix->index, own);
}

void dpt_product_bf16_backward(const dpt_pass *pass, const dpt_product *p, dpt_rows rows, bool add,
                               float *dx, int64_t lddx) {
    for (int i = 0; i < p->count; i++)
        product_backward_matrix(pass, &p->matrices[i], rows, add || i > 0, dx, lddx);
}
