#ifndef DELTAPATH_TESTS_LOSS_GOLDEN_H
#define DELTAPATH_TESTS_LOSS_GOLDEN_H

/* Comparison of any kind of loss with a golden file: losses, terms and gradient, plain or weighted. */
#include "support/fault.h"
#include "support/golden_model.h"

#include "deltapath/comm/mesh.h"
#include "deltapath/loss/loss.h"

#include <math.h>

typedef struct loss_fixture {
    const golden_model *g;
    const uint8_t *correct; /* golden, at W_post; NULL: not compared */
    bool exact;             /* no gradient of the model is rounding alone */
    dpt_mesh mesh;
    dpt_model *model;
    dpt_loss *loss;
    double *losses, *terms, *sample_terms;
    uint8_t *hits;
} loss_fixture;

/* A model with its edit bound; the loss is the caller's. */
static inline void loss_fixture_open(loss_fixture *f, golden_model *g, const uint8_t *correct,
                                     int model_size) {
    memset(f, 0, sizeof *f);
    f->g = g;
    f->correct = correct;
    assert_int_equal(dpt_mesh_create(&test_comm, model_size, &f->mesh), DPT_OK);
    assert_int_equal(dpt_model_create(&f->mesh.model, &f->mesh.data, g->config,
                                      memory_source(&g->post), &f->model),
                     DPT_OK);
    dpt_source edited = memory_source(&g->edited);
    assert_int_equal(dpt_model_bind_edit(f->model, &edited), DPT_OK);
    f->losses = calloc((size_t)g->samples, sizeof *f->losses);
    f->sample_terms = calloc((size_t)g->samples, sizeof *f->sample_terms);
    f->terms = calloc((size_t)g->post.catalog.count, sizeof *f->terms);
    f->hits = calloc((size_t)g->samples, 1);
}

static inline void loss_fixture_close(loss_fixture *f) {
    free(f->losses);
    free(f->terms);
    free(f->sample_terms);
    free(f->hits);
    dpt_loss_destroy(f->loss);
    dpt_model_destroy(f->model);
    dpt_mesh_destroy(&f->mesh);
}

static inline void loss_near(double ours, double golden, double scale, const char *what) {
    if (!(fabs(ours - golden) <= 1e-4 * scale))
        fail_msg("%s: %.9g in place of %.9g (scale %.3g)", what, ours, golden, scale);
}

static inline void loss_check_terms(loss_fixture *f, const double *share) {
    const golden_model *g = f->g;
    int count = g->post.catalog.count;
    assert_int_equal(dpt_loss_evaluate(f->loss, &f->mesh, f->model, 0.0, DPT_BACKWARD_TERMS,
                                       f->losses, f->hits, f->terms, f->sample_terms, NULL),
                     DPT_OK);
    double maximum = 0.0;
    for (int64_t i = 0; i < g->samples * count; i++)
        maximum = fmax(maximum, fabs(g->terms[i]));
    for (int64_t s = 0; s < g->samples; s++) {
        double sum = 0.0, size = 0.0;
        for (int k = 0; k < count; k++) {
            sum += g->terms[s * count + k];
            size += fabs(g->terms[s * count + k]);
        }
        loss_near(f->losses[s], g->loss[s], g->loss[s], "loss");
        loss_near(f->sample_terms[s], sum, size, "sample term");
        assert_true(f->correct == NULL || f->hits[s] == f->correct[s]);
    }
    for (int k = 0; k < count; k++) {
        double sum = 0.0, size = f->exact ? 0.0 : 1e-3 * maximum;
        for (int64_t s = 0; s < g->samples; s++) {
            sum += g->terms[s * count + k] * share[s];
            size = fmax(size, fabs(g->terms[s * count + k]));
        }
        loss_near(f->terms[k], sum, size, g->post.catalog.tensors[k].name);
    }
}

/* The gradient against the golden one (even shares), and <gradient, E> against the golden terms. */
static inline void loss_check_gradient(loss_fixture *f, const double *share, bool even) {
    const golden_model *g = f->g;
    int count = g->post.catalog.count;
    dpt_model_gradient *gradient;
    double *dots = calloc((size_t)count, sizeof *dots);
    assert_int_equal(dpt_model_gradient_create(f->model, &gradient), DPT_OK);
    assert_int_equal(dpt_loss_evaluate(f->loss, &f->mesh, f->model, 0.0, DPT_BACKWARD_GRADIENT,
                                       f->losses, NULL, NULL, NULL, gradient),
                     DPT_OK);
    for (int k = 0; k < count && even; k++) {
        const dpt_tensor_info *info = &g->grad.catalog.tensors[k];
        dpt_range all = {.tensor = k, .n = info->numel};
        float *ours = malloc((size_t)info->numel * sizeof *ours);
        const float *golden = g->grad.values[k];
        assert_int_equal(dpt_model_gradient_range(f->model, gradient, all, ours), DPT_OK);
        double off = 0.0, size = f->exact ? 0.0 : 1e-4;
        for (int64_t i = 0; i < info->numel; i++) {
            off += ((double)ours[i] - golden[i]) * ((double)ours[i] - golden[i]);
            size += (double)golden[i] * golden[i];
        }
        loss_near(sqrt(off), 0.0, sqrt(size), info->name);
        free(ours);
    }
    assert_int_equal(dpt_model_gradient_dot(f->model, gradient, dots), DPT_OK);
    assert_int_equal(dpt_comm_sum_f64(&test_comm, dots, count), DPT_OK);
    for (int k = 0; k < count; k++) {
        double sum = 0.0, size = f->exact ? 0.0 : 1e-2;
        for (int64_t s = 0; s < g->samples; s++) {
            sum += g->terms[s * count + k] * share[s];
            size = fmax(size, fabs(g->terms[s * count + k]));
        }
        loss_near(dots[k], sum, size, g->post.catalog.tensors[k].name);
    }
    dpt_model_gradient_destroy(gradient);
    free(dots);
}

/* All of it with even shares, then with weights 1, 0, 3, 0.5, 2. */
static inline void loss_check_all(loss_fixture *f) {
    static const double weights[] = {1.0, 0.0, 3.0, 0.5, 2.0};
    int n = (int)f->g->samples;
    double share[5], sum = 0.0;
    assert_in_range(n, 1, 5);
    assert_null(dpt_loss_shares(f->loss));
    assert_int_equal(dpt_loss_evaluate(f->loss, &f->mesh, f->model, 1.0, DPT_BACKWARD_NONE,
                                       f->losses, NULL, NULL, NULL, NULL),
                     DPT_OK);
    for (int s = 0; s < n; s++) {
        loss_near(f->losses[s], f->g->loss_edit[s], f->g->loss_edit[s], "edited loss");
        share[s] = 1.0 / n;
        sum += weights[s];
    }
    loss_check_terms(f, share);
    loss_check_gradient(f, share, true);
    for (int s = 0; s < n; s++)
        share[s] = weights[s] / sum;
    assert_int_equal(dpt_loss_set_weights(f->loss, weights), DPT_OK);
    for (int s = 0; s < n; s++)
        loss_near(dpt_loss_shares(f->loss)[s], share[s], 1e-9, "share");
    loss_check_terms(f, share);
    loss_check_gradient(f, share, false);
}

/* A fault at each point of an evaluation, on the first or last rank, ends in the same status everywhere
 * and the loss still works. */
static inline void loss_check_faults(loss_fixture *f) {
    static const char *const points[] = {"loss.evaluate", "model.run", "model.pass"};
    for (int i = 0; i < 7; i++) {
        if (i < 6)
            fault_set(points[i / 2], i % 2);
        dpt_status st = dpt_loss_evaluate(f->loss, &f->mesh, f->model, 0.0, DPT_BACKWARD_NONE,
                                          f->losses, NULL, NULL, NULL, NULL);
        fault_clear();
        assert_int_equal(st, i < 6 ? DPT_ERR_OUTPUT : DPT_OK);
        if (i < 6)
            test_error_says("injected fault");
    }
}

static inline void loss_check_bad_weights(dpt_loss *loss) {
    static const double bad[][5] = {
        {1, -1, 1, 1, 1}, {1, NAN, 1, 1, 1}, {1, INFINITY, 1, 1, 1}, {0, 0, 0, 0, 0}};
    static const char *const named[] = {"sample 1 is -1", "sample 1 is nan", "sample 1 is inf",
                                        "add up to 0"};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(dpt_loss_set_weights(loss, bad[i]), DPT_ERR_INPUT);
        test_error_says(named[i]);
    }
    assert_null(dpt_loss_shares(loss));
}

#endif
