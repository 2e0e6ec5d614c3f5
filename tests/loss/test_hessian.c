/* ranks: 1 2 3 4 */
/* Second derivatives along E, along E with random signs and of blocks of tensors, by central differences of slopes, against
 * automatic differentiation in torch: tensor by tensor at every mesh. On a model whose whole Hessian is known the mean
 * and the variance over signs are those that the law of random edits takes. */
#include "support/test_mpi.h"

#include "deltapath/path/central.h"
#include "golden/hessian_golden.h"
#include "loss/loss_images.h"

enum { ROWS = sizeof hessian_golden / sizeof hessian_golden[0], PROBES = 400 };

static dpt_status slope(void *ctx, double t, double *loss, double *terms, double *sample_terms) {
    golden_case *c = ctx;
    return dpt_loss_evaluate(c->f.loss, &c->f.mesh, c->f.model, t, DPT_BACKWARD_TERMS, loss, NULL,
                             terms, sample_terms, NULL);
}

static dpt_oracle oracle_of(golden_case *c) {
    return (dpt_oracle){.ctx = c,
                        .samples = c->in.g.samples,
                        .terms = dpt_model_catalog(c->f.model)->count,
                        .slope = slope};
}

static const hessian_row *golden_row(const golden_case *c, int k) {
    const char *name = dpt_model_catalog(c->f.model)->tensors[k].name;
    for (int i = 0; i < ROWS; i++)
        if (strcmp(hessian_golden[i].model, c->name) == 0 &&
            strcmp(hessian_golden[i].tensor, name) == 0)
            return &hessian_golden[i];
    fail_msg("%s: no golden number of %s", c->name, name);
    return NULL;
}

typedef const double *(*column_fn)(const hessian_row *row);

static const double *column_edit(const hessian_row *row) {
    return row->edit;
}

static const double *column_signs(const hessian_row *row) {
    return row->signs;
}

static const double *column_block(const hessian_row *row) {
    return row->block;
}

/* One direction, whose error bar has to be true as well. */
static void check_direction(golden_case *c, int weighted, const dpt_model_direction *direction,
                            column_fn column) {
    dpt_central central;
    dpt_oracle oracle = oracle_of(c);
    assert_int_equal(dpt_model_set_direction(c->f.model, direction), DPT_OK);
    assert_int_equal(dpt_central_run(&test_comm, &oracle, 0.5, &central), DPT_OK);
    double total = 0.0, size = 0.0;
    for (int64_t k = 0; k < oracle.terms; k++) {
        double golden = column(golden_row(c, (int)k))[weighted];
        total += golden;
        size += fabs(golden);
    }
    for (int64_t k = 0; k < oracle.terms; k++) {
        const hessian_row *row = golden_row(c, (int)k);
        double off = fabs(central.derivative[k] / 2.0 - column(row)[weighted]);
        if (!(off <= 1e-3 * size))
            fail_msg("%s %s: %.9g in place of %.9g", c->name, row->tensor,
                     central.derivative[k] / 2.0, column(row)[weighted]);
    }
    if (!(fabs(central.total / 2.0 - total) <= 1.5 * central.error && central.error < 0.02 * size))
        fail_msg("%s: %.9g +- %.2g in place of %.9g (%.3g)", c->name, central.total / 2.0,
                 central.error / 2.0, total, size);
    dpt_central_destroy(&central);
}

static void check_case(golden_case *c, int weighted) {
    int tensors = dpt_model_catalog(c->f.model)->count;
    bool *outside = calloc((size_t)tensors, sizeof *outside);
    for (int k = 0; k < tensors; k++)
        outside[k] = strstr(dpt_model_catalog(c->f.model)->tensors[k].name, "layer.") == NULL &&
                     strstr(dpt_model_catalog(c->f.model)->tensors[k].name, "layers.") == NULL;
    const dpt_model_direction signs = {.signs = true, .seed = 7, .name = "signs 0"},
                              block = {.moves = outside};
    check_direction(c, weighted, NULL, column_edit);
    check_direction(c, weighted, &signs, column_signs);
    check_direction(c, weighted, &block, column_block);
    free(outside);
}

static void test_directions(void **state) {
    (void)state;
    static const char *const names[] = {"llama/gqa", "vit/vit", "vit/tiny"};
    static const double weights[] = {1.0, 0.0, 3.0, 0.5, 2.0};
    for (int m = 0; m < 3; m++)
        for (int size = 1; size <= test_comm.size; size++) {
            if (test_comm.size % size != 0)
                continue;
            golden_case c = {.name = names[m]};
            golden_case_open(&c, size, 1000);
            check_case(&c, 0);
            assert_int_equal(dpt_loss_set_weights(c.f.loss, weights), DPT_OK);
            check_case(&c, 1);
            golden_case_close(&c);
        }
}

/* Mean and variance of 1/2 z^T D H D z over many z, and each tensor's mean. */
static void test_signs(void **state) {
    (void)state;
    golden_case c = {.name = "vit/tiny"};
    golden_case_open(&c, 1, 1000);
    int tensors = dpt_model_catalog(c.f.model)->count;
    double *one = calloc((size_t)(3 * tensors), sizeof *one);
    double *sum = one + tensors, *squares = sum + tensors, total = 0.0, second = 0.0, exact = 0.0;
    dpt_oracle oracle = oracle_of(&c);
    for (int r = 0; r < PROBES; r++) {
        char name[32];
        snprintf(name, sizeof name, "signs %d", r);
        dpt_model_direction direction = {.signs = true, .seed = 3, .name = name};
        double probe = 0.0;
        assert_int_equal(dpt_model_set_direction(c.f.model, &direction), DPT_OK);
        assert_int_equal(dpt_central_step(&test_comm, &oracle, 0.25, one), DPT_OK);
        for (int k = 0; k < tensors; k++) {
            double value = one[k] / 2.0;
            sum[k] += value;
            squares[k] += value * value;
            probe += value;
        }
        total += probe;
        second += probe * probe;
    }
    for (int k = 0; k < tensors; k++) {
        double mean = sum[k] / PROBES,
               se = sqrt((squares[k] / PROBES - mean * mean) / (PROBES - 1));
        exact += hessian_exact[k];
        if (!(fabs(mean - hessian_exact[k]) < 5.0 * se))
            fail_msg("%s: %.6g +- %.2g in place of %.6g", golden_row(&c, k)->tensor, mean, se,
                     hessian_exact[k]);
    }
    double mean = total / PROBES, variance = (second - PROBES * mean * mean) / (PROBES - 1);
    assert_true(fabs(mean - exact) < 5.0 * sqrt(variance / PROBES));
    if (!(fabs(variance / hessian_spread - 1.0) < 0.25))
        fail_msg("variance %.6g in place of %.6g", variance, hessian_spread);
    free(one);
    golden_case_close(&c);
}

static void terms_at(golden_case *c, double t, double *terms) {
    assert_int_equal(slope(c, t, c->f.losses, terms, c->f.sample_terms), DPT_OK);
}

/* A direction ends with NULL and with the next edit; where nothing moves the losses are those of W_post. */
static void test_ends(void **state) {
    (void)state;
    golden_case c = {.name = "vit/tiny"};
    golden_case_open(&c, test_comm.size, 1000);
    size_t tensors = (size_t)dpt_model_catalog(c.f.model)->count;
    double *plain = calloc(2 * tensors, sizeof *plain), *again = plain + tensors;
    bool *none = calloc(tensors, sizeof *none);
    const dpt_model_direction signs = {.moves = none, .signs = true, .seed = 7, .name = "signs 0"};
    dpt_source edited = memory_source(&c.in.g.edited);
    terms_at(&c, 0.5, plain);
    assert_int_equal(dpt_model_set_direction(c.f.model, &signs), DPT_OK);
    terms_at(&c, 1.0, again);
    loss_near(c.f.losses[0], c.in.g.loss[0], c.in.g.loss[0], "loss where nothing moves");
    assert_int_equal(dpt_model_set_direction(c.f.model, NULL), DPT_OK);
    terms_at(&c, 0.5, again);
    assert_memory_equal(plain, again, tensors * sizeof *plain);
    assert_int_equal(dpt_model_set_direction(c.f.model, &signs), DPT_OK);
    assert_int_equal(dpt_model_bind_edit(c.f.model, &edited), DPT_OK);
    terms_at(&c, 0.5, again);
    assert_memory_equal(plain, again, tensors * sizeof *plain);
    free(none);
    free(plain);
    golden_case_close(&c);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_directions),
        cmocka_unit_test(test_signs),
        cmocka_unit_test(test_ends),
    };
    return test_mpi_main(argc, argv, tests);
}
