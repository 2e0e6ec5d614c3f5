/* ranks: 1 */
/* Products whose W(t) is formed some rows at a time, of matrices with more rows than that: against sums in double. */
#include "support/test_mpi.h"

#include "../src/model/transformer.h"
#include "deltapath/nn/linear.h"

#include <math.h>
#include <stdlib.h>

enum { K = 24, MATRICES = 3, ROWS_MOST = 4200, TOKENS_MOST = 600, SEQUENCES = 2, GUARD = 16 };

static const double PLACE = 0.4;

/* Few tokens and many, rows below and above what is formed at a time, and ranks that have none of a matrix, or of all. */
static const struct {
    int64_t tokens, rows[MATRICES];
} cases[] = {{3, {1300, 0, 40}},
             {3, {0, 513, 512}},
             {TOKENS_MOST, {0, ROWS_MOST, 7}},
             {TOKENS_MOST, {30, 2049, 600}},
             {5, {0, 0, 0}}};

/* A pass of nothing but one product. */
typedef struct product_case {
    dpt_model model;
    dpt_param params[MATRICES];
    dpt_tensor_info tensors[MATRICES];
    dpt_work work;
    dpt_model_call call;
    dpt_batch batch;
    dpt_pass pass;
    dpt_product product;
    float *post, *edit, *x, *dy, *bias;
    double terms[SEQUENCES * MATRICES];
    int64_t *sample;
} product_case;

static float *filled(int64_t n, uint32_t seed) {
    float *out = malloc((size_t)(n + GUARD) * sizeof *out);
    for (int64_t i = 0; i < n + GUARD; i++) {
        seed = seed * 1664525U + 1013904223U;
        out[i] = i < n ? (float)(seed >> 8) * 0x1p-24F - 0.5F : NAN;
    }
    return out;
}

/* Buffers are as large as work.c makes them, and end in what must not be touched. */
static void check_guard(const float *buffer, int64_t n) {
    for (int i = 0; i < GUARD; i++)
        assert_true(isnan(buffer[n + i]));
}

static int64_t floats_of_w(const product_case *c, int64_t tokens) {
    int64_t most = 0;
    for (int i = 0; i < MATRICES; i++) {
        int64_t floats = dpt_linear_rows_for(&c->params[i], tokens) * K;
        most = floats > most ? floats : most;
    }
    return most;
}

static int64_t floats_of_e(const product_case *c) {
    int64_t most = 0;
    for (int i = 0; i < MATRICES; i++) {
        int64_t floats = dpt_accumulate_delta_floats(&c->params[i], false);
        most = floats > most ? floats : most;
    }
    return most;
}

static void open_case(product_case *c, int which, bool fixed) {
    int64_t n = cases[which].tokens, N = 0;
    *c = (product_case){.call = {.t = PLACE, .mode = DPT_BACKWARD_TERMS}};
    for (int i = 0; i < MATRICES; i++)
        N += cases[which].rows[i];
    c->post = filled(N * K, 1);
    c->edit = filled(N * K, 2);
    c->x = filled(n * K, 3);
    c->dy = filled(n * N, 4);
    c->bias = filled(N, 5);
    c->product = (dpt_product){.count = MATRICES, .N = N, .K = K, .bias = c->bias};
    int64_t at = 0;
    for (int i = 0; i < MATRICES; i++) {
        c->params[i] = (dpt_param){.tensor = i,
                                   .rows = cases[which].rows[i],
                                   .cols = K,
                                   .layout = {.rows = cases[which].rows[i], .cols = K},
                                   .matrix = -1,
                                   .counted = true,
                                   .has_delta = cases[which].rows[i] > 0,
                                   .post_type = DPT_F32,
                                   .edit_type = DPT_F32,
                                   .post = (const char *)(c->post + at * K),
                                   .edit = (const char *)(c->edit + at * K)};
        c->product.matrices[i] = (dpt_product_matrix){
            .index = i, .bias = -1, .t = fixed ? 0.0 : PLACE, .fixed = fixed, .at = at};
        at += cases[which].rows[i];
    }
    c->sample = calloc((size_t)n, sizeof *c->sample);
    for (int64_t i = 0; i < n; i++)
        c->sample[i] = i > n / 3;
    c->model.params = (dpt_params){.count = MATRICES, .items = c->params};
    c->model.catalog = (dpt_catalog){.count = MATRICES, .tensors = c->tensors};
    c->batch.sequences = SEQUENCES;
    c->call.batch = &c->batch;
    c->call.terms = c->terms;
    c->work.rows_of_w = filled(floats_of_w(c, n), 6);
    c->work.e = filled(floats_of_e(c), 7);
    c->work.products = malloc(dpt_nn_linear_terms_scratch(n, INT32_MAX) * sizeof(float));
    c->work.term = calloc((size_t)n, sizeof *c->work.term);
    c->pass = (dpt_pass){.model = &c->model,
                         .params = &c->model.params,
                         .work = &c->work,
                         .call = &c->call,
                         .to = {.model = &c->model,
                                .call = &c->call,
                                .term = c->work.term,
                                .e = c->work.e,
                                .products = c->work.products},
                         .tokens = n};
}

static void close_case(product_case *c, int which) {
    check_guard(c->work.rows_of_w, floats_of_w(c, cases[which].tokens));
    check_guard(c->work.e, floats_of_e(c));
    free(c->post);
    free(c->edit);
    free(c->x);
    free(c->dy);
    free(c->bias);
    free(c->sample);
    free(c->work.rows_of_w);
    free(c->work.e);
    free(c->work.products);
    free(c->work.term);
}

static double weight_at(const product_case *c, int64_t i, double t) {
    return (double)c->post[i] + t * ((double)c->edit[i] - (double)c->post[i]);
}

static void check_near(double value, double wanted) {
    if (!(fabs(value - wanted) <= 2e-5 * (1.0 + fabs(wanted))))
        fail_msg("%.9g in place of %.9g", value, wanted);
}

static void test_forward(void **state) {
    (void)state;
    for (int which = 0; which < (int)(sizeof cases / sizeof cases[0]); which++) {
        product_case c;
        open_case(&c, which, false);
        int64_t n = cases[which].tokens, N = c.product.N;
        float *y = filled(n * N, 8);
        dpt_linear_product_forward(&c.pass, &c.product, n, c.x, K, y, N);
        for (int64_t i = 0; i<n; i += n> 10 ? 97 : 1)
            for (int64_t r = 0; r < N; r++) {
                double sum = c.bias[r];
                for (int64_t k = 0; k < K; k++)
                    sum += weight_at(&c, r * K + k, PLACE) * (double)c.x[i * K + k];
                check_near(y[i * N + r], sum);
            }
        check_guard(y, n * N);
        free(y);
        close_case(&c, which);
    }
}

static void check_terms(const product_case *c, int which, bool fixed) {
    int64_t n = cases[which].tokens, N = c->product.N, at = 0;
    for (int i = 0; i < MATRICES; i++, at += cases[which].rows[i - 1]) {
        double wanted[SEQUENCES] = {0.0};
        for (int64_t token = 0; token < n && !fixed; token++)
            for (int64_t r = at; r < at + cases[which].rows[i]; r++)
                for (int64_t k = 0; k < K; k++)
                    wanted[c->sample[token]] +=
                        (double)c->dy[token * N + r] * (double)c->x[token * K + k] *
                        (weight_at(c, r * K + k, 1.0) - weight_at(c, r * K + k, 0.0));
        for (int s = 0; s < SEQUENCES; s++)
            check_near(c->terms[s * MATRICES + i], wanted[s]);
    }
}

static void test_backward(void **state) {
    (void)state;
    for (int which = 0; which < (int)(sizeof cases / sizeof cases[0]); which++)
        for (int variant = 0; variant < 4; variant++) {
            bool add = variant % 2 == 1, fixed = variant / 2 == 1;
            product_case c;
            open_case(&c, which, fixed);
            int64_t n = cases[which].tokens, N = c.product.N;
            float *dx = filled(n * K, 9), *before = filled(n * K, 9);
            dpt_linear_product_backward(&c.pass, &c.product,
                                        dpt_rows_of(n, c.sample, c.dy, N, c.x, K), add, dx, K);
            for (int64_t i = 0; i<n; i += n> 10 ? 97 : 1)
                for (int64_t k = 0; k < K; k++) {
                    double sum = add ? (double)before[i * K + k] : 0.0;
                    for (int64_t r = 0; r < N; r++)
                        sum +=
                            (double)c.dy[i * N + r] * weight_at(&c, r * K + k, fixed ? 0.0 : PLACE);
                    check_near(dx[i * K + k], sum);
                }
            check_terms(&c, which, fixed);
            check_guard(dx, n * K);
            free(dx);
            free(before);
            close_case(&c, which);
        }
}

/* Without dx the terms alone. */
static void test_terms_alone(void **state) {
    (void)state;
    for (int which = 0; which < (int)(sizeof cases / sizeof cases[0]); which++) {
        product_case c;
        open_case(&c, which, false);
        dpt_linear_product_backward(
            &c.pass, &c.product,
            dpt_rows_of(cases[which].tokens, c.sample, c.dy, c.product.N, c.x, K), false, NULL, 0);
        check_terms(&c, which, false);
        close_case(&c, which);
    }
}

/* Rows that are formed at a time are a few of many, all of few, and never fewer for more tokens. */
static void test_rows(void **state) {
    (void)state;
    for (int64_t rows = 0; rows < 5000; rows += 37) {
        dpt_param param = {.rows = rows, .cols = K};
        int64_t few = dpt_linear_rows_for(&param, 128), many = dpt_linear_rows_for(&param, 2048);
        assert_true(few <= many && many <= rows);
        assert_true(few <= DPT_ACCUMULATE_ROWS && (rows == 0 || few > 0));
        assert_true(rows > DPT_ACCUMULATE_ROWS || few == rows);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward), cmocka_unit_test(test_backward),
        cmocka_unit_test(test_terms_alone), cmocka_unit_test(test_rows)};
    return test_mpi_main(argc, argv, tests);
}
