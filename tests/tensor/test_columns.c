/* ranks: 1 2 3 4 */
#include "support/test_mpi.h"

#include "deltapath/tensor/columns.h"

#include <stdlib.h>

/* More rows than the ranks of this test read in one round, and odd. */
enum { COLUMNS_ROWS = 5003, COLUMNS_WIDTH = 1031 };

/* A matrix whose elements are their numbers, read by every rank for itself. */
typedef struct numbers {
    dpt_catalog catalog;
    int64_t fetched; /* elements */
    int failing;     /* rank whose fetch fails; -1: none */
} numbers;

static dpt_status numbers_fetch(void *ctx, int64_t count, const dpt_block *wants,
                                void *const *outs) {
    numbers *m = ctx;
    for (int64_t i = 0; i < count; i++) {
        const dpt_block *want = &wants[i];
        assert_true(want->cols == COLUMNS_WIDTH && want->stride == COLUMNS_WIDTH);
        for (int64_t k = 0; k < want->rows * want->cols; k++)
            ((int32_t *)outs[i])[k] = (int32_t)(want->ig + k);
        m->fetched += want->rows * want->cols;
    }
    return m->failing == test_comm.rank ? dpt_error(DPT_ERR_INPUT, "numbers: no") : DPT_OK;
}

static dpt_source numbers_source(numbers *m) {
    static const int64_t shape[] = {COLUMNS_ROWS, COLUMNS_WIDTH};
    *m = (numbers){.failing = -1};
    dpt_catalog_init(&m->catalog);
    assert_int_equal(dpt_catalog_add(&m->catalog, "m", DPT_I32, 2, shape), DPT_OK);
    return (dpt_source){
        .ctx = m, .catalog = &m->catalog, .independent = true, .fetch = numbers_fetch};
}

/* Every rank gets its columns, which may meet those of others or be none, and each row is read once. */
static void test_columns_of_ranks(void **state) {
    (void)state;
    numbers m;
    dpt_source source = numbers_source(&m);
    int64_t share = COLUMNS_WIDTH / test_comm.size;
    for (int last_has_none = 0; last_has_none < 2; last_has_none++) {
        int64_t begin = test_comm.rank * share, n = share + (test_comm.rank % 2);
        n = n > COLUMNS_WIDTH - begin ? COLUMNS_WIDTH - begin : n;
        if (last_has_none && test_comm.rank == test_comm.size - 1)
            n = 0;
        int32_t *out = malloc((size_t)(COLUMNS_ROWS * n + 1) * sizeof *out);
        dpt_block want = {.ig = begin, .rows = COLUMNS_ROWS, .cols = n, .stride = COLUMNS_WIDTH};
        m.fetched = 0;
        assert_int_equal(dpt_columns_fetch(&test_comm, &source, &want, n > 0 ? out : NULL), DPT_OK);
        for (int64_t i = 0; i < COLUMNS_ROWS * n; i++)
            assert_int_equal(out[i], i / n * COLUMNS_WIDTH + begin + i % n);
        free(out);
        assert_int_equal(dpt_comm_sum_i64(&test_comm, &m.fetched, 1), DPT_OK);
        assert_int_equal(m.fetched, COLUMNS_ROWS * COLUMNS_WIDTH);
    }
    dpt_catalog_destroy(&m.catalog);
}

/* A rank that cannot read, or has no memory, ends in the same status on all. */
static void test_failures(void **state) {
    (void)state;
    numbers m;
    dpt_source source = numbers_source(&m);
    int32_t *out = malloc(COLUMNS_ROWS * sizeof *out);
    dpt_block want = {
        .ig = test_comm.rank, .rows = COLUMNS_ROWS, .cols = 1, .stride = COLUMNS_WIDTH};
    for (int i = 0; i < 2; i++) {
        m.failing = i == 0 ? 0 : test_comm.size - 1;
        assert_int_equal(dpt_columns_fetch(&test_comm, &source, &want, out), DPT_ERR_INPUT);
        test_error_says("numbers: no");
    }
    m.failing = -1;
    if (test_comm.rank == test_comm.size - 1)
        dpt_mem_set_budget(dpt_mem_in_use() + 1000);
    assert_int_equal(dpt_columns_fetch(&test_comm, &source, &want, out), DPT_ERR_OUTPUT);
    dpt_mem_set_budget(0);
    dpt_error_clear();
    assert_int_equal(dpt_columns_fetch(&test_comm, &source, &want, out), DPT_OK);
    free(out);
    dpt_catalog_destroy(&m.catalog);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_columns_of_ranks),
                                       cmocka_unit_test(test_failures)};
    return test_mpi_main(argc, argv, tests);
}
