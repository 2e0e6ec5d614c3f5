#ifndef DELTAPATH_TESTS_MODEL_GOLDEN_H
#define DELTAPATH_TESTS_MODEL_GOLDEN_H

/* Comparison of any kind of model with a golden file at one mesh: losses, terms, gradient, and the slope
 * along the path by finite differences. Include after support/test_mpi.h. */
#include "support/golden_image.h"

#include "deltapath/comm/mesh.h"
#include "deltapath/model/model.h"
#include "deltapath/tensor/part.h"

#include <jansson.h>
#include <math.h>

typedef struct model_fixture {
    golden_image in; /* of a language model: in.g alone */
    golden_model *g;
    dpt_mesh mesh;
    dpt_model *model;
    dpt_batch batch;
    double *nll, *weight, *terms;
    const char *name;
    double rounding; /* of the largest term: terms below it may be rounding alone */
    double gradient; /* norm of the whole one */
} model_fixture;

/* |a - b| and |b|. */
static void model_distance(int64_t n, const float *a, const float *b, double *off, double *size) {
    double squares[2] = {0.0, 0.0};
    for (int64_t i = 0; i < n; i++) {
        squares[0] += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        squares[1] += (double)b[i] * b[i];
    }
    *off = sqrt(squares[0]);
    *size = sqrt(squares[1]);
}

/* What is in f->g as a model with its edit bound, and room for what a run gives. */
static void model_fixture_bind(model_fixture *f, int model_size) {
    assert_int_equal(dpt_mesh_create(&test_comm, model_size, &f->mesh), DPT_OK);
    if (dpt_model_create(&f->mesh.model, &f->mesh.data, f->g->config, memory_source(&f->g->post),
                         &f->model) != DPT_OK)
        fail_msg("%s: %s", f->name, dpt_error_message());
    dpt_source edited = memory_source(&f->g->edited);
    assert_int_equal(dpt_model_bind_edit(f->model, &edited), DPT_OK);
    f->nll = calloc((size_t)dpt_batch_scores(&f->batch), sizeof *f->nll);
    f->weight = calloc((size_t)dpt_batch_scores(&f->batch), sizeof *f->weight);
    f->terms = calloc((size_t)(f->g->samples * dpt_model_columns(f->model)), sizeof *f->terms);
}

/* A model of tests/golden with its edit bound. */
static void model_fixture_open(model_fixture *f, const char *name, bool images, int model_size) {
    memset(f, 0, sizeof *f);
    f->g = &f->in.g;
    f->name = name;
    if (images)
        golden_image_load(name, &f->in);
    else
        golden_load(name, f->g);
    f->batch = images ? golden_image_batch(&f->in) : golden_batch(f->g);
    f->rounding = 1e-3;
    for (int k = 0; k < f->g->grad.catalog.count; k++) {
        double off, size;
        model_distance(f->g->grad.catalog.tensors[k].numel, f->g->grad.values[k],
                       f->g->grad.values[k], &off, &size);
        f->gradient = hypot(f->gradient, size);
    }
    model_fixture_bind(f, model_size);
}

static void model_fixture_close(model_fixture *f) {
    free(f->nll);
    free(f->weight);
    free(f->terms);
    dpt_model_destroy(f->model);
    dpt_mesh_destroy(&f->mesh);
    golden_image_free(&f->in);
}

/* Tensor-wise measure: |ours - golden| / |golden| in the Euclidean norm. */
static void model_near(double ours, double golden, double scale, const char *what,
                       const char *name) {
    if (!(fabs(ours - golden) <= 1e-4 * scale))
        fail_msg("%s %s: %.9g in place of %.9g (scale %.3g)", what, name, ours, golden, scale);
}

/* Run the model over the whole batch; every sample's own loss counts `share`. */
static void model_fixture_run(model_fixture *f, double t, dpt_model_backward mode, double share,
                              uint8_t *correct, dpt_model_gradient *gradient) {
    bool backward = mode != DPT_BACKWARD_NONE;
    for (int64_t s = 0; f->batch.images != NULL && s < f->g->samples; s++)
        f->weight[s] = share;
    if (f->batch.images == NULL) {
        free(f->weight);
        f->weight = golden_weights(f->g, share);
    }
    assert_int_equal(dpt_model_run(f->model, &f->batch, t, mode, backward ? f->weight : NULL,
                                   f->nll, correct, mode == DPT_BACKWARD_TERMS ? f->terms : NULL,
                                   gradient),
                     DPT_OK);
}

static double model_sample_loss(const model_fixture *f, int64_t s) {
    if (f->batch.images != NULL)
        return f->nll[s];
    double sum = 0.0;
    for (int64_t i = f->g->offsets[s]; i < f->g->offsets[s + 1]; i++)
        sum += f->nll[i];
    return sum / (double)golden_scored(f->g, s);
}

static double model_mean_loss(model_fixture *f, double t) {
    double sum = 0.0;
    model_fixture_run(f, t, DPT_BACKWARD_NONE, 0.0, NULL, NULL);
    for (int64_t s = 0; s < f->g->samples; s++)
        sum += model_sample_loss(f, s) / (double)f->g->samples;
    return sum;
}

static void model_check_losses(model_fixture *f) {
    const double *golden[2] = {f->g->loss, f->g->loss_edit};
    uint8_t *correct = calloc((size_t)dpt_batch_scores(&f->batch), 1);
    for (int end = 0; end < 2; end++) {
        model_fixture_run(f, end, DPT_BACKWARD_NONE, 0.0, correct, NULL);
        for (int64_t s = 0; s < f->g->samples; s++) {
            model_near(model_sample_loss(f, s), golden[end][s], fabs(golden[end][s]), "loss",
                       f->name);
            assert_true(f->in.correct == NULL || end == 1 || correct[s] == f->in.correct[s]);
        }
    }
    free(correct);
}

/* Query heads of the configuration. */
static int64_t model_heads(const model_fixture *f) {
    json_t *config = json_loads(f->g->config, 0, NULL);
    int64_t heads = json_integer_value(json_object_get(config, "num_attention_heads"));
    json_decref(config);
    return heads;
}

/* Term of a sample and tensor, over the ranks as soon as they are added up. */
static double model_term(const model_fixture *f, int64_t s, int k) {
    return f->terms[s * dpt_model_columns(f->model) + k];
}

static void model_sum_terms(model_fixture *f) {
    int64_t n = f->g->samples * dpt_model_columns(f->model);
    assert_int_equal(dpt_comm_sum_f64(&f->mesh.model, f->terms, n), DPT_OK);
}

/* The matrices of a tensor have its term together. */
static void model_check_matrices(const model_fixture *f) {
    const dpt_catalog *catalog = &f->g->post.catalog;
    dpt_parts parts;
    assert_int_equal(dpt_parts_create(catalog, model_heads(f), &parts), DPT_OK);
    int *number = calloc((size_t)parts.count, sizeof *number);
    bool any = dpt_model_columns(f->model) > catalog->count;
    assert_true(!any ||
                dpt_parts_number(&parts, number) == dpt_model_columns(f->model) - catalog->count);
    for (int k = 0; any && k < catalog->count; k++)
        for (int64_t s = 0; s < f->g->samples; s++) {
            double sum = 0.0, size = 0.0;
            for (int p = parts.first[k]; p < parts.first[k + 1] && number[p] >= 0; p++) {
                double term = model_term(f, s, catalog->count + number[p]);
                sum += term;
                size += fabs(term);
            }
            if (number[parts.first[k]] >= 0)
                assert_true(fabs(sum - model_term(f, s, k)) <= 1e-12 * size);
        }
    free(number);
    dpt_parts_destroy(&parts);
}

/* Every term within tolerance of |gradient of the sample| |E| would be easy; we ask for tolerance
 * relative to the largest term of that tensor over the samples. */
static void model_check_terms(model_fixture *f) {
    int count = f->g->post.catalog.count;
    double maximum = 0.0;
    model_fixture_run(f, 0.0, DPT_BACKWARD_TERMS, 1.0, NULL, NULL);
    model_sum_terms(f);
    model_check_matrices(f);
    for (int64_t i = 0; i < f->g->samples * count; i++)
        maximum = fmax(maximum, fabs(f->g->terms[i]));
    for (int k = 0; k < count; k++) {
        double scale = f->rounding * maximum;
        for (int64_t s = 0; s < f->g->samples; s++)
            scale = fmax(scale, fabs(f->g->terms[s * count + k]));
        for (int64_t s = 0; s < f->g->samples; s++)
            model_near(model_term(f, s, k), f->g->terms[s * count + k], scale,
                       f->g->post.catalog.tensors[k].name, f->name);
    }
}

static void model_check_tensor(const model_fixture *f, const dpt_model_gradient *gradient, int k) {
    const dpt_tensor_info *info = &f->g->grad.catalog.tensors[k];
    double off, size;
    dpt_range all = {.tensor = k, .n = info->numel};
    float *ours = malloc((size_t)info->numel * sizeof *ours);
    assert_int_equal(dpt_model_gradient_range(f->model, gradient, all, ours), DPT_OK);
    int64_t first = info->numel / 3, n = info->numel / 2; /* a run that cuts rows and blocks */
    float *run = malloc((size_t)(n + 1) * sizeof *run);
    dpt_range range = {.tensor = k, .ig = first, .n = n};
    assert_int_equal(dpt_model_gradient_range(f->model, gradient, range, run), DPT_OK);
    model_distance(n, ours + first, run, &off, &size);
    assert_true(off <= 1e-6 * size);
    free(run);
    model_distance(info->numel, ours, f->g->grad.values[k], &off, &size);
    /* Without rotation the bias of the keys moves all scores of a query alike, and the only expert of a
     * token has the weight 1 whatever its router says: such a gradient is rounding alone. */
    bool nothing = size < 1e-9 * f->gradient;
    model_near(off, 0.0, nothing ? 1e-2 * f->gradient : size, info->name, f->name);
    free(ours);
}

/* The gradient, and that the two modes agree: <gradient, E> against the terms of model_check_terms. */
static void model_check_gradient(model_fixture *f) {
    int count = f->g->post.catalog.count;
    int columns = dpt_model_columns(f->model);
    double *dots = calloc((size_t)columns, sizeof *dots);
    dpt_model_gradient *gradient;
    assert_int_equal(dpt_model_gradient_create(f->model, &gradient), DPT_OK);
    assert_int_equal(dpt_model_gradient_begin(f->model, gradient), DPT_OK);
    model_fixture_run(f, 0.0, DPT_BACKWARD_GRADIENT,
                      1.0 / (double)f->g->samples / f->mesh.data.size, NULL, gradient);
    assert_int_equal(dpt_model_rest(f->model, DPT_OK), DPT_OK);
    for (int k = 0; k < count; k++)
        model_check_tensor(f, gradient, k);
    assert_int_equal(dpt_model_gradient_dot(f->model, gradient, dots), DPT_OK);
    assert_int_equal(dpt_comm_sum_f64(&test_comm, dots, columns), DPT_OK);
    double maximum = 0.0;
    for (int64_t s = 0; s < f->g->samples; s++)
        for (int k = 0; k < count; k++)
            maximum = fmax(maximum, fabs(model_term(f, s, k)));
    for (int k = 0; k < columns; k++) {
        double sum = 0.0, scale = 0.2 * maximum; /* products of either sign nearly cancel in some */
        for (int64_t s = 0; s < f->g->samples; s++) {
            sum += model_term(f, s, k) / (double)f->g->samples;
            scale = fmax(scale, fabs(model_term(f, s, k)));
        }
        if (fabs(sum - dots[k]) > 3e-6 * scale)
            fail_msg("%s: %s: terms give %.9g, the gradient %.9g", f->name,
                     k < count ? f->g->post.catalog.tensors[k].name : "a matrix", sum, dots[k]);
    }
    dpt_model_gradient_destroy(gradient);
    free(dots);
}

/* Terms of this rank, and its rows of the gradient, in the middle of the path. @return bytes of both together. */
static char *model_run_both(model_fixture *f, size_t *size) {
    dpt_model_gradient *gradient;
    size_t n = (size_t)(f->g->samples * dpt_model_columns(f->model)) * sizeof *f->terms;
    model_fixture_run(f, 0.5, DPT_BACKWARD_TERMS, 1.0, NULL, NULL);
    assert_int_equal(dpt_model_gradient_create(f->model, &gradient), DPT_OK);
    assert_int_equal(dpt_model_gradient_begin(f->model, gradient), DPT_OK);
    model_fixture_run(f, 0.5, DPT_BACKWARD_GRADIENT, 1.0, NULL, gradient);
    assert_int_equal(dpt_model_rest(f->model, DPT_OK), DPT_OK);
    char *all = malloc(n);
    memcpy(all, f->terms, n);
    *size = n;
    for (int i = 0; i < dpt_model_gradient_count(gradient); i++) {
        int64_t numel;
        const float *rows = dpt_model_gradient_rows(gradient, i, &numel);
        size_t bytes = (size_t)numel * sizeof *rows;
        all = realloc(all, *size + bytes + 1);
        if (bytes > 0)
            memcpy(all + *size, rows, bytes);
        *size += bytes;
    }
    dpt_model_gradient_destroy(gradient);
    return all;
}

/* Activations that wait for the way back, of one layer or of all, are those that would be computed again. */
static void model_check_held(model_fixture *f) {
    size_t size, held_size;
    char *again = model_run_both(f, &size);
    for (int64_t layers = 1; layers <= INT16_MAX; layers += INT16_MAX - 1) {
        dpt_model_hold_layers(f->model, layers);
        char *held = model_run_both(f, &held_size);
        assert_int_equal(held_size, size);
        if (memcmp(held, again, size) != 0)
            fail_msg("%s: %d held layers give other bits", f->name, (int)layers);
        free(held);
    }
    free(again);
}

/* All of it for every golden file, at every mesh of the ranks. */
__attribute__((unused)) static void model_check_all(const char *const *names, int count,
                                                    bool images) {
    for (int c = 0; c < count; c++) {
        for (int size = 1; size <= test_comm.size; size++) {
            if (test_comm.size % size != 0)
                continue;
            model_fixture f;
            model_fixture_open(&f, names[c], images, size);
            model_check_losses(&f);
            model_check_terms(&f);
            model_check_gradient(&f);
            model_check_held(&f);
            model_fixture_close(&f);
        }
    }
}

/* The slope along the path in the middle of it, by central differences of fourth order. */
__attribute__((unused)) static void model_check_slope(const char *const *names, int count,
                                                      bool images) {
    for (int c = 0; c < count; c++) {
        model_fixture f;
        model_fixture_open(&f, names[c], images, test_comm.size);
        double h = 0.2, sum = 0.0, size = 0.0;
        double near = model_mean_loss(&f, 0.5 + h) - model_mean_loss(&f, 0.5 - h);
        double far = model_mean_loss(&f, 0.5 + 2 * h) - model_mean_loss(&f, 0.5 - 2 * h);
        model_fixture_run(&f, 0.5, DPT_BACKWARD_TERMS, 1.0 / (double)f.g->samples, NULL, NULL);
        model_sum_terms(&f);
        for (int64_t s = 0; s < f.g->samples; s++)
            for (int k = 0; k < f.g->post.catalog.count; k++) {
                sum += model_term(&f, s, k);
                size += fabs(model_term(&f, s, k));
            }
        model_near(sum, (8.0 * near - far) / (12.0 * h), size, "slope", f.name);
        model_fixture_close(&f);
    }
}

/* A model of these weights with this configuration is refused with a message that says `named`. */
static void model_expect_refusal(const char *config, memory_model *weights, const char *named) {
    dpt_model *model;
    dpt_model_ranks spread = {.group = 2, .replicas = 1, .machines = 1};
    int64_t a, b;
    dpt_error_clear();
    assert_int_equal(dpt_model_create(&test_comm, NULL, config, memory_source(weights), &model),
                     DPT_ERR_INPUT);
    assert_null(model);
    test_error_says(named);
    assert_int_equal(dpt_model_bytes(config, &weights->catalog, &spread, false, 8, 8, &a, &b),
                     DPT_ERR_INPUT);
    dpt_error_clear();
}

/* A configuration with one key set to another JSON value; the caller frees it. */
static char *model_config_with(const char *config, const char *key, const char *value) {
    json_t *root = json_loads(config, 0, NULL);
    json_object_set_new(root, key, json_loads(value, JSON_DECODE_ANY, NULL));
    char *text = json_dumps(root, 0);
    json_decref(root);
    return text;
}

typedef struct model_bad_key {
    const char *key, *value, *named;
} model_bad_key;

__attribute__((unused)) static void model_check_bad_keys(const golden_model *g,
                                                         const model_bad_key *bad, size_t count) {
    golden_model copy = *g;
    for (size_t i = 0; i < count; i++) {
        char *config = model_config_with(g->config, bad[i].key, bad[i].value);
        model_expect_refusal(config, &copy.post, bad[i].named);
        free(config);
    }
}

#endif
