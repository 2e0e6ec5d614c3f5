/* ranks: 1 2 3 4 */
/* Curvature along E from drawn labels, against one backward pass for each entry of the vocabulary in torch: to rounding
 * at every mesh and batch for one draw, and as the mean over many. */
#include "support/test_mpi.h"

#include "golden/curvature_golden.h"
#include "loss/loss_images.h"

enum { ROWS = sizeof curvature_golden / sizeof curvature_golden[0], DRAWS = 40 };

/* 1/2 sum E_i^2 G_i^2 of each tensor for one draw. */
static void draw(golden_case *c, uint64_t seed, const char *stream, double *out) {
    dpt_model_gradient *gradient;
    int tensors = dpt_model_catalog(c->f.model)->count;
    assert_int_equal(dpt_model_gradient_create(c->f.model, &gradient), DPT_OK);
    assert_int_equal(dpt_loss_evaluate_drawn(c->f.loss, &c->f.mesh, c->f.model, 0.0,
                                             dpt_rng_make(seed, stream, DPT_RNG_LABEL), c->f.losses,
                                             gradient),
                     DPT_OK);
    assert_int_equal(dpt_model_gradient_squares(c->f.model, gradient, out), DPT_OK);
    for (int k = 0; k < tensors; k++) {
        uint64_t bits;
        memcpy(&bits, &out[k], sizeof bits);
        test_same_on_all(c->f.mesh.data.size == 1 ? bits : 0);
        out[k] /= 2.0;
    }
    dpt_model_gradient_destroy(gradient);
}

static const curvature_row *golden_row(const golden_case *c, int k) {
    const char *name = dpt_model_catalog(c->f.model)->tensors[k].name;
    for (int i = 0; i < ROWS; i++)
        if (strcmp(curvature_golden[i].model, c->name) == 0 &&
            strcmp(curvature_golden[i].tensor, name) == 0)
            return &curvature_golden[i];
    fail_msg("%s: no golden number of %s", c->name, name);
    return NULL;
}

static void check_draw(golden_case *c, int weighted) {
    int tensors = dpt_model_catalog(c->f.model)->count;
    double *ours = calloc((size_t)tensors, sizeof *ours), total = 0.0;
    draw(c, 7, "labels", ours);
    for (int k = 0; k < tensors; k++)
        total += golden_row(c, k)->drawn[weighted];
    for (int k = 0; k < tensors; k++) {
        const curvature_row *row = golden_row(c, k);
        loss_near(ours[k], row->drawn[weighted], row->drawn[weighted] + 1e-3 * total / tensors,
                  row->tensor);
    }
    free(ours);
}

static void test_one_draw(void **state) {
    (void)state;
    static const char *const names[] = {"llama/gqa", "llama/tied", "vit/vit"};
    static const int64_t batches[] = {1, 1000};
    static const double weights[] = {1.0, 0.0, 3.0, 0.5, 2.0};
    for (int m = 0; m < 3; m++)
        for (int size = 1; size <= test_comm.size; size++)
            for (int b = 0; b < 2 && test_comm.size % size == 0; b++) {
                golden_case c = {.name = names[m]};
                golden_case_open(&c, size, batches[b]);
                check_draw(&c, 0);
                assert_int_equal(dpt_loss_set_weights(c.f.loss, weights), DPT_OK);
                check_draw(&c, 1);
                golden_case_close(&c);
            }
}

/* All labels in turn are the exact diagonal, tensor by tensor, and the losses give the softmax. */
static void check_labels(golden_case *c, int weighted) {
    int tensors = dpt_model_catalog(c->f.model)->count;
    dpt_model_image image;
    double *sum = calloc((size_t)(2 * tensors), sizeof *sum), *one = sum + tensors, total = 0.0;
    double likely = 0.0;
    assert_true(dpt_model_get_image(c->f.model, &image));
    for (int32_t y = 0; y < image.classes; y++) {
        assert_int_equal(dpt_loss_evaluate_label(c->f.loss, &c->f.mesh, c->f.model, 0.0, y,
                                                 c->f.losses, one, c->f.sample_terms),
                         DPT_OK);
        likely += exp(-c->f.losses[0]);
        for (int k = 0; k < tensors; k++)
            sum[k] += one[k] / 2.0;
    }
    loss_near(likely, 1.0, 1.0, "softmax");
    for (int k = 0; k < tensors; k++)
        total += golden_row(c, k)->exact[weighted];
    for (int k = 0; k < tensors; k++) {
        const curvature_row *row = golden_row(c, k);
        loss_near(sum[k], row->exact[weighted], row->exact[weighted] + 1e-3 * total / tensors,
                  row->tensor);
    }
    free(sum);
}

static void test_labels(void **state) {
    (void)state;
    static const double weights[] = {1.0, 0.0, 3.0, 0.5, 2.0};
    for (int size = 1; size <= test_comm.size; size++) {
        if (test_comm.size % size != 0)
            continue;
        golden_case c = {.name = "vit/vit"};
        golden_case_open(&c, size, size == 1 ? 1 : 1000);
        check_labels(&c, 0);
        assert_int_equal(dpt_loss_set_weights(c.f.loss, weights), DPT_OK);
        check_labels(&c, 1);
        golden_case_close(&c);
    }
    golden_case c = {.name = "llama/gqa"};
    golden_case_open(&c, test_comm.size, 1000);
    assert_int_equal(
        dpt_loss_evaluate_label(c.f.loss, &c.f.mesh, c.f.model, 0.0, 0, c.f.losses, NULL, NULL),
        DPT_ERR_INPUT);
    test_error_says("only classes of images");
    golden_case_close(&c);
}

/* The mean of many draws, tensor by tensor, within 5 of its standard errors. */
static void test_mean(void **state) {
    (void)state;
    golden_case c = {.name = "llama/gqa"};
    golden_case_open(&c, test_comm.size, 1000);
    int tensors = dpt_model_catalog(c.f.model)->count;
    double *one = calloc((size_t)(3 * tensors), sizeof *one);
    double *sum = one + tensors, *squares = sum + tensors;
    for (int r = 0; r < DRAWS; r++) {
        draw(&c, (uint64_t)r, "mean", one);
        for (int k = 0; k < tensors; k++) {
            sum[k] += one[k];
            squares[k] += one[k] * one[k];
        }
    }
    for (int k = 0; k < tensors; k++) {
        const curvature_row *row = golden_row(&c, k);
        double mean = sum[k] / DRAWS;
        double se = sqrt((squares[k] / DRAWS - mean * mean) / (DRAWS - 1));
        assert_true(se < 0.2 * mean);
        if (fabs(mean - row->exact[0]) > 5.0 * se)
            fail_msg("%s: %.6g +- %.2g in place of %.6g", row->tensor, mean, se, row->exact[0]);
    }
    free(one);
    golden_case_close(&c);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_draw),
        cmocka_unit_test(test_labels),
        cmocka_unit_test(test_mean),
    };
    return test_mpi_main(argc, argv, tests);
}
