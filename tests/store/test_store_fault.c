/* ranks: 1 2 3 4 */
#include "store_models.h"

/* One rank fails at each injection point: every rank gets the same code, nobody hangs, and nothing
 * is left behind. */

static dpt_status copy_cells(dpt_store *store, dpt_store_writer *writer, const dpt_shard *shard,
                             bool scatter) {
    dpt_source source = dpt_store_source(store);
    dpt_sink sink = dpt_store_writer_sink(writer);
    unsigned char *buffer = malloc(8 * (size_t)DPT_CELL);
    dpt_status st = DPT_OK;
    int64_t maximum = 0;
    for (int r = 0; r < test_comm.size; r++) {
        int64_t cells = shard->rank_first[r + 1] - shard->rank_first[r];
        maximum = cells > maximum ? cells : maximum;
    }
    for (int64_t i = 0; i < maximum; i++) {
        int64_t cell = shard->rank_first[test_comm.rank] + i;
        bool own = cell < shard->rank_first[test_comm.rank + 1];
        dpt_range range = own ? dpt_shard_cell(shard, cell) : (dpt_range){.tensor = 0};
        const void *data = buffer;
        if (own && st == DPT_OK)
            st = source.read(source.ctx, range, buffer);
        if (scatter) {
            dpt_status moved = sink.scatter(sink.ctx, own && st == DPT_OK, &range, &data);
            st = st == DPT_OK ? moved : st;
        } else if (own && st == DPT_OK) {
            st = sink.write(sink.ctx, range, buffer);
        }
    }
    free(buffer);
    return st;
}

static dpt_status copy_model(const char *from, const char *to, dpt_store_format format,
                             bool scatter) {
    dpt_store *store = NULL;
    dpt_store_writer *writer = NULL;
    dpt_shard shard = {.ranks = 0};
    dpt_status st = dpt_store_open(&test_comm, from, &store);
    if (st != DPT_OK)
        return st;
    const dpt_catalog *catalog = dpt_store_catalog(store);
    dpt_store_options options = {.format = format, .shard_bytes = 30000};
    assert_int_equal(dpt_shard_create(catalog, test_comm.size, &shard), DPT_OK);
    st = dpt_store_create(&test_comm, to, catalog, &shard, &options, &writer);
    if (st == DPT_OK)
        st = dpt_store_finish(writer, copy_cells(store, writer, &shard, scatter));
    dpt_shard_destroy(&shard);
    dpt_store_close(store);
    return st;
}

static void check_nothing_left(const char *path) {
    char partial[600];
    snprintf(partial, sizeof partial, "%s.partial-deltapath", path);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_not_equal(access(partial, F_OK), 0);
}

static void test_points(void **state) {
    (void)state;
    static const char *const points[] = {"store.open", "store.read", "store.create", "store.write",
                                         "store.finish"};
    static const dpt_store_format formats[] = {DPT_STORE_HDF5, DPT_STORE_SAFETENSORS};
    dpt_catalog catalog;
    models_make_root("fault");
    models_make_catalog(&catalog, 1100000);
    char from[512], to[512];
    snprintf(from, sizeof from, "%s", models_path("from.h5"));
    snprintf(to, sizeof to, "%s", models_path("to"));
    dpt_store_options options = {.format = DPT_STORE_HDF5};
    assert_int_equal(models_write(&catalog, from, &options), DPT_OK);
    for (int f = 0; f < 2; f++) {
        for (int p = 0; p < 5; p++) {
            for (int last = 0; last < 2; last++) {
                for (int scatter = 0; scatter < 2; scatter++) {
                    char fault[64];
                    snprintf(fault, sizeof fault, "%s:%s", points[p], last ? "last" : "0");
                    setenv("DPT_FAULT", fault, 1);
                    dpt_status st = copy_model(from, to, formats[f], scatter);
                    /* Another plan in between lets the next one count from its start. */
                    setenv("DPT_FAULT", "none:0", 1);
                    assert_int_equal(dpt_agree_fault("store.open"), DPT_OK);
                    unsetenv("DPT_FAULT");
                    if (st != DPT_ERR_OUTPUT || strstr(dpt_error_message(), points[p]) == NULL)
                        fail_msg("%s: status %d, message \"%s\"", fault, (int)st,
                                 dpt_error_message());
                    dpt_error_clear();
                    check_nothing_left(to);
                }
            }
        }
        assert_int_equal(copy_model(from, to, formats[f], false), DPT_OK);
        models_check(&catalog, to);
        assert_int_equal(copy_model(from, to, formats[f], false), DPT_ERR_OUTPUT);
        dpt_error_clear();
        snprintf(to, sizeof to, "%s", models_path("to2"));
    }
    models_remove_root();
    dpt_catalog_destroy(&catalog);
}

/* What a killed run left is replaced; what a user has there is not. */
static void test_leftovers(void **state) {
    (void)state;
    dpt_catalog catalog;
    models_make_root("leftovers");
    models_make_catalog(&catalog, 10);
    char path[512], partial[600], inner[700];
    snprintf(path, sizeof path, "%s", models_path("model"));
    snprintf(partial, sizeof partial, "%s.partial-deltapath", path);
    snprintf(inner, sizeof inner, "%s/notes", partial);
    if (test_comm.rank == 0) {
        char weights[700];
        snprintf(weights, sizeof weights, "%s/model-00001-of-00002.safetensors", partial);
        mkdir(partial, 0777);
        fclose(fopen(weights, "w"));
        fclose(fopen(inner, "w"));
    }
    MPI_Barrier(test_comm.mpi);
    dpt_store_options options = {.format = DPT_STORE_SAFETENSORS, .overwrite = true};
    assert_int_equal(models_write(&catalog, path, &options), DPT_ERR_OUTPUT);
    test_error_says(inner);
    if (test_comm.rank == 0)
        assert_int_equal(unlink(inner), 0);
    MPI_Barrier(test_comm.mpi);
    assert_int_equal(models_write(&catalog, path, &options), DPT_OK);
    models_check(&catalog, path);
    /* A directory that holds a sub-directory is no model of ours. */
    snprintf(inner, sizeof inner, "%s/mine", path);
    if (test_comm.rank == 0)
        mkdir(inner, 0777);
    MPI_Barrier(test_comm.mpi);
    assert_int_equal(models_write(&catalog, path, &options), DPT_ERR_OUTPUT);
    dpt_error_clear();
    assert_int_equal(access(inner, F_OK), 0);
    options.format = DPT_STORE_HDF5; /* a file may not take the place of a directory */
    assert_int_equal(models_write(&catalog, path, &options), DPT_ERR_OUTPUT);
    dpt_error_clear();
    models_remove_root();
    dpt_catalog_destroy(&catalog);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_points),
                                       cmocka_unit_test(test_leftovers)};
    return test_mpi_main(argc, argv, tests);
}
