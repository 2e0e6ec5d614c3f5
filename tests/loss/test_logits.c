/* ranks: 1 2 3 4 */
/* Logits of image models against those of torch, and at the other end of a path against its losses, at every mesh and
 * batch. */
#include "support/test_mpi.h"

#include "loss/loss_images.h"

static double *golden_logits(const golden_case *c) {
    golden_model g = {.samples = 0};
    hid_t file = golden_open("vit", c->name + 4, &g);
    double *logits = golden_dataset(file, "logits", H5T_NATIVE_DOUBLE, 8);
    H5Fclose(file);
    golden_free(&g);
    return logits;
}

static double nll_of(const double *logits, int64_t classes, int32_t label) {
    double sum = 0.0;
    for (int64_t v = 0; v < classes; v++)
        sum += exp(logits[v] - logits[label]);
    return log(sum);
}

static void check_end(golden_case *c, double t, const double *golden) {
    dpt_model_image image;
    assert_true(dpt_model_get_image(c->f.model, &image));
    int64_t samples = c->in.g.samples, classes = image.classes, n = samples * classes;
    double *logits = calloc((size_t)(n + samples), sizeof *logits), *losses = logits + n;
    uint8_t *correct = calloc((size_t)samples, 1);
    assert_int_equal(
        dpt_loss_evaluate_logits(c->f.loss, &c->f.mesh, c->f.model, t, losses, correct, logits),
        DPT_OK);
    for (int64_t i = 0; i < n && golden != NULL; i++)
        loss_near(logits[i], golden[i], 1.0, c->name);
    for (int64_t s = 0; s < samples; s++) {
        const double *own = logits + s * classes;
        int32_t label = c->in.labels[s];
        double loss = t == 0.0 ? c->in.g.loss[s] : c->in.g.loss_edit[s];
        bool right = true;
        loss_near(losses[s], loss, 1.0, c->name);
        loss_near(nll_of(own, classes, label), loss, 1.0, c->name);
        for (int64_t v = 0; v < classes; v++)
            right = right && own[v] <= own[label];
        assert_int_equal(correct[s], right);
    }
    free(correct);
    free(logits);
}

static void test_logits(void **state) {
    (void)state;
    static const char *const names[] = {"vit/vit", "vit/tiny", "vit/clip"};
    for (int m = 0; m < 3; m++)
        for (int size = 1; size <= test_comm.size; size++) {
            if (test_comm.size % size != 0)
                continue;
            golden_case c = {.name = names[m]};
            golden_case_open(&c, size, size == 1 ? 1 : 1000);
            double *golden = golden_logits(&c);
            check_end(&c, 0.0, golden);
            check_end(&c, 1.0, NULL);
            free(golden);
            golden_case_close(&c);
        }
}

static void test_tokens_have_none(void **state) {
    (void)state;
    golden_case c = {.name = "llama/gqa"};
    golden_case_open(&c, test_comm.size, 1000);
    assert_int_equal(
        dpt_loss_evaluate_logits(c.f.loss, &c.f.mesh, c.f.model, 0.0, c.f.losses, NULL, NULL),
        DPT_ERR_INPUT);
    test_error_says("logits are given of the classes of images alone");
    golden_case_close(&c);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits),
        cmocka_unit_test(test_tokens_have_none),
    };
    return test_mpi_main(argc, argv, tests);
}
