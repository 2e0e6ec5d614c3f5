/* ranks: 1 2 3 4 */
/* Models whose replicas hold a share each, on one machine and on several, which the environment makes of one. */
#include "support/test_mpi.h"
#include "support/fault.h"

#include "model/model_golden.h"

#include "../src/model/transformer.h"

#include <stdlib.h>

enum { CUTS = 3 }; /* one machine, machines of one rank, of two */

static void shares_cut(int ranks_a_machine) {
    char text[16];
    snprintf(text, sizeof text, "%d", ranks_a_machine);
    setenv("DPT_MACHINE_RANKS", text, 1);
}

static int shares_machines(int ranks_a_machine) {
    return ranks_a_machine == 0 ? 1 : (test_comm.size + ranks_a_machine - 1) / ranks_a_machine;
}

static void test_machines(void **state) {
    (void)state;
    for (int cut = 0; cut < CUTS; cut++) {
        dpt_comm machine;
        int machines, ranks = cut == 0 ? test_comm.size : cut;
        shares_cut(cut);
        assert_int_equal(dpt_comm_count_machines(&test_comm, &machines), DPT_OK);
        assert_int_equal(machines, shares_machines(cut));
        assert_int_equal(dpt_comm_split_machines(&test_comm, &machine), DPT_OK);
        assert_int_equal(machine.rank, test_comm.rank % ranks);
        dpt_comm_destroy(&machine);
    }
    shares_cut(0);
}

/* Ranks that cannot map what another makes are machines of their own, and the model is the same. */
static void test_apart(void **state) {
    (void)state;
    int machines;
    model_fixture f;
    fault_set("shared.map", 1);
    assert_int_equal(dpt_comm_count_machines(&test_comm, &machines), DPT_OK);
    assert_int_equal(machines, test_comm.size);
    fault_clear();
    fault_set("shared.map", 0);
    model_fixture_open(&f, "odd", false, 1);
    fault_clear();
    assert_true(dpt_model_is_together(f.model) == (test_comm.size > 1));
    model_check_losses(&f);
    model_check_terms(&f);
    model_fixture_close(&f);
}

/* What each rank writes into its part is read by all; over the budget of one rank none has it. */
static void test_shared_memory(void **state) {
    (void)state;
    int64_t before = dpt_mem_in_use(), n = 1000;
    dpt_shared shared;
    assert_int_equal(dpt_shared_create(&test_comm, n * 8, "numbers", &shared), DPT_OK);
    int64_t *number = shared.base, begin, end;
    dpt_shard_split(n, test_comm.size, test_comm.rank, &begin, &end);
    for (int64_t i = begin; i < end; i++)
        number[i] = 3 * i;
    dpt_shared_sync(&test_comm, &shared);
    for (int64_t i = 0; i < n; i++)
        assert_int_equal(number[i], 3 * i);
    int64_t counted = dpt_mem_in_use() - before;
    assert_int_equal(dpt_comm_sum_i64(&test_comm, &counted, 1), DPT_OK);
    assert_in_range(counted, n * 8, n * 8 + 64 * test_comm.size + 64);
    dpt_shared_sync(&test_comm, &shared);
    dpt_shared_destroy(&shared);
    assert_int_equal(dpt_mem_in_use(), before);
    if (test_comm.rank == 0)
        dpt_mem_set_budget(before + 1);
    assert_int_equal(dpt_shared_create(&test_comm, n * 8, "numbers", &shared), DPT_ERR_OUTPUT);
    dpt_mem_set_budget(0);
    assert_null(shared.base);
    assert_int_equal(dpt_mem_in_use(), before);
    dpt_error_clear();
}

/* A fixture with so many tensor-parallel ranks a replica. @return false when they do not divide the ranks. */
static bool shares_open(model_fixture *f, const char *name, bool images, int group, int cut) {
    if (test_comm.size % group != 0)
        return false;
    shares_cut(cut);
    model_fixture_open(f, name, images, group);
    assert_true(dpt_model_is_together(f->model) ==
                (shares_machines(cut) > 1 && f->mesh.data.size > 1));
    return true;
}

static void test_golden(void **state) {
    (void)state;
    static const struct {
        const char *name;
        bool images;
    } cases[] = {{"tied", false}, {"odd", false}, {"qwen3_moe/fused", false}, {"vit", true}};
    model_fixture f;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int group = 1; group <= test_comm.size; group++)
            for (int cut = 0; cut < CUTS; cut++) {
                if (!shares_open(&f, cases[i].name, cases[i].images, group, cut))
                    continue;
                model_check_losses(&f);
                model_check_terms(&f);
                model_check_gradient(&f);
                model_fixture_close(&f);
            }
    shares_cut(0);
}

/* The replicas together hold the blocks once: what a rank has counted falls with their number. */
static void test_held(void **state) {
    (void)state;
    model_fixture f;
    for (int cut = 0; cut < 2; cut++) {
        shares_open(&f, "tied", false, 1, cut);
        const dpt_shares *shares = f.model->params.shares;
        for (int values = 0; values < DPT_VALUES; values++) {
            const dpt_shared *held = &shares->held[values];
            int64_t all = 4 * dpt_catalog_elements(&f.g->post.catalog);
            int64_t total = held->mapped ? held->own : held->bytes;
            assert_int_equal(dpt_comm_sum_i64(&test_comm, &total, 1), DPT_OK);
            assert_in_range(total, all, all + 64 * 64 * test_comm.size);
        }
        model_fixture_close(&f);
    }
    shares_cut(0);
}

/* Replicas that run a different number of batches of different kinds. */
static void test_uneven(void **state) {
    (void)state;
    model_fixture f;
    for (int cut = 0; cut < CUTS; cut++) {
        shares_open(&f, "odd", false, 1, cut);
        double wanted = model_mean_loss(&f, 0.0);
        assert_int_equal(dpt_model_rest(f.model, DPT_OK), DPT_OK);
        for (int run = 0; run < test_comm.rank; run++) {
            bool terms = (run + test_comm.rank) % 2 == 0;
            double got = 0.0;
            model_fixture_run(&f, terms ? 0.5 : 0.0, terms ? DPT_BACKWARD_TERMS : DPT_BACKWARD_NONE,
                              1.0, NULL, NULL);
            for (int64_t s = 0; s < f.g->samples; s++)
                got += model_sample_loss(&f, s) / (double)f.g->samples;
            assert_true(terms || fabs(got - wanted) <= 1e-6 * wanted);
        }
        assert_int_equal(dpt_model_rest(f.model, DPT_OK), DPT_OK);
        model_check_terms(&f);
        assert_int_equal(dpt_model_rest(f.model, DPT_OK), DPT_OK);
        model_fixture_close(&f);
    }
    shares_cut(0);
}

/* One replica cannot run its second batch, another has no more: all end with the failure, and go on afterwards. */
static void test_failing_run(void **state) {
    (void)state;
    model_fixture f;
    for (int cut = 0; cut < CUTS; cut++) {
        shares_open(&f, "odd", false, 1, cut);
        bool together = dpt_model_is_together(f.model), mine = test_comm.rank == test_comm.size - 1;
        dpt_status st = DPT_OK;
        fault_set("none", 0); /* passes are counted anew after another request */
        (void)dpt_agree_fault("none");
        dpt_error_clear();
        fault_set("model.run", 1);
        for (int run = 0; run <= test_comm.rank && st == DPT_OK; run++)
            st = dpt_model_run(f.model, &f.batch, 0.0, DPT_BACKWARD_NONE, NULL, f.nll, NULL, NULL,
                               NULL);
        fault_clear();
        st = dpt_model_rest(f.model, st);
        assert_int_equal(st, mine || together ? DPT_ERR_OUTPUT : DPT_OK);
        dpt_error_clear();
        assert_int_equal(
            dpt_model_rest(f.model, mine ? dpt_error(DPT_ERR_INPUT, "no batch") : DPT_OK),
            mine || together ? DPT_ERR_INPUT : DPT_OK);
        dpt_error_clear();
        model_check_losses(&f);
        assert_int_equal(dpt_model_rest(f.model, DPT_OK), DPT_OK);
        model_fixture_close(&f);
    }
    shares_cut(0);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_machines),      cmocka_unit_test(test_apart),
        cmocka_unit_test(test_shared_memory), cmocka_unit_test(test_golden),
        cmocka_unit_test(test_held),          cmocka_unit_test(test_uneven),
        cmocka_unit_test(test_failing_run),
    };
    return test_mpi_main(argc, argv, tests);
}
