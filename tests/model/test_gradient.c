/* ranks: 1 2 3 4 */
/* seconds: 600 */
/* Gradients to which replicas add together, on one machine and on several, which the environment makes of one: the golden
 * ones, from batches that are uneven or empty, in the same bits again, and each sum in one order. */
#include "support/test_mpi.h"
#include "support/fault.h"

#include "model/model_golden.h"

#include "../src/model/transformer.h"

#include <stdlib.h>
#include <unistd.h>

enum { CUTS = 3 }; /* one machine, machines of one rank, of two */

static const struct {
    const char *name;
    bool images;
} cases[] = {{"tied", false}, {"odd", false}, {"qwen3_moe/fused", false}, {"vit", true}};
enum { CASES = sizeof cases / sizeof cases[0] };

static void gradient_cut(int ranks_a_machine) {
    char text[16];
    snprintf(text, sizeof text, "%d", ranks_a_machine);
    setenv("DPT_MACHINE_RANKS", text, 1);
}

/* Add the gradient of the batch with a share of each sample, or nothing. */
static void gradient_add(model_fixture *f, double share, dpt_model_gradient *gradient) {
    dpt_batch whole = f->batch;
    int64_t samples = f->g->samples, none[1] = {0};
    if (share == 0.0) {
        f->batch.sequences = 0;
        if (f->batch.images == NULL)
            f->batch.first = none;
        f->g->samples = 0;
    }
    model_fixture_run(f, 0.0, DPT_BACKWARD_GRADIENT, share, NULL, gradient);
    f->batch = whole;
    f->g->samples = samples;
}

/* Half of it from all replicas, then half from the last one, while the others have nothing. */
static void gradient_take(model_fixture *f, dpt_model_gradient *gradient) {
    double all = 0.5 / (double)f->g->samples;
    bool last = f->mesh.data.rank == f->mesh.data.size - 1;
    assert_int_equal(dpt_model_gradient_begin(f->model, gradient), DPT_OK);
    assert_true(dpt_model_is_together(f->model) == (f->mesh.data.size > 1));
    gradient_add(f, all / f->mesh.data.size, gradient);
    gradient_add(f, last ? all : 0.0, gradient);
    assert_int_equal(dpt_model_rest(f->model, DPT_OK), DPT_OK);
}

static void gradient_check_same(const dpt_model_gradient *a, const dpt_model_gradient *b) {
    for (int i = 0; i < dpt_model_gradient_count(a); i++) {
        int64_t n, m;
        const float *one = dpt_model_gradient_rows(a, i, &n);
        const float *other = dpt_model_gradient_rows(b, i, &m);
        assert_int_equal(n, m);
        assert_true(n == 0 || memcmp(one, other, (size_t)n * sizeof *one) == 0);
    }
}

static void gradient_check_case(model_fixture *f) {
    dpt_model_gradient *first, *again;
    assert_int_equal(dpt_model_gradient_create(f->model, &first), DPT_OK);
    assert_int_equal(dpt_model_gradient_create(f->model, &again), DPT_OK);
    gradient_take(f, first);
    for (int k = 0; k < f->g->post.catalog.count; k++)
        model_check_tensor(f, first, k);
    gradient_take(f, again);
    gradient_check_same(first, again);
    dpt_model_gradient_destroy(first);
    dpt_model_gradient_destroy(again);
}

static void test_uneven(void **state) {
    (void)state;
    model_fixture f;
    for (int i = 0; i < CASES; i++)
        for (int group = 1; group <= test_comm.size; group++)
            for (int cut = 0; cut < CUTS && test_comm.size % group == 0; cut++) {
                gradient_cut(cut);
                model_fixture_open(&f, cases[i].name, cases[i].images, group);
                gradient_check_case(&f);
                model_fixture_close(&f);
            }
    gradient_cut(0);
}

/* The replicas have a gradient once between them, whatever machines they are on, and a pass leaves nothing behind. */
static void test_held(void **state) {
    (void)state;
    model_fixture f;
    for (int cut = 0; cut < CUTS; cut++) {
        dpt_model_gradient *gradient;
        gradient_cut(cut);
        model_fixture_open(&f, "odd", false, 1);
        model_fixture_run(&f, 0.5, DPT_BACKWARD_TERMS, 1.0, NULL, NULL);
        int64_t before = dpt_mem_in_use(), all = 4 * dpt_catalog_elements(&f.g->post.catalog);
        assert_int_equal(dpt_model_rest(f.model, DPT_OK), DPT_OK);
        assert_int_equal(dpt_model_gradient_create(f.model, &gradient), DPT_OK);
        int64_t taken = dpt_mem_in_use() - before, total = taken, blocks = f.model->params.count;
        assert_int_equal(dpt_comm_sum_i64(&test_comm, &total, 1), DPT_OK);
        assert_in_range(total, all, all + test_comm.size * (64 * blocks + 64 * 16));
        gradient_take(&f, gradient);
        assert_int_equal(dpt_mem_in_use() - before, taken);
        dpt_model_gradient_destroy(gradient);
        assert_int_equal(dpt_mem_in_use(), before);
        model_fixture_close(&f);
    }
    gradient_cut(0);
}

/* One replica fails before or after its second step: all end with it, and the next gradient is whole. */
static void test_failing(void **state) {
    (void)state;
    static const char *const points[] = {"model.run", "model.pass"};
    for (int i = 0; i < 2 * CUTS; i++) {
        model_fixture f;
        dpt_model_gradient *gradient;
        gradient_cut(i / 2);
        model_fixture_open(&f, "odd", false, 1);
        double share = 1.0 / (double)f.g->samples / f.mesh.data.size;
        assert_int_equal(dpt_model_gradient_create(f.model, &gradient), DPT_OK);
        assert_int_equal(dpt_model_gradient_begin(f.model, gradient), DPT_OK);
        gradient_add(&f, share, gradient);
        fault_set("none", 0); /* passes are counted anew after another request */
        (void)dpt_agree_fault("none");
        dpt_error_clear();
        fault_set(points[i % 2], 1);
        dpt_status st = dpt_model_run(f.model, &f.batch, 0.0, DPT_BACKWARD_GRADIENT, f.weight,
                                      f.nll, NULL, NULL, gradient);
        fault_clear();
        assert_int_equal(st, DPT_ERR_OUTPUT);
        assert_int_equal(dpt_model_rest(f.model, st), DPT_ERR_OUTPUT);
        dpt_error_clear();
        dpt_model_gradient_destroy(gradient);
        gradient_check_case(&f);
        model_fixture_close(&f);
    }
    gradient_cut(0);
}

/* Over the budget of one rank none has a gradient; and replicas do not add to one that they have not begun. */
static void test_refused(void **state) {
    (void)state;
    model_fixture f;
    dpt_model_gradient *gradient;
    model_fixture_open(&f, "odd", false, 1);
    if (test_comm.rank == test_comm.size - 1)
        dpt_mem_set_budget(dpt_mem_in_use() + 1);
    assert_int_equal(dpt_model_gradient_create(f.model, &gradient), DPT_ERR_OUTPUT);
    dpt_mem_set_budget(0);
    assert_null(gradient);
    dpt_error_clear();
    assert_int_equal(dpt_model_gradient_create(f.model, &gradient), DPT_OK);
    free(f.weight);
    f.weight = golden_weights(f.g, 1.0);
    dpt_status st = dpt_model_run(f.model, &f.batch, 0.0, DPT_BACKWARD_GRADIENT, f.weight, f.nll,
                                  NULL, NULL, gradient);
    assert_int_equal(st, test_comm.size > 1 ? DPT_ERR_INTERNAL : DPT_OK);
    dpt_error_clear();
    dpt_model_gradient_destroy(gradient);
    model_fixture_close(&f);
}

/* How often a rank adds to a block in a step. */
static int order_visits(int rank, int step, int block) {
    return (rank * 7 + step * 5 + block * 3) % 4;
}

/* An operation that does not commute. */
static float order_apply(float value, int rank, int visit) {
    return 0.5F * value + (float)(4 * rank + visit + 1);
}

/* Visits go by number, then by rank, however often each rank comes and however long it takes. */
static void test_order(void **state) {
    (void)state;
    enum { STEPS = 3, BLOCKS = 6 };
    model_fixture f;
    dpt_model_gradient *gradient;
    gradient_cut(0);
    model_fixture_open(&f, "tied", false, 1);
    assert_int_equal(dpt_model_gradient_create(f.model, &gradient), DPT_OK);
    assert_int_equal(dpt_model_gradient_begin(f.model, gradient), DPT_OK);
    for (int step = 0; step < STEPS && test_comm.size > 1; step++) {
        for (int block = 0; block < BLOCKS; block++) {
            for (int v = 0; v < order_visits(test_comm.rank, step, block); v++) {
                dpt_gradient_visit visit =
                    dpt_gradient_visit_block(gradient, block, DPT_GRADIENT_PLAIN);
                usleep((useconds_t)((test_comm.rank * 13 + v * 7 + block) % 5) * 300);
                dpt_gradient_wait(&visit, 0);
                float *value = gradient->to[block];
                *value = order_apply(*value, test_comm.rank, v);
                dpt_gradient_visited(&visit);
            }
            dpt_gradient_finish(gradient, block);
        }
        for (int i = BLOCKS; i <= gradient->count; i++)
            dpt_gradient_finish(gradient, i);
        dpt_gradient_next(gradient);
        assert_int_equal(MPI_Barrier(test_comm.mpi), MPI_SUCCESS);
    }
    for (int block = 0; block < BLOCKS && test_comm.size > 1; block++) {
        float wanted = 0.0F;
        for (int step = 0; step < STEPS; step++)
            for (int v = 0; v < 4; v++)
                for (int r = 0; r < test_comm.size; r++)
                    if (v < order_visits(r, step, block))
                        wanted = order_apply(wanted, r, v);
        assert_true(*gradient->to[block] == wanted);
    }
    assert_int_equal(dpt_model_rest(f.model, DPT_OK), DPT_OK);
    dpt_model_gradient_destroy(gradient);
    model_fixture_close(&f);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uneven),  cmocka_unit_test(test_held),
        cmocka_unit_test(test_failing), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_order),
    };
    return test_mpi_main(argc, argv, tests);
}
