/* ranks: 1 2 3 4 7 */
/* Loss, gradients and terms of the image models against transformers, at every mesh of the ranks. At 7
 * ranks some have no head. */
#include "support/test_mpi.h"
#include "support/fault.h"
#include "support/golden_image.h"

#include "deltapath/comm/mesh.h"
#include "deltapath/model/model.h"

#include <jansson.h>
#include <math.h>

/* Tensor-wise measure: |ours - golden| / |golden| in the Euclidean norm. */
static const double tolerance = 1e-4;

typedef struct fixture {
    golden_image in;
    golden_model *g;
    dpt_mesh mesh;
    dpt_model *model;
    dpt_batch batch;
    double *nll, *terms, *weight;
    const char *name;
} fixture;

static void fixture_open(fixture *f, const char *name, int model_size) {
    memset(f, 0, sizeof *f);
    golden_image_load(name, &f->in);
    f->g = &f->in.g;
    f->name = name;
    f->batch = golden_image_batch(&f->in);
    assert_int_equal(dpt_mesh_create(&test_comm, model_size, &f->mesh), DPT_OK);
    assert_int_equal(
        dpt_model_create(&f->mesh.model, f->g->config, memory_source(&f->g->post), &f->model),
        DPT_OK);
    dpt_source edited = memory_source(&f->g->edited);
    assert_int_equal(dpt_model_bind_edit(f->model, &edited), DPT_OK);
    f->nll = calloc((size_t)f->g->samples, sizeof *f->nll);
    f->weight = calloc((size_t)f->g->samples, sizeof *f->weight);
    f->terms = calloc((size_t)(f->g->samples * f->g->post.catalog.count), sizeof *f->terms);
}

static void fixture_close(fixture *f) {
    free(f->nll);
    free(f->terms);
    free(f->weight);
    dpt_model_destroy(f->model);
    dpt_mesh_destroy(&f->mesh);
    golden_image_free(&f->in);
}

static void assert_near(double ours, double golden, double scale, const char *what,
                        const char *name) {
    if (!(fabs(ours - golden) <= tolerance * scale))
        fail_msg("%s %s: %.9g in place of %.9g (scale %.3g)", what, name, ours, golden, scale);
}

static void set_weights(fixture *f, double weight) {
    for (int64_t s = 0; s < f->g->samples; s++)
        f->weight[s] = weight;
}

static void check_losses(fixture *f) {
    const double *golden[2] = {f->g->loss, f->g->loss_edit};
    uint8_t correct[8];
    for (int end = 0; end < 2; end++) {
        assert_int_equal(dpt_model_run(f->model, &f->batch, end, DPT_BACKWARD_NONE, NULL, f->nll,
                                       correct, NULL, NULL),
                         DPT_OK);
        for (int64_t s = 0; s < f->g->samples; s++) {
            assert_near(f->nll[s], golden[end][s], fabs(golden[end][s]), "loss", f->name);
            assert_true(end == 1 || correct[s] == f->in.correct[s]);
        }
    }
}

static void check_terms(fixture *f) {
    int count = f->g->post.catalog.count;
    set_weights(f, 1.0);
    assert_int_equal(dpt_model_run(f->model, &f->batch, 0.0, DPT_BACKWARD_TERMS, f->weight, f->nll,
                                   NULL, f->terms, NULL),
                     DPT_OK);
    assert_int_equal(dpt_comm_sum_f64(&f->mesh.model, f->terms, f->g->samples * count), DPT_OK);
    double most = 0.0;
    for (int64_t i = 0; i < f->g->samples * count; i++)
        most = fmax(most, fabs(f->g->terms[i]));
    for (int k = 0; k < count; k++) {
        /* Terms of the keys' biases are rounding alone, see check_tensor. */
        double scale = 1e-3 * most;
        for (int64_t s = 0; s < f->g->samples; s++)
            scale = fmax(scale, fabs(f->g->terms[s * count + k]));
        for (int64_t s = 0; s < f->g->samples; s++)
            assert_near(f->terms[s * count + k], f->g->terms[s * count + k], scale,
                        f->g->post.catalog.tensors[k].name, f->name);
    }
}

static double norm_of(const float *x, int64_t n) {
    double squares = 0.0;
    for (int64_t i = 0; i < n; i++)
        squares += (double)x[i] * x[i];
    return sqrt(squares);
}

static void check_tensor(const fixture *f, const dpt_model_gradient *gradient, int k) {
    const dpt_tensor_info *info = &f->g->grad.catalog.tensors[k];
    float *ours = malloc((size_t)info->numel * sizeof *ours);
    const float *golden = f->g->grad.values[k];
    assert_int_equal(dpt_model_gradient_gather(f->model, gradient, k, ours), DPT_OK);
    double size = norm_of(golden, info->numel);
    for (int64_t i = 0; i < info->numel; i++)
        ours[i] -= golden[i];
    /* The bias of the keys moves all scores of a query alike: its gradient is rounding alone. */
    bool nothing = strstr(info->name, "key.bias") != NULL || strstr(info->name, "k_proj.bias");
    assert_near(norm_of(ours, info->numel), 0.0, nothing ? 1e-2 : size, info->name, f->name);
    free(ours);
}

static void check_gradient(fixture *f) {
    int count = f->g->post.catalog.count;
    double *dots = calloc((size_t)count, sizeof *dots);
    dpt_model_gradient *gradient;
    set_weights(f, 1.0 / (double)f->g->samples);
    assert_int_equal(dpt_model_gradient_create(f->model, &gradient), DPT_OK);
    assert_int_equal(dpt_model_run(f->model, &f->batch, 0.0, DPT_BACKWARD_GRADIENT, f->weight,
                                   f->nll, NULL, NULL, gradient),
                     DPT_OK);
    for (int k = 0; k < count; k++)
        check_tensor(f, gradient, k);
    /* The two modes must agree: <gradient, E> against the terms of check_terms. */
    assert_int_equal(dpt_model_gradient_dot(f->model, gradient, dots), DPT_OK);
    assert_int_equal(dpt_comm_sum_f64(&f->mesh.model, dots, count), DPT_OK);
    for (int k = 0; k < count; k++) {
        double sum = 0.0, scale = 1e-3;
        for (int64_t s = 0; s < f->g->samples; s++) {
            sum += f->terms[s * count + k] / (double)f->g->samples;
            scale = fmax(scale, fabs(f->terms[s * count + k]));
        }
        if (fabs(sum - dots[k]) > 3e-6 * scale)
            fail_msg("%s: %s: terms give %.9g, the gradient %.9g", f->name,
                     f->g->post.catalog.tensors[k].name, sum, dots[k]);
    }
    dpt_model_gradient_destroy(gradient);
    free(dots);
}

static void test_golden(void **state) {
    (void)state;
    for (int c = 0; c < GOLDEN_IMAGE_CASES; c++) {
        for (int size = 1; size <= test_comm.size; size++) {
            if (test_comm.size % size != 0)
                continue;
            fixture f;
            fixture_open(&f, golden_image_cases[c], size);
            check_losses(&f);
            check_terms(&f);
            check_gradient(&f);
            fixture_close(&f);
        }
    }
}

static double mean_loss(fixture *f, double t) {
    assert_int_equal(
        dpt_model_run(f->model, &f->batch, t, DPT_BACKWARD_NONE, NULL, f->nll, NULL, NULL, NULL),
        DPT_OK);
    double sum = 0.0;
    for (int64_t s = 0; s < f->g->samples; s++)
        sum += f->nll[s] / (double)f->g->samples;
    return sum;
}

/* The slope along the path in the middle of it, by central differences of fourth order. */
static void test_finite_difference(void **state) {
    (void)state;
    for (int c = 0; c < GOLDEN_IMAGE_CASES; c++) {
        fixture f;
        fixture_open(&f, golden_image_cases[c], test_comm.size);
        double h = 0.2;
        double slope = (8.0 * (mean_loss(&f, 0.5 + h) - mean_loss(&f, 0.5 - h)) -
                        (mean_loss(&f, 0.5 + 2 * h) - mean_loss(&f, 0.5 - 2 * h))) /
                       (12.0 * h);
        set_weights(&f, 1.0 / (double)f.g->samples);
        assert_int_equal(dpt_model_run(f.model, &f.batch, 0.5, DPT_BACKWARD_TERMS, f.weight, f.nll,
                                       NULL, f.terms, NULL),
                         DPT_OK);
        double sum = 0.0, size = 0.0;
        int64_t n = f.g->samples * f.g->post.catalog.count;
        assert_int_equal(dpt_comm_sum_f64(&f.mesh.model, f.terms, n), DPT_OK);
        for (int64_t i = 0; i < n; i++) {
            sum += f.terms[i];
            size += fabs(f.terms[i]);
        }
        assert_near(sum, slope, size, "slope", f.name);
        fixture_close(&f);
    }
}

/* A batch gives what its images give alone; buffers are reused for smaller batches. */
static void test_batches(void **state) {
    (void)state;
    fixture f;
    fixture_open(&f, "clip", test_comm.size);
    mean_loss(&f, 0.0);
    int64_t held = dpt_mem_in_use();
    for (int64_t s = 0; s < f.g->samples; s++) {
        double nll;
        dpt_batch one = {
            .sequences = 1, .images = f.in.images + s * 3 * 9 * 9, .labels = f.in.labels + s};
        assert_int_equal(
            dpt_model_run(f.model, &one, 0.0, DPT_BACKWARD_NONE, NULL, &nll, NULL, NULL, NULL),
            DPT_OK);
        assert_near(nll, f.nll[s], 1.0, "nll", "alone");
    }
    assert_int_equal(dpt_mem_in_use(), held);
    dpt_batch none = f.batch;
    none.sequences = 0;
    assert_int_equal(
        dpt_model_run(f.model, &none, 0.0, DPT_BACKWARD_NONE, NULL, f.nll, NULL, NULL, NULL),
        DPT_OK);
    fixture_close(&f);
}

static void test_bytes_and_shape(void **state) {
    (void)state;
    fixture f;
    fixture_open(&f, "vit", test_comm.size);
    dpt_model_image image, planned;
    bool is_image;
    assert_true(dpt_model_get_image(f.model, &image));
    assert_int_equal(image.classes, 7);
    assert_int_equal(image.channels, 3);
    assert_int_equal(image.height, 12);
    assert_int_equal(image.positions, 10);
    assert_int_equal(dpt_model_config_image(f.g->config, &f.g->post.catalog, &is_image, &planned),
                     DPT_OK);
    assert_true(is_image && planned.positions == 10 && planned.classes == 7);
    int64_t weights, work, before = dpt_mem_in_use();
    assert_int_equal(dpt_model_bytes(f.g->config, &f.g->post.catalog, test_comm.size, true,
                                     f.g->samples * image.positions, image.positions, &weights,
                                     &work),
                     DPT_OK);
    set_weights(&f, 1.0);
    assert_int_equal(dpt_model_run(f.model, &f.batch, 0.5, DPT_BACKWARD_TERMS, f.weight, f.nll,
                                   NULL, f.terms, NULL),
                     DPT_OK);
    assert_true(dpt_mem_in_use() - before <= work);
    if (test_comm.rank == 0)
        assert_int_equal(dpt_mem_in_use() - before, work);
    fixture_close(&f);
}

static void expect_refusal(const char *config, memory_model *weights, const char *named) {
    dpt_model *model;
    dpt_error_clear();
    assert_int_equal(dpt_model_create(&test_comm, config, memory_source(weights), &model),
                     DPT_ERR_INPUT);
    assert_null(model);
    if (strstr(dpt_error_message(), named) == NULL)
        fail_msg("no \"%s\" in: %s", named, dpt_error_message());
    dpt_error_clear();
}

static void test_bad_configs(void **state) {
    (void)state;
    static const struct {
        const char *key, *value, *named;
    } bad[] = {
        {"architectures", "[\"CLIPModel\"]", "architectures CLIPModel"},
        {"model_type", "\"vit\"", "model_type says vit"},
        {"hidden_act", "\"relu\"", "hidden_act"},
        {"hidden_size", "null", "hidden_size is missing"},
        {"hidden_size", "21", "hidden_size"},
        {"hidden_size", "4611686018427387904", "hidden_size"},
        {"num_attention_heads", "0", "num_attention_heads"},
        {"num_hidden_layers", "1", "layers.1.layer_norm1.bias is not part"},
        {"num_hidden_layers", "3", "layers.2.layer_norm1.weight is missing"},
        {"image_size", "12", "position_embedding.weight has the shape [10, 20] in place of [17"},
        {"image_size", "[9, 9]", "image_size"},
        {"patch_size", "10", "patch_size"},
        {"patch_size", "4",
         "patch_embedding.weight has the shape [20, 3, 3, 3] in place of [20, 3, 4"},
        {"num_channels", "1", "patch_embedding.weight has the shape"},
        {"projection_dim", "11", "visual_projection.weight has the shape"},
        {"layer_norm_eps", "-1.0", "layer_norm_eps"},
        {"quantization_config", "{\"bits\": 4}", "quantization_config"},
    };
    golden_image in;
    golden_image_load("clip", &in);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        json_t *root = json_loads(in.g.config, 0, NULL);
        json_object_set_new(root, bad[i].key, json_loads(bad[i].value, JSON_DECODE_ANY, NULL));
        char *config = json_dumps(root, 0);
        expect_refusal(config, &in.g.post, bad[i].named);
        free(config);
        json_decref(root);
    }
    int head = dpt_catalog_find(&in.g.post.catalog, "text_embeds.weight");
    dpt_tensor_info kept = in.g.post.catalog.tensors[head];
    in.g.post.catalog.tensors[head].name = "text_embeds.weighs";
    expect_refusal(in.g.config, &in.g.post, "text_embeds.weight is missing");
    in.g.post.catalog.tensors[head] = kept;
    golden_image_free(&in);
}

static void test_compare(void **state) {
    (void)state;
    golden_image clip, vit;
    char text[256];
    golden_image_load("clip", &clip);
    golden_image_load("vit", &vit);
    json_t *root = json_loads(clip.g.config, 0, NULL);
    json_object_set_new(root, "hidden_act", json_string("gelu"));
    json_object_set_new(root, "layer_norm_eps", json_real(0.25));
    char *config = json_dumps(root, 0);
    const dpt_catalog *catalog = &clip.g.post.catalog;
    assert_int_equal(dpt_model_config_compare(clip.g.config, config, catalog, text, sizeof text),
                     DPT_OK);
    assert_non_null(strstr(text, "layer_norm_eps ("));
    assert_non_null(strstr(text, "hidden_act (quick_gelu and gelu)"));
    assert_int_equal(
        dpt_model_config_compare(clip.g.config, vit.g.config, catalog, text, sizeof text), DPT_OK);
    assert_non_null(strstr(text, "architectures (CLIPVisionModelWithProjection and "));
    free(config);
    json_decref(root);
    golden_image_free(&vit);
    golden_image_free(&clip);
}

/* The head of text embeddings is a constant: an edit of it is refused, not half obeyed. */
static void test_bad_calls(void **state) {
    (void)state;
    fixture f;
    fixture_open(&f, "clip", test_comm.size);
    int head = dpt_catalog_find(&f.g->edited.catalog, "text_embeds.weight");
    ((float *)f.g->edited.values[head])[3] += 1.0F;
    dpt_source edited = memory_source(&f.g->edited);
    assert_int_equal(dpt_model_bind_edit(f.model, &edited), DPT_OK);
    assert_int_equal(
        dpt_model_run(f.model, &f.batch, 0.5, DPT_BACKWARD_NONE, NULL, f.nll, NULL, NULL, NULL),
        DPT_ERR_INPUT);
    if (test_comm.rank == 0)
        assert_non_null(strstr(dpt_error_message(), "text_embeds.weight"));
    dpt_error_clear();
    assert_int_equal(dpt_model_bind_edit(f.model, NULL), DPT_OK);
    static const int32_t wrong[] = {6, -1, INT32_MAX};
    int32_t kept = f.in.labels[2];
    for (int i = 0; i < 3; i++) {
        f.in.labels[2] = wrong[i];
        assert_int_equal(
            dpt_model_run(f.model, &f.batch, 0.0, DPT_BACKWARD_NONE, NULL, f.nll, NULL, NULL, NULL),
            DPT_ERR_INPUT);
        assert_non_null(strstr(dpt_error_message(), "outside the 6 classes"));
        dpt_error_clear();
    }
    f.in.labels[2] = kept;
    int64_t first[2] = {0, 1};
    int32_t token = 0;
    dpt_batch tokens = {.sequences = 1, .first = first, .tokens = &token};
    assert_int_equal(
        dpt_model_run(f.model, &tokens, 0.0, DPT_BACKWARD_NONE, NULL, f.nll, NULL, NULL, NULL),
        DPT_ERR_INTERNAL);
    dpt_error_clear();
    for (int i = 0; i < 2; i++) {
        fault_set("model.run", i);
        assert_int_equal(
            dpt_model_run(f.model, &f.batch, 0.0, DPT_BACKWARD_NONE, NULL, f.nll, NULL, NULL, NULL),
            DPT_ERR_OUTPUT);
        fault_clear();
        dpt_error_clear();
    }
    assert_true(mean_loss(&f, 0.0) > 0.0);
    fixture_close(&f);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),      cmocka_unit_test(test_finite_difference),
        cmocka_unit_test(test_batches),     cmocka_unit_test(test_bytes_and_shape),
        cmocka_unit_test(test_bad_configs), cmocka_unit_test(test_compare),
        cmocka_unit_test(test_bad_calls),
    };
    return test_mpi_main(argc, argv, tests);
}
