/* ranks: 1 2 3 4 */
/* Curvature along E from drawn labels, against one backward pass for each entry of the vocabulary in torch: to rounding
 * at every mesh and batch for one draw, and as the mean over many. */
#include "support/test_mpi.h"
#include "support/golden_image.h"

#include "golden/curvature_golden.h"
#include "loss/loss_golden.h"

enum { ROWS = sizeof curvature_golden / sizeof curvature_golden[0], DRAWS = 40 };

typedef struct curvature_case {
    const char *name;
    bool image;
    golden_image in;
    loss_fixture f;
} curvature_case;

static dpt_status read_images(void *ctx, int64_t first, int64_t n, float *out) {
    const curvature_case *c = ctx;
    dpt_model_image image;
    dpt_model_get_image(c->f.model, &image);
    int64_t pixels = image.channels * image.height * image.width;
    memcpy(out, c->in.images + first * pixels, (size_t)(n * pixels) * sizeof *out);
    return DPT_OK;
}

static void open_case(curvature_case *c, int size, int64_t batch) {
    dpt_model_image image;
    c->image = strncmp(c->name, "vit/", 4) == 0;
    if (c->image)
        golden_image_load(c->name + 4, &c->in);
    else
        golden_load(strchr(c->name, '/') + 1, &c->in.g);
    golden_model *g = &c->in.g;
    loss_fixture_open(&c->f, g, NULL, size);
    dpt_lm_data tokens = {
        .samples = g->samples, .offsets = g->offsets, .tokens = g->token, .loss_mask = g->mask};
    if (!dpt_model_get_image(c->f.model, &image)) {
        assert_int_equal(dpt_loss_lm_create(&tokens, dpt_model_vocabulary(c->f.model),
                                            dpt_model_max_positions(c->f.model), &c->f.mesh, batch,
                                            &c->f.loss),
                         DPT_OK);
        return;
    }
    dpt_class_data images = {.samples = g->samples,
                             .channels = image.channels,
                             .height = image.height,
                             .width = image.width,
                             .labels = c->in.labels,
                             .ctx = c,
                             .read = read_images};
    assert_int_equal(dpt_loss_class_create(&images, &image, &c->f.mesh, batch, &c->f.loss), DPT_OK);
}

static void close_case(curvature_case *c) {
    loss_fixture_close(&c->f);
    if (c->image)
        golden_image_free(&c->in);
    else
        golden_free(&c->in.g);
}

/* 1/2 sum E_i^2 G_i^2 of each tensor for one draw. */
static void draw(curvature_case *c, uint64_t seed, const char *stream, double *out) {
    dpt_model_gradient *gradient;
    int tensors = dpt_model_catalog(c->f.model)->count;
    assert_int_equal(dpt_model_gradient_create(c->f.model, &gradient), DPT_OK);
    assert_int_equal(dpt_loss_evaluate_drawn(c->f.loss, &c->f.mesh, c->f.model, 0.0,
                                             dpt_rng_make(seed, stream, DPT_RNG_LABEL), c->f.losses,
                                             gradient),
                     DPT_OK);
    assert_int_equal(dpt_model_gradient_sum(gradient, &c->f.mesh.data), DPT_OK);
    assert_int_equal(dpt_model_gradient_squares(c->f.model, gradient, out), DPT_OK);
    for (int k = 0; k < tensors; k++) {
        uint64_t bits;
        memcpy(&bits, &out[k], sizeof bits);
        test_same_on_all(c->f.mesh.data.size == 1 ? bits : 0);
        out[k] /= 2.0;
    }
    dpt_model_gradient_destroy(gradient);
}

static const curvature_row *golden_row(const curvature_case *c, int k) {
    const char *name = dpt_model_catalog(c->f.model)->tensors[k].name;
    for (int i = 0; i < ROWS; i++)
        if (strcmp(curvature_golden[i].model, c->name) == 0 &&
            strcmp(curvature_golden[i].tensor, name) == 0)
            return &curvature_golden[i];
    fail_msg("%s: no golden number of %s", c->name, name);
    return NULL;
}

static void check_draw(curvature_case *c, int weighted) {
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
                curvature_case c = {.name = names[m]};
                open_case(&c, size, batches[b]);
                check_draw(&c, 0);
                assert_int_equal(dpt_loss_set_weights(c.f.loss, weights), DPT_OK);
                check_draw(&c, 1);
                close_case(&c);
            }
}

/* The mean of many draws, tensor by tensor, within 5 of its standard errors. */
static void test_mean(void **state) {
    (void)state;
    curvature_case c = {.name = "llama/gqa"};
    open_case(&c, test_comm.size, 1000);
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
    close_case(&c);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_draw),
        cmocka_unit_test(test_mean),
    };
    return test_mpi_main(argc, argv, tests);
}
