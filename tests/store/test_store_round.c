/* ranks: 1 2 3 4 */
#include "store_models.h"

static const char CONFIG[] = "{\"model_type\": \"llama\", \"rms_norm_eps\": 1e-05, "
                             "\"torch_dtype\": \"float32\", \"sub\": {\"dtype\": \"float32\"}}";

enum { LARGE = 1100000 }; /* rows of 3: tensors of several cells, which span ranks */

static void round_trip(dpt_store_format format, const char *name, int64_t shard_bytes) {
    dpt_catalog catalog;
    models_make_catalog(&catalog, LARGE);
    dpt_store_options options = {.format = format,
                                 .config = CONFIG,
                                 .metadata = "{\"who\":\"test\"}",
                                 .provenance =
                                     "{\"program\":\"deltapath here\",\"verb\":\"convert\"}",
                                 .shard_bytes = shard_bytes};
    const char *path = models_path(name);
    assert_int_equal(models_write(&catalog, path, &options), DPT_OK);
    models_check(&catalog, path);
    dpt_store *store = NULL;
    assert_int_equal(dpt_store_open(&test_comm, path, &store), DPT_OK);
    assert_int_equal(dpt_store_get_format(store), format);
    assert_string_equal(dpt_store_config(store), CONFIG); /* mixed types: no single torch_dtype */
    assert_non_null(strstr(dpt_store_metadata(store), "\"who\":\"test\""));
    assert_string_equal(dpt_store_provenance(store),
                        "{\"program\":\"deltapath here\",\"verb\":\"convert\"}");
    uint64_t print = dpt_store_fingerprint(store);
    test_same_on_all(print);
    dpt_store_close(store);

    /* Existing output is refused, then replaced on request. */
    assert_int_equal(models_write(&catalog, path, &options), DPT_ERR_OUTPUT);
    assert_non_null(strstr(dpt_error_message(), path));
    dpt_error_clear();
    options.overwrite = true;
    assert_int_equal(models_write(&catalog, path, &options), DPT_OK);
    models_check(&catalog, path);
    assert_int_not_equal(access(models_path("a.h5.partial-deltapath"), F_OK), 0);
    dpt_catalog_destroy(&catalog);
}

static void test_hdf5(void **state) {
    (void)state;
    round_trip(DPT_STORE_HDF5, "a.h5", 0);
}

static void test_safetensors(void **state) {
    (void)state;
    round_trip(DPT_STORE_SAFETENSORS, "a", 0);
}

static void test_sharded(void **state) {
    (void)state;
    round_trip(DPT_STORE_SAFETENSORS, "sharded", 100000);
    assert_int_equal(access(models_path("sharded/model.safetensors.index.json"), F_OK), 0);
}

/* One cell for all ranks: most have none. */
static void test_more_ranks_than_cells(void **state) {
    (void)state;
    dpt_catalog catalog;
    const int64_t shape[] = {5};
    const dpt_store_format formats[] = {DPT_STORE_HDF5, DPT_STORE_SAFETENSORS};
    dpt_catalog_init(&catalog);
    assert_int_equal(dpt_catalog_add(&catalog, "only", DPT_BF16, 1, shape), DPT_OK);
    for (int i = 0; i < 2; i++) {
        dpt_store_options options = {.format = formats[i], .config = CONFIG};
        const char *path = models_path(i == 0 ? "one.h5" : "one");
        assert_int_equal(models_write(&catalog, path, &options), DPT_OK);
        models_check(&catalog, path);
        dpt_store *store = NULL;
        assert_int_equal(dpt_store_open(&test_comm, path, &store), DPT_OK);
        /* The type of the outermost object follows, all else stays as it was written. */
        assert_non_null(strstr(dpt_store_config(store), "\"torch_dtype\": \"bfloat16\", \"sub\": "
                                                        "{\"dtype\": \"float32\"}}"));
        assert_non_null(strstr(dpt_store_config(store), "1e-05"));
        dpt_store_close(store);
    }
    dpt_catalog_destroy(&catalog);
}

/* Rows in rising and in falling order, from ranks that do not own them. */
static void scatter_round(dpt_store_format format, const char *name, bool falling) {
    dpt_catalog catalog;
    dpt_shard shard;
    models_make_catalog(&catalog, LARGE);
    assert_int_equal(dpt_shard_create(&catalog, test_comm.size, &shard), DPT_OK);
    dpt_store_options options = {.format = format};
    dpt_store_writer *writer = NULL;
    assert_int_equal(
        dpt_store_create(&test_comm, models_path(name), &catalog, &shard, &options, &writer),
        DPT_OK);
    dpt_sink sink = dpt_store_writer_sink(writer);
    dpt_status st = DPT_OK;
    unsigned char *buffers[2] = {malloc(8 * (size_t)DPT_CELL), malloc(8 * (size_t)DPT_CELL)};
    for (int k = 0; k < catalog.count; k++) {
        int t = falling ? catalog.count - 1 - k : k;
        int64_t cells = shard.first_cell[t + 1] - shard.first_cell[t];
        for (int64_t first = 0; first < cells; first += test_comm.size) {
            dpt_range ranges[2];
            const void *data[2] = {buffers[0], buffers[1]};
            int64_t at = first + test_comm.size - 1 - test_comm.rank;
            int64_t c = shard.first_cell[t] + (falling ? cells - 1 - at : at);
            int64_t count = 0;
            if (at < cells) {
                dpt_range whole = dpt_shard_cell(&shard, c);
                int64_t half = whole.n / 2;
                ranges[0] = (dpt_range){.tensor = t, .ig = whole.ig + half, .n = whole.n - half};
                ranges[1] = (dpt_range){.tensor = t, .ig = whole.ig, .n = half};
                models_fill(&catalog, ranges[0], buffers[0]);
                models_fill(&catalog, ranges[1], buffers[1]);
                count = 2;
            }
            st = sink.scatter(sink.ctx, count, ranges, data);
            assert_int_equal(st, DPT_OK);
        }
    }
    free(buffers[0]);
    free(buffers[1]);
    assert_int_equal(dpt_store_finish(writer, st), DPT_OK);
    models_check(&catalog, models_path(name));
    dpt_shard_destroy(&shard);
    dpt_catalog_destroy(&catalog);
}

static void test_scatter(void **state) {
    (void)state;
    scatter_round(DPT_STORE_HDF5, "s1.h5", false);
    scatter_round(DPT_STORE_HDF5, "s2.h5", true);
    scatter_round(DPT_STORE_SAFETENSORS, "s3", true);
}

/* Blocks of columns with short and with long rows, as tensor-parallel ranks ask for them. */
static void test_fetch(void **state) {
    (void)state;
    dpt_catalog catalog;
    const int64_t wide[] = {5, 100000}, narrow[] = {30001, 40};
    dpt_catalog_init(&catalog);
    assert_int_equal(dpt_catalog_add(&catalog, "a.wide", DPT_F32, 2, wide), DPT_OK);
    assert_int_equal(dpt_catalog_add(&catalog, "b.narrow", DPT_F16, 2, narrow), DPT_OK);
    dpt_store_options options = {.format = DPT_STORE_HDF5};
    assert_int_equal(models_write(&catalog, models_path("f.h5"), &options), DPT_OK);
    dpt_store *store = NULL;
    assert_int_equal(dpt_store_open(&test_comm, models_path("f.h5"), &store), DPT_OK);
    dpt_source source = dpt_store_source(store);
    for (int t = 0; t < 2; t++) {
        const int64_t *shape = catalog.tensors[t].shape;
        int64_t begin, end;
        dpt_shard_split(shape[1], test_comm.size, test_comm.rank, &begin, &end);
        dpt_block block = {
            .tensor = t, .ig = begin, .rows = shape[0], .cols = end - begin, .stride = shape[1]};
        int64_t size = dpt_dtype_size(catalog.tensors[t].dtype);
        unsigned char *got = malloc((size_t)(block.rows * block.cols * size));
        unsigned char *row = malloc((size_t)(block.cols * size));
        void *outs[] = {got};
        assert_int_equal(source.fetch(source.ctx, 1, &block, outs), DPT_OK);
        for (int64_t i = 0; i < block.rows; i++) {
            dpt_range range = {.tensor = t, .ig = block.ig + i * block.stride, .n = block.cols};
            models_fill(&catalog, range, row);
            assert_memory_equal(row, got + i * block.cols * size, block.cols * size);
        }
        free(got);
        free(row);
    }
    dpt_block outside = {.tensor = 0, .ig = 1, .rows = 5, .cols = 100000, .stride = 100000};
    void *none[] = {NULL};
    assert_int_equal(source.fetch(source.ctx, 1, &outside, none), DPT_ERR_INTERNAL);
    dpt_error_clear();
    dpt_store_close(store);
    dpt_catalog_destroy(&catalog);
}

static void test_incomplete(void **state) {
    (void)state;
    dpt_catalog catalog;
    dpt_shard shard;
    models_make_catalog(&catalog, 10);
    assert_int_equal(dpt_shard_create(&catalog, test_comm.size, &shard), DPT_OK);
    dpt_store_options options = {.format = DPT_STORE_SAFETENSORS};
    dpt_store_writer *writer = NULL;
    const char *path = models_path("incomplete");
    assert_int_equal(dpt_store_create(&test_comm, path, &catalog, &shard, &options, &writer),
                     DPT_OK);
    assert_int_equal(dpt_store_finish(writer, DPT_OK), DPT_ERR_INTERNAL);
    dpt_error_clear();
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_not_equal(access(models_path("incomplete.partial-deltapath"), F_OK), 0);
    dpt_shard_destroy(&shard);
    dpt_catalog_destroy(&catalog);
}

static void test_absurd_output(void **state) {
    (void)state;
    dpt_catalog catalog;
    const int64_t shape[] = {INT64_C(1) << 50};
    const dpt_store_format formats[] = {DPT_STORE_HDF5, DPT_STORE_SAFETENSORS};
    dpt_catalog_init(&catalog);
    assert_int_equal(dpt_catalog_add(&catalog, "huge", DPT_F32, 1, shape), DPT_OK);
    dpt_shard shard = {.ranks = test_comm.size};
    int64_t first_cell[] = {0, INT64_C(1) << 30};
    int64_t rank_first[65] = {0};
    shard = (dpt_shard){.ranks = test_comm.size,
                        .cells = first_cell[1],
                        .ntensors = 1,
                        .first_cell = first_cell,
                        .rank_first = rank_first,
                        .catalog = &catalog};
    rank_first[test_comm.size] = first_cell[1];
    for (int i = 0; i < 2; i++) {
        dpt_store_options options = {.format = formats[i]};
        dpt_store_writer *writer = NULL;
        const char *paths[] = {models_path("no-room"), models_path("absent/dir/model")};
        for (int k = 0; k < 2; k++) {
            assert_int_equal(
                dpt_store_create(&test_comm, paths[k], &catalog, &shard, &options, &writer),
                DPT_ERR_OUTPUT);
            assert_non_null(strstr(dpt_error_message(), paths[k]));
            dpt_error_clear();
            assert_int_not_equal(access(paths[k], F_OK), 0);
        }
    }
    dpt_catalog_destroy(&catalog);
}

/* Texts of a megabyte: beyond what an object header of HDF5 holds. */
static void test_large_texts(void **state) {
    (void)state;
    dpt_catalog catalog;
    models_make_catalog(&catalog, 10);
    enum { N = 1 << 20 };
    char *text = malloc(N + 16);
    snprintf(text, 16, "{\"a\":\"");
    memset(text + 6, 'x', N);
    snprintf(text + 6 + N, 8, "\"}");
    for (int i = 0; i < 2; i++) {
        const char *path = models_path(i == 0 ? "large.h5" : "large");
        dpt_store_options options = {.format = i == 0 ? DPT_STORE_HDF5 : DPT_STORE_SAFETENSORS,
                                     .config = text,
                                     .metadata = text,
                                     .provenance = text};
        assert_int_equal(models_write(&catalog, path, &options), DPT_OK);
        dpt_store *store = NULL;
        assert_int_equal(dpt_store_open(&test_comm, path, &store), DPT_OK);
        assert_string_equal(dpt_store_config(store), text);
        assert_string_equal(dpt_store_provenance(store), text);
        dpt_store_close(store);
        models_check(&catalog, path);
    }
    free(text);
    dpt_catalog_destroy(&catalog);
}

/* A study's name for a model of a format, and the format of a new model by its name, agree. */
static void test_names_of_formats(void **state) {
    (void)state;
    for (int f = DPT_STORE_NONE + 1; f < DPT_STORE_WRITTEN; f++) {
        char path[32];
        snprintf(path, sizeof path, "models/edit%s", dpt_store_format_ending((dpt_store_format)f));
        assert_int_equal(dpt_store_format_for(path), f);
        assert_true(dpt_store_format_name((dpt_store_format)f)[0] != '\0');
    }
    assert_string_equal(dpt_store_format_ending(DPT_STORE_NONE), "");
    assert_int_equal(dpt_store_format_for("post.hdf5"), DPT_STORE_HDF5);
    assert_int_equal(dpt_store_format_for("h5"), DPT_STORE_SAFETENSORS);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_of_formats),
        cmocka_unit_test_setup_teardown(test_hdf5, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_safetensors, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_sharded, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_more_ranks_than_cells, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_scatter, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_fetch, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_large_texts, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_incomplete, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_absurd_output, models_setup, models_teardown),
    };
    return test_mpi_main(argc, argv, tests);
}
