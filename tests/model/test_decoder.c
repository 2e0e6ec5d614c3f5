/* ranks: 1 2 3 4 */
/* Loss, gradients and terms of the decoder against transformers, at every mesh of the ranks. */
#include "support/test_mpi.h"
#include "support/golden_model.h"

#include "deltapath/comm/mesh.h"
#include "deltapath/model/model.h"

#include <math.h>

/* Tensor-wise measure: |ours - golden| / |golden| in the Euclidean norm. */
static const double tolerance = 1e-4;

typedef struct fixture {
    golden_model g;
    dpt_mesh mesh;
    dpt_model *model;
    double *nll, *terms;
} fixture;

static void fixture_open(fixture *f, const char *name, int model_size) {
    memset(f, 0, sizeof *f);
    golden_load(name, &f->g);
    assert_int_equal(dpt_mesh_create(&test_comm, model_size, &f->mesh), DPT_OK);
    assert_int_equal(
        dpt_model_create(&f->mesh.model, f->g.config, memory_source(&f->g.post), &f->model),
        DPT_OK);
    dpt_source edited = memory_source(&f->g.edited);
    assert_int_equal(dpt_model_bind_edit(f->model, &edited), DPT_OK);
    f->nll = calloc((size_t)f->g.tokens, sizeof *f->nll);
    f->terms = calloc((size_t)(f->g.samples * f->g.post.catalog.count), sizeof *f->terms);
}

static void fixture_close(fixture *f) {
    free(f->nll);
    free(f->terms);
    dpt_model_destroy(f->model);
    dpt_mesh_destroy(&f->mesh);
    golden_free(&f->g);
}

static void assert_near(double ours, double golden, double scale, const char *what,
                        const char *name) {
    if (!(fabs(ours - golden) <= tolerance * scale))
        fail_msg("%s %s: %.9g in place of %.9g (scale %.3g)", what, name, ours, golden, scale);
}

static double sample_loss(const fixture *f, int64_t s) {
    double sum = 0.0;
    for (int64_t i = f->g.offsets[s]; i < f->g.offsets[s + 1]; i++)
        sum += f->nll[i];
    return sum / (double)golden_scored(&f->g, s);
}

static void check_losses(fixture *f, const char *name) {
    dpt_batch batch = golden_batch(&f->g);
    const double *golden[2] = {f->g.loss, f->g.loss_edit};
    for (int end = 0; end < 2; end++) {
        assert_int_equal(
            dpt_model_run(f->model, &batch, end, DPT_BACKWARD_NONE, NULL, f->nll, NULL, NULL, NULL),
            DPT_OK);
        for (int64_t s = 0; s < f->g.samples; s++)
            assert_near(sample_loss(f, s), golden[end][s], fabs(golden[end][s]), "loss", name);
    }
}

/* Every term within tolerance of |gradient of the sample| |E| would be easy; we ask for tolerance
 * relative to the largest term of that tensor over the samples. */
static void check_terms(fixture *f, const char *name) {
    dpt_batch batch = golden_batch(&f->g);
    int count = f->g.post.catalog.count;
    double *weight = golden_weights(&f->g, 1.0);
    assert_int_equal(dpt_model_run(f->model, &batch, 0.0, DPT_BACKWARD_TERMS, weight, f->nll, NULL,
                                   f->terms, NULL),
                     DPT_OK);
    assert_int_equal(dpt_comm_sum_f64(&f->mesh.model, f->terms, f->g.samples * count), DPT_OK);
    for (int k = 0; k < count; k++) {
        double scale = 0.0;
        for (int64_t s = 0; s < f->g.samples; s++)
            scale = fmax(scale, fabs(f->g.terms[s * count + k]));
        for (int64_t s = 0; s < f->g.samples; s++)
            assert_near(f->terms[s * count + k], f->g.terms[s * count + k], scale,
                        f->g.post.catalog.tensors[k].name, name);
    }
    free(weight);
}

static void check_tensor(const fixture *f, const dpt_model_gradient *gradient, int k,
                         const char *name) {
    const dpt_tensor_info *info = &f->g.grad.catalog.tensors[k];
    float *ours = malloc((size_t)info->numel * sizeof *ours);
    const float *golden = f->g.grad.values[k];
    assert_int_equal(dpt_model_gradient_gather(f->model, gradient, k, ours), DPT_OK);
    double off = 0.0, size = 0.0;
    for (int64_t i = 0; i < info->numel; i++) {
        off += ((double)ours[i] - golden[i]) * ((double)ours[i] - golden[i]);
        size += (double)golden[i] * golden[i];
    }
    assert_near(sqrt(off), 0.0, sqrt(size), info->name, name);
    free(ours);
}

static void check_gradient(fixture *f, const char *name) {
    dpt_batch batch = golden_batch(&f->g);
    int count = f->g.post.catalog.count;
    double *weight = golden_weights(&f->g, 1.0 / (double)f->g.samples);
    double *dots = calloc((size_t)count, sizeof *dots);
    dpt_model_gradient *gradient;
    assert_int_equal(dpt_model_gradient_create(f->model, &gradient), DPT_OK);
    assert_int_equal(dpt_model_run(f->model, &batch, 0.0, DPT_BACKWARD_GRADIENT, weight, f->nll,
                                   NULL, NULL, gradient),
                     DPT_OK);
    for (int k = 0; k < count; k++)
        check_tensor(f, gradient, k, name);
    /* The two modes must agree: <gradient, E> against the terms of check_terms. */
    assert_int_equal(dpt_model_gradient_dot(f->model, gradient, dots), DPT_OK);
    assert_int_equal(dpt_comm_sum_f64(&f->mesh.model, dots, count), DPT_OK);
    for (int k = 0; k < count; k++) {
        double sum = 0.0, scale = 0.0;
        for (int64_t s = 0; s < f->g.samples; s++) {
            sum += f->terms[s * count + k] / (double)f->g.samples;
            scale = fmax(scale, fabs(f->terms[s * count + k]));
        }
        if (fabs(sum - dots[k]) > 3e-6 * scale)
            fail_msg("%s: %s: terms give %.9g, the gradient %.9g", name,
                     f->g.post.catalog.tensors[k].name, sum, dots[k]);
    }
    dpt_model_gradient_destroy(gradient);
    free(weight);
    free(dots);
}

static void test_golden(void **state) {
    (void)state;
    for (int c = 0; c < GOLDEN_CASES; c++) {
        for (int size = 1; size <= test_comm.size; size++) {
            if (test_comm.size % size != 0)
                continue;
            fixture f;
            fixture_open(&f, golden_cases[c], size);
            check_losses(&f, golden_cases[c]);
            check_terms(&f, golden_cases[c]);
            check_gradient(&f, golden_cases[c]);
            fixture_close(&f);
        }
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
    };
    return test_mpi_main(argc, argv, tests);
}
