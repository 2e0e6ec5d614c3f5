/* ranks: 1 2 3 4 */
/* seconds: 300 */
/* A gradient in the cells of their owners has the values of dpt_model_gradient_range, to the bit: blocks of rows and of
 * columns, tensors that lie turned or interleaved, partial sums of several ranks; on one machine and on several. */
#include "support/test_mpi.h"
#include "support/fault.h"

#include "model/model_golden.h"

#include <stdlib.h>

enum { CUTS = 3 }; /* one machine, machines of one rank, of two */

static const struct {
    const char *name;
    bool images;
} cases[] = {{"tied", false},
             {"gqa", false},
             {"gpt2/tied", false},
             {"gpt_oss/plain", false},
             {"qwen3_moe/fused", false},
             {"vit", true}};
enum { CASES = sizeof cases / sizeof cases[0] };

typedef struct cells_fixture {
    model_fixture f;
    dpt_catalog catalog; /* of the gradient */
    dpt_shard shard;
    dpt_field *field;
    dpt_model_gradient *gradient;
} cells_fixture;

static void cells_open(cells_fixture *c, int which, int group) {
    model_fixture *f = &c->f;
    model_fixture_open(f, cases[which].name, cases[which].images, group);
    assert_int_equal(dpt_catalog_copy(&f->g->post.catalog, &c->catalog), DPT_OK);
    for (int t = 0; t < c->catalog.count; t++)
        c->catalog.tensors[t].dtype = DPT_F32;
    assert_int_equal(dpt_shard_create(&c->catalog, test_comm.size, &c->shard), DPT_OK);
    assert_int_equal(dpt_field_create(&test_comm, &c->catalog, &c->shard, &c->field), DPT_OK);
    assert_int_equal(dpt_model_gradient_create(f->model, &c->gradient), DPT_OK);
    assert_int_equal(dpt_model_gradient_begin(f->model, c->gradient), DPT_OK);
    model_fixture_run(f, 0.0, DPT_BACKWARD_GRADIENT, 1.0 / (double)f->g->samples, NULL,
                      c->gradient);
    assert_int_equal(dpt_model_rest(f->model, DPT_OK), DPT_OK);
}

static void cells_close(cells_fixture *c) {
    dpt_model_gradient_destroy(c->gradient);
    dpt_field_destroy(c->field);
    dpt_shard_destroy(&c->shard);
    dpt_catalog_destroy(&c->catalog);
    model_fixture_close(&c->f);
}

static void cells_fill(cells_fixture *c, float value) {
    for (int64_t k = c->shard.rank_first[test_comm.rank];
         k < c->shard.rank_first[test_comm.rank + 1]; k++) {
        float *cell = dpt_field_cell(c->field, k);
        for (int64_t i = 0; i < dpt_shard_cell(&c->shard, k).n; i++)
            cell[i] = value;
    }
}

/* What lies in the cells of this rank. @return whether any of it is not zero. */
static bool cells_check(cells_fixture *c) {
    bool any = false;
    for (int64_t k = 0; k < c->shard.cells; k++) {
        dpt_range cell = dpt_shard_cell(&c->shard, k);
        float *wanted = malloc((size_t)cell.n * sizeof *wanted);
        assert_int_equal(dpt_model_gradient_range(c->f.model, c->gradient, cell, wanted), DPT_OK);
        const float *found = dpt_field_cell(c->field, k);
        for (int64_t i = 0; found != NULL && i < cell.n; i++) {
            if (found[i] != wanted[i])
                fail_msg("%s: %s: element %d is %g in place of %g", c->f.name,
                         c->catalog.tensors[cell.tensor].name, (int)(cell.ig + i), (double)found[i],
                         (double)wanted[i]);
            any = any || found[i] != 0.0F;
        }
        free(wanted);
    }
    return any;
}

static void test_values(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++)
        for (int group = 1; group <= test_comm.size; group++)
            for (int cut = 0; cut < CUTS && test_comm.size % group == 0; cut++) {
                cells_fixture c;
                char text[16];
                snprintf(text, sizeof text, "%d", cut);
                setenv("DPT_MACHINE_RANKS", text, 1);
                cells_open(&c, i, group);
                int64_t before = dpt_mem_in_use();
                cells_fill(&c, 77.0F); /* each element is written */
                assert_int_equal(
                    dpt_model_gradient_write(c.f.model, c.gradient, dpt_field_sink(c.field)),
                    DPT_OK);
                assert_int_equal(dpt_mem_in_use(), before);
                int64_t any = cells_check(&c);
                assert_int_equal(dpt_comm_max_i64(&test_comm, &any, 1), DPT_OK);
                assert_true(any);
                cells_close(&c);
            }
    setenv("DPT_MACHINE_RANKS", "0", 1);
}

/* A rank without memory for its lists ends all of them. */
static void test_memory(void **state) {
    (void)state;
    cells_fixture c;
    cells_open(&c, 1, 1);
    if (test_comm.rank == test_comm.size - 1)
        dpt_mem_set_budget(dpt_mem_in_use() + 1);
    assert_int_equal(dpt_model_gradient_write(c.f.model, c.gradient, dpt_field_sink(c.field)),
                     DPT_ERR_OUTPUT);
    dpt_mem_set_budget(0);
    dpt_error_clear();
    cells_close(&c);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_values),
                                       cmocka_unit_test(test_memory)};
    return test_mpi_main(argc, argv, tests);
}
