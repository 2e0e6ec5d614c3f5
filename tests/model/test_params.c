/* ranks: 1 2 3 4 */
#include "support/test_mpi.h"
#include "support/golden_model.h"

#include "../src/model/transformer.h"

#include <math.h>

/* Matrices that lie in stored tensors in every way, split over the ranks, against what dpt_layout_place says of
 * each element. */

enum { TENSORS = 11, PARTS_MAX = 48, ROUNDS = 12 };

static const dpt_comm params_alone = {.mpi = MPI_COMM_SELF, .rank = 0, .size = 1};

enum { UNITS = 3 }; /* into which the tensors are dealt */

static void params_deal(const dpt_params *params, int *unit) {
    for (int i = 0; i < params->count; i++)
        unit[i] = params->items[i].tensor < 0 ? 0 : params->items[i].tensor % UNITS;
}

/* One part of the stored tensor, and how it is split. */
typedef struct params_case {
    memory_model post, edited;
    dpt_param_part parts[PARTS_MAX];
    int count;
    dpt_model model; /* group, catalog and params alone */
} params_case;

static uint64_t params_state;

static int64_t params_random(int64_t low, int64_t high) {
    params_state = params_state * 6364136223846793005U + 1442695040888963407U;
    return low + (int64_t)(params_state >> 33) % (high - low + 1);
}

static dpt_layout params_plain(int64_t rows, int64_t cols, int64_t first) {
    return (dpt_layout){.rows = rows,
                        .cols = cols,
                        .first = first,
                        .run = rows,
                        .run_stride = rows * cols,
                        .row_stride = cols,
                        .col_stride = 1};
}

static dpt_layout params_turned(int64_t rows, int64_t cols, int64_t first, int64_t apart,
                                int64_t width) {
    dpt_layout layout = params_plain(rows, cols, first);
    layout.row_stride = apart;
    layout.col_stride = width;
    layout.run_stride = rows * apart;
    return layout;
}

/* A tensor of the name that its number gives. */
static void params_add_tensor(params_case *c, int tensor, int ndim, int64_t a, int64_t b,
                              int64_t d) {
    static const dpt_dtype types[] = {DPT_F32, DPT_BF16, DPT_F16};
    char name[16];
    const int64_t shape[] = {a, b, d};
    snprintf(name, sizeof name, "t%02d", tensor);
    dpt_dtype type = types[params_random(0, 2)];
    assert_int_equal(dpt_catalog_add(&c->post.catalog, name, type, ndim, shape), DPT_OK);
    type = params_random(0, 1) == 0 ? type : types[params_random(0, 2)];
    assert_int_equal(dpt_catalog_add(&c->edited.catalog, name, type, ndim, shape), DPT_OK);
}

enum { SPLIT_NONE, SPLIT_ROWS, SPLIT_COLS, SPLIT_ANY };

static void params_add_part(params_case *c, int tensor, int split, dpt_layout layout) {
    dpt_param_part *part = &c->parts[c->count++];
    assert_true(c->count <= PARTS_MAX);
    split = split == SPLIT_ANY ? (int)params_random(SPLIT_NONE, SPLIT_COLS) : split;
    split = split == SPLIT_COLS && layout.cols == 1 ? SPLIT_ROWS : split;
    *part = (dpt_param_part){.tensor = tensor,
                             .layout = layout,
                             .row_end = layout.rows,
                             .col_end = layout.cols,
                             .rows_split = split == SPLIT_ROWS,
                             .cols_split = split == SPLIT_COLS,
                             .counted = true,
                             .matrix = -1};
    if (part->rows_split)
        dpt_shard_split(layout.rows, test_comm.size, test_comm.rank, &part->row_begin,
                        &part->row_end);
    if (part->cols_split)
        dpt_shard_split(layout.cols, test_comm.size, test_comm.rank, &part->col_begin,
                        &part->col_end);
}

/* Experts lie on one rank each. */
static void params_add_expert(params_case *c, int tensor, int expert, dpt_layout layout) {
    params_add_part(c, tensor, SPLIT_NONE, layout);
    if (expert % test_comm.size != test_comm.rank)
        c->parts[c->count - 1].row_end = 0;
}

static void params_add_matrices(params_case *c) {
    int64_t rows = params_random(1, 40), cols = params_random(1, 40), n[3], at = 0;
    params_add_tensor(c, 0, 2, rows, cols, 0);
    params_add_part(c, 0, SPLIT_ANY, params_plain(rows, cols, 0));
    params_add_tensor(c, 1, 1, rows, 0, 0);
    params_add_part(c, 1, SPLIT_ANY, params_plain(rows, 1, 0));
    for (int i = 0; i < 3; i++)
        n[i] = params_random(1, 20);
    params_add_tensor(c, 2, 2, n[0] + n[1] + n[2], cols, 0); /* fused rows */
    for (int i = 0; i < 3; at += n[i++] * cols)
        params_add_part(c, 2, SPLIT_ANY, params_plain(n[i], cols, at));
    params_add_tensor(c, 3, 2, cols, rows, 0); /* a stored transpose */
    params_add_part(c, 3, SPLIT_ANY, params_turned(rows, cols, 0, 1, rows));
    params_add_tensor(c, 4, 2, cols, n[0] + n[1] + n[2], 0); /* fused columns */
    at = 0;
    for (int i = 0; i < 3; at += n[i++])
        params_add_part(c, 4, SPLIT_ANY, params_turned(n[i], cols, at, 1, n[0] + n[1] + n[2]));
}

/* Runs of rows of three matrices in turn; the last run of the third may be short. */
static void params_add_runs(params_case *c) {
    int64_t runs = params_random(1, 6), run = params_random(1, 7), cols = params_random(2, 20);
    params_add_tensor(c, 5, 2, runs * 3 * run, cols, 0);
    params_add_tensor(c, 6, 1, runs * 3 * run, 0, 0);
    for (int i = 0; i < 3; i++)
        for (int vector = 0; vector < 2; vector++) {
            int64_t width = vector ? 1 : cols;
            dpt_layout layout = params_plain(runs * run, width, i * run * width);
            layout.rows -= i == 2 ? params_random(0, run - 1) : 0;
            layout.run = run;
            layout.run_stride = 3 * run * width;
            params_add_part(c, 5 + vector, SPLIT_ANY, layout);
        }
}

/* Two or three matrices whose columns alternate, of several experts or of one layer; widths that are no multiple of
 * their number too. */
static void params_add_alternating(params_case *c) {
    int64_t experts = params_random(1, 5), units = params_random(1, 9), cols = params_random(2, 9);
    params_add_tensor(c, 7, 3, experts, cols, 2 * units);
    params_add_tensor(c, 8, 2, experts, 2 * units, 0);
    for (int e = 0; e < (int)experts; e++)
        for (int i = 0; i < 2; i++) {
            params_add_expert(c, 7, e,
                              params_turned(units, cols, e * cols * 2 * units + i, 2, 2 * units));
            dpt_layout bias = params_plain(units, 1, e * 2 * units + i);
            bias.row_stride = 2;
            bias.run_stride = 2 * units;
            params_add_expert(c, 8, e, bias);
        }
    int64_t apart = params_random(2, 3), odd = params_random(0, 1);
    params_add_tensor(c, 9, 2, cols, apart * units + odd, 0);
    for (int i = 0; i < apart; i++)
        params_add_part(c, 9, SPLIT_ANY, params_turned(units, cols, i, apart, apart * units + odd));
    params_add_tensor(c, 10, 2, cols, apart * units, 0); /* the same of the inputs */
    for (int i = 0; i < apart; i++) {
        dpt_layout layout = params_plain(cols, units, i);
        layout.row_stride = apart * units;
        layout.run_stride = cols * apart * units;
        layout.col_stride = apart;
        params_add_part(c, 10, units > 1 ? SPLIT_ANY : SPLIT_NONE, layout);
    }
}

/* Values that all types hold, and no two neighbours alike. */
static float params_value(int tensor, int64_t ig, bool edited) {
    return (float)((ig * 37 + tensor * 11 + (edited && ig % 3 == 1 ? 5 : 0)) % 251);
}

static void params_fill(memory_model *m, bool edited) {
    memory_allocate(m);
    for (int k = 0; k < m->catalog.count; k++)
        for (int64_t ig = 0; ig < m->catalog.tensors[k].numel; ig++) {
            float value = params_value(k, ig, edited && k % 4 != 3);
            dpt_dtype type = m->catalog.tensors[k].dtype;
            dpt_dtype_from_f32(type, &value, (char *)m->values[k] + ig * dpt_dtype_size(type), 1);
        }
}

static bool params_ignore(const void *ctx, const char *name) {
    (void)ctx;
    (void)name;
    return false;
}

static void params_case_open(params_case *c, bool together) {
    *c = (params_case){.count = 0};
    params_add_matrices(c);
    params_add_runs(c);
    params_add_alternating(c);
    params_fill(&c->post, false);
    params_fill(&c->edited, true);
    c->post.together = c->edited.together = together;
    c->model.group = test_comm;
    c->model.catalog = c->post.catalog;
    c->model.bound = true;
    dpt_params *params = &c->model.params;
    assert_int_equal(dpt_params_create(&c->post.catalog, c->count, params), DPT_OK);
    for (int i = 0; i < c->count; i++)
        dpt_params_claim(params, i, &c->parts[i]);
    assert_int_equal(dpt_params_check(params, params_ignore, NULL), DPT_OK);
    int unit[PARTS_MAX];
    params_deal(params, unit);
    assert_int_equal(dpt_shares_create(&params_alone, params, unit, UNITS, false), DPT_OK);
    c->model.replicas = params_alone;
    dpt_source post = memory_source(&c->post), edited = memory_source(&c->edited);
    assert_int_equal(dpt_params_load(params, &test_comm, &post, DPT_PARAMS_POST), DPT_OK);
    assert_int_equal(dpt_params_load(params, &test_comm, &edited, DPT_PARAMS_EDIT), DPT_OK);
    if (together || test_comm.size == 1)
        assert_int_equal(c->post.fetches, UNITS);
}

static void params_case_close(params_case *c) {
    dpt_params_destroy(&c->model.params);
    memory_free(&c->post);
    memory_free(&c->edited);
}

static float params_delta_at(const dpt_param *param, int64_t ig) {
    return params_value(param->tensor, ig, param->tensor % 4 != 3) -
           params_value(param->tensor, ig, false);
}

/* Values, E and its signs of a block. */
static void params_check_block(dpt_param *param, const char *name) {
    int64_t n = dpt_param_numel(param);
    float *post = malloc((size_t)(n + 1) * sizeof *post), *e = malloc((size_t)(n + 1) * sizeof *e);
    float *edit = malloc((size_t)(n + 1) * sizeof *edit);
    dpt_rng stream = dpt_rng_make(3, name, DPT_RNG_SIGN);
    bool differs = false;
    dpt_param_weights(param, 0.0, 0, param->rows, post);
    dpt_param_weights(param, 1.0, 0, param->rows, edit);
    assert_int_equal(dpt_param_draw_signs(param, stream), DPT_OK);
    dpt_param_delta(param, 0, param->rows, e);
    for (int64_t at = 0; at < n; at++) {
        int64_t ig = dpt_param_place(param, at / param->cols, at % param->cols);
        float delta = params_delta_at(param, ig);
        uint64_t sign;
        dpt_rng_mask(stream, ig, 1, dpt_rng_threshold(0.5), &sign);
        differs = differs || delta != 0.0F;
        if (post[at] != params_value(param->tensor, ig, false) || edit[at] != post[at] + delta ||
            e[at] != (sign & 1 ? -delta : delta))
            fail_msg("%s: element %d of the tensor: %g %g %g", name, (int)ig, (double)post[at],
                     (double)edit[at], (double)e[at]);
    }
    assert_true(param->has_delta == differs);
    dpt_param_clear_direction(param);
    free(post);
    free(edit);
    free(e);
}

/* A run of the tensor meets each element of the block once, in rising order. */
static void params_check_cuts(const dpt_param *param, int64_t numel) {
    int64_t begin = params_random(0, numel), n = params_random(0, numel - begin);
    int64_t found = 0, wanted = 0, last = -1;
    dpt_param_cut cut = {.line = -1};
    for (int64_t at = 0; at < dpt_param_numel(param); at++) {
        int64_t ig = dpt_param_place(param, at / param->cols, at % param->cols);
        wanted += ig >= begin && ig < begin + n;
    }
    while (dpt_param_next_cut(param, (dpt_range){param->tensor, begin, n}, &cut))
        for (int64_t i = 0; i < cut.part.n; i++, found++) {
            int64_t at = cut.part.at + i * cut.part.step, ig = cut.part.ig + i * cut.part.stride;
            assert_int_equal(dpt_param_place(param, at / param->cols, at % param->cols), ig);
            assert_true(ig > last && ig >= begin && ig < begin + n);
            last = ig;
        }
    assert_int_equal(found, wanted);
}

/* Gradients of which every element has a value of its own, back in the order of the tensors: each rank adds what it
 * has. */
static void params_check_gradient(params_case *c) {
    const dpt_params *params = &c->model.params;
    dpt_model_gradient *gradient;
    double squares[TENSORS], wanted[TENSORS], dots[TENSORS], terms[TENSORS] = {0.0};
    assert_int_equal(dpt_model_gradient_create(&c->model, &gradient), DPT_OK);
    for (int k = 0; k < TENSORS; k++) {
        int64_t numel = c->post.catalog.tensors[k].numel;
        float *holders = calloc((size_t)numel, sizeof *holders);
        float *all = calloc((size_t)numel, sizeof *all);
        for (int i = params->first[k]; i >= 0; i = params->items[i].next)
            for (int64_t at = 0; at < dpt_param_numel(&params->items[i]); at++) {
                const dpt_param *param = &params->items[i];
                int64_t ig = dpt_param_place(param, at / param->cols, at % param->cols);
                gradient->own[i][at] = (float)(ig % 97 + 1);
                holders[ig] += 1.0F;
                terms[k] += (double)params_delta_at(param, ig) * (double)(ig % 97 + 1);
            }
        assert_int_equal(dpt_comm_sum_f32(&test_comm, holders, numel), DPT_OK);
        dpt_range range = {.tensor = k, .ig = numel / 3, .n = numel / 2};
        assert_int_equal(dpt_model_gradient_range(&c->model, gradient, range, all), DPT_OK);
        wanted[k] = 0.0;
        for (int64_t ig = 0; ig < numel; ig++) {
            float g = (float)(ig % 97 + 1) * holders[ig];
            double e = (double)params_value(k, ig, k % 4 != 3) - (double)params_value(k, ig, false);
            wanted[k] += holders[ig] > 0.0F ? e * e * (double)g * (double)g : 0.0;
            if (ig >= range.ig && ig < range.ig + range.n)
                assert_true(all[ig - range.ig] == g);
        }
        free(holders);
        free(all);
    }
    assert_int_equal(dpt_model_gradient_squares(&c->model, gradient, squares), DPT_OK);
    assert_int_equal(dpt_model_gradient_dot(&c->model, gradient, dots), DPT_OK);
    for (int k = 0; k < TENSORS; k++)
        assert_true(fabs(squares[k] - wanted[k]) <= 1e-6 * wanted[k] &&
                    fabs(dots[k] - terms[k]) <= 1e-3);
    dpt_model_gradient_destroy(gradient);
}

static void test_layouts(void **state) {
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        params_case c;
        params_state = (uint64_t)round; /* the same on all ranks */
        params_case_open(&c, round % 2 == 0);
        for (int i = 0; i < c.count; i++) {
            dpt_param *param = &c.model.params.items[i];
            const dpt_tensor_info *info = &c.post.catalog.tensors[param->tensor];
            params_check_block(param, info->name);
            params_check_cuts(param, info->numel);
        }
        params_check_gradient(&c);
        params_case_close(&c);
    }
}

/* Matrices that alternate are fetched once for both, and what is stored as it is needed takes no room. */
static void test_loading_bytes(void **state) {
    (void)state;
    dpt_catalog catalog;
    const int64_t plain[] = {40, 30}, turned[] = {3, 8, 20};
    dpt_catalog_init(&catalog);
    assert_int_equal(dpt_catalog_add(&catalog, "a", DPT_F32, 2, plain), DPT_OK);
    assert_int_equal(dpt_catalog_add(&catalog, "b", DPT_BF16, 3, turned), DPT_OK);
    for (int alternate = 0; alternate < 2; alternate++) {
        dpt_params params;
        int64_t bytes, last = alternate ? 7 : 1;
        assert_int_equal(dpt_params_create(&catalog, 7, &params), DPT_OK);
        dpt_layout layout = params_plain(40, 30, 0);
        for (int i = 0; i < last; i++) {
            if (i > 0)
                layout = params_turned(10, 8, (i - 1) / 2 * 160 + (i - 1) % 2, 2, 20);
            dpt_param_part part = {
                .tensor = i > 0, .layout = layout, .row_end = layout.rows, .col_end = layout.cols};
            dpt_params_claim(&params, i, &part);
        }
        int unit[7];
        params_deal(&params, unit);
        assert_int_equal(dpt_shares_plan(&params, unit, UNITS, false, 1, 1), DPT_OK);
        assert_int_equal(dpt_params_loading_bytes(&params, &bytes), DPT_OK);
        assert_int_equal(bytes, alternate ? 3 * 8 * 20 * 2 : 0);
        int64_t stored = 40 * 30 * 4 + (alternate ? 3 * 8 * 20 * 2 : 0);
        assert_in_range(dpt_shares_bytes(&params, false), stored, stored + last * DPT_SHARE_ALIGN);
        dpt_params_destroy(&params);
    }
    dpt_catalog_destroy(&catalog);
}

/* A value that is no number is named by its place in the tensor, and a rank without memory ends the load on all
 * that wait for it. */
static void test_failures(void **state) {
    (void)state;
    params_case c;
    params_state = 5;
    params_case_open(&c, false);
    dpt_params *params = &c.model.params;
    dpt_source edited = memory_source(&c.edited);
    float bad = INFINITY;
    dpt_dtype type = c.edited.catalog.tensors[3].dtype;
    int64_t ig = c.edited.catalog.tensors[3].numel - 1;
    dpt_dtype_from_f32(type, &bad, (char *)c.edited.values[3] + ig * dpt_dtype_size(type), 1);
    dpt_status st = dpt_params_load(params, &test_comm, &edited, DPT_PARAMS_EDIT);
    if (st != DPT_OK) {
        char text[64];
        snprintf(text, sizeof text, "tensor t03: element %d ", (int)ig);
        test_error_says(text);
        assert_null(params->items[0].edit);
    }
    dpt_error_clear();
    assert_int_equal(dpt_agree(&test_comm, st), DPT_ERR_INPUT);
    dpt_error_clear();
    if (test_comm.rank == test_comm.size - 1)
        dpt_mem_set_budget(dpt_mem_in_use() + 1);
    st = dpt_params_load(params, &test_comm, &edited, DPT_PARAMS_EDIT);
    dpt_mem_set_budget(0);
    assert_int_equal(dpt_agree(&test_comm, st), DPT_ERR_OUTPUT);
    dpt_error_clear();
    params_case_close(&c);
}

/* Rows of W(t) and of E, alone and together: post + t E exactly, with and without signs, whatever the types. */
static void test_forms(void **state) {
    (void)state;
    enum { ROWS = 331, COLS = 211, FIRST = 3, SIZE = ROWS * COLS };
    static const dpt_dtype types[] = {DPT_F32, DPT_BF16, DPT_F16};
    static const double times[] = {0.0, 0.4, 1.0};
    float *post = malloc(SIZE * sizeof *post), *edit = malloc(SIZE * sizeof *edit);
    float *w = malloc(SIZE * sizeof *w), *e = malloc(SIZE * sizeof *e);
    float *w2 = malloc(SIZE * sizeof *w2), *e2 = malloc(SIZE * sizeof *e2);
    uint64_t *signs = calloc(SIZE / 64 + 1, sizeof *signs);
    for (int i = 0; i < SIZE; i++) {
        post[i] = params_value(0, i, false) * 0.125F;
        edit[i] = params_value(0, i, true) * 0.125F;
        signs[i / 64] |= (uint64_t)(i % 5 == 0) << (i % 64);
    }
    for (int kind = 0; kind < 9 * 3 * 2 * 2; kind++) {
        double t = times[kind / 9 % 3];
        bool signed_too = kind / 27 % 2 == 1, direct = kind / 54 % 2 == 1;
        float *stored[] = {malloc(SIZE * sizeof(float)), malloc(SIZE * sizeof(float))};
        dpt_param param = {.rows = ROWS,
                           .cols = COLS,
                           .has_delta = true,
                           .direct = direct,
                           .signs = signed_too ? signs : NULL,
                           .post_type = types[kind % 3],
                           .edit_type = types[kind / 3 % 3],
                           .post = (const char *)stored[0],
                           .edit = (const char *)stored[1]};
        dpt_dtype_from_f32(param.post_type, post, stored[0], SIZE);
        dpt_dtype_from_f32(param.edit_type, edit, stored[1], SIZE);
        int64_t rows = ROWS - FIRST, at = FIRST * COLS, n = rows * COLS;
        dpt_param_weights(&param, t, FIRST, rows, w);
        dpt_param_delta(&param, FIRST, rows, e);
        dpt_param_weights_delta(&param, t, FIRST, rows, w2, e2);
        for (int64_t i = 0; i < n; i++) {
            float delta = direct ? edit[at + i] : edit[at + i] - post[at + i];
            delta = signed_too && (at + i) % 5 == 0 ? -delta : delta;
            assert_true(e[i] == delta);
            assert_true(w[i] == post[at + i] + (float)t * delta);
        }
        assert_memory_equal(w, w2, (size_t)n * sizeof *w);
        assert_memory_equal(e, e2, (size_t)n * sizeof *e);
        free(stored[0]);
        free(stored[1]);
    }
    free(post);
    free(edit);
    free(w);
    free(e);
    free(w2);
    free(e2);
    free(signs);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layouts), cmocka_unit_test(test_loading_bytes),
        cmocka_unit_test(test_forms), cmocka_unit_test(test_failures)};
    return test_mpi_main(argc, argv, tests);
}
