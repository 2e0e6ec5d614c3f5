/* ranks: 1 2 3 4 */
#include "store_again.h"

#include "deltapath/base/traffic.h"

/* Tensors of HDF5 that all ranks read together: the same bytes, each once, and then from memory. */

/* Own cells, and whether they came from memory. */
static void check_cells(dpt_store *store, const dpt_shard *shard, const bool *held) {
    const dpt_catalog *catalog = shard->catalog;
    dpt_source source = dpt_store_source(store);
    for (int64_t c = shard->rank_first[test_comm.rank]; c < shard->rank_first[test_comm.rank + 1];
         c++) {
        dpt_range cell = dpt_shard_cell(shard, c);
        size_t bytes = (size_t)(cell.n * dpt_dtype_size(catalog->tensors[cell.tensor].dtype));
        unsigned char *want = malloc(bytes), *have = malloc(bytes);
        models_fill(catalog, cell, want);
        int64_t before = dpt_file_counted().read;
        assert_int_equal(source.read(source.ctx, cell, have), DPT_OK);
        assert_int_equal(dpt_file_counted().read - before, held[cell.tensor] ? 0 : bytes);
        assert_memory_equal(want, have, bytes);
        free(want);
        free(have);
    }
}

/* A model is read by all ranks together, but for every fourth tensor. */
static void check_together(const dpt_catalog *catalog, const char *path, dpt_store_reading how,
                           const char *label) {
    bool wanted[64], held[64];
    dpt_store *store = NULL;
    dpt_shard shard;
    dpt_store_hold_needs needs;
    int64_t sum = 0;
    assert_int_equal(dpt_shard_create(catalog, test_comm.size, &shard), DPT_OK);
    assert_int_equal(dpt_store_open(&test_comm, path, &store), DPT_OK);
    for (int t = 0; t < catalog->count; t++) {
        wanted[t] = t % 4 != 3;
        held[t] = wanted[t] && dpt_store_holds(store, how, catalog, NULL, t);
        sum += held[t] ? catalog->tensors[t].numel * dpt_dtype_size(catalog->tensors[t].dtype) : 0;
    }
    const dpt_store_holding what = {.how = how, .shard = &shard, .wanted = wanted};
    assert_int_equal(dpt_store_hold_bytes(store, &what, &needs), DPT_OK);
    assert_int_equal(needs.read, sum);
    int64_t before = dpt_file_counted().read;
    dpt_status st = dpt_store_hold(store, &test_comm, &what);
    if (st != DPT_OK)
        fail_msg("%s: %s", label, dpt_error_message());
    int64_t taken = dpt_file_counted().read - before;
    MPI_Allreduce(MPI_IN_PLACE, &taken, 1, MPI_INT64_T, MPI_SUM, test_comm.mpi);
    assert_int_equal(taken, sum); /* each element once */
    if (how == DPT_STORE_TOGETHER)
        assert_true(sum > LARGE);
    check_cells(store, &shard, held);
    check_runs(catalog, store);
    dpt_store_close(store);
    dpt_shard_destroy(&shard);
}

static void test_together(void **state) {
    (void)state;
    dpt_catalog catalog;
    char plain[512], path[512];
    begin(&catalog, plain, sizeof plain);
    for (int how = DPT_STORE_ALONE; how <= DPT_STORE_TOGETHER; how++)
        check_together(&catalog, plain, (dpt_store_reading)how, "contiguous");
    for (int i = 0; i < WAYS; i++) {
        snprintf(path, sizeof path, "%s/together-%d.h5", models_root, i);
        store_again(&catalog, plain, path, &ways[i]);
        check_together(&catalog, path, DPT_STORE_CHUNKS, ways[i].label);
        check_together(&catalog, path, DPT_STORE_TOGETHER, ways[i].label);
    }
    dpt_catalog_destroy(&catalog);
}

/* More than one round, in the last of which ranks have nothing: three runs of a tensor, and next to it one that has one. */
static void test_rounds(void **state) {
    (void)state;
    const storing how = {.label = "rounds", .side = 1000, .deflate = true};
    const int64_t wide[] = {9001, 1201}, one[] = {70};
    dpt_store_options options = {.format = DPT_STORE_HDF5};
    dpt_catalog catalog;
    const char *plain = models_path("plain.h5"), *path = models_path("rounds.h5");
    dpt_catalog_init(&catalog);
    assert_int_equal(dpt_catalog_add(&catalog, "one", DPT_F32, 1, one), DPT_OK);
    assert_int_equal(dpt_catalog_add(&catalog, "wide", DPT_F32, 2, wide), DPT_OK);
    assert_int_equal(models_write(&catalog, plain, &options), DPT_OK);
    store_again(&catalog, plain, path, &how);
    check_together(&catalog, plain, DPT_STORE_TOGETHER, "contiguous rounds");
    check_together(&catalog, path, DPT_STORE_CHUNKS, how.label);
    dpt_catalog_destroy(&catalog);
}

/* One rank finds a damage: all hear of it. */
static void check_together_fails(const dpt_catalog *catalog, const char *path, const char *why) {
    bool wanted[64];
    dpt_store *store = NULL;
    dpt_shard shard;
    assert_int_equal(dpt_shard_create(catalog, test_comm.size, &shard), DPT_OK);
    assert_int_equal(dpt_store_open(&test_comm, path, &store), DPT_OK);
    for (int t = 0; t < catalog->count; t++)
        wanted[t] = true;
    const dpt_store_holding what = {.how = DPT_STORE_CHUNKS, .shard = &shard, .wanted = wanted};
    assert_int_equal(dpt_store_hold(store, &test_comm, &what), DPT_ERR_INPUT);
    if (!said(why) || strstr(dpt_error_message(), "another.big") == NULL)
        fail_msg("together: %s", dpt_error_message());
    dpt_error_clear();
    dpt_store_close(store);
    dpt_shard_destroy(&shard);
}

/* In a chunk. */
static void test_damage(void **state) {
    (void)state;
    static const storing how[] = {{.side = 64, .deflate = true}, {.side = 64, .fletcher = true}};
    static const char *const why[] = {"inflate", "Fletcher32"};
    for (int i = 0; i < 2; i++) {
        dpt_catalog catalog;
        char path[512];
        store_damaged(&catalog, path, sizeof path, &how[i]);
        check_together_fails(&catalog, path, why[i]);
        dpt_catalog_destroy(&catalog);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_together, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_rounds, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_damage, models_setup, models_teardown),
    };
    return test_mpi_main(argc, argv, tests);
}
