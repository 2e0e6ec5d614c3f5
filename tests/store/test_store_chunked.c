/* ranks: 1 2 3 4 */
#include "store_again.h"

#include "deltapath/base/file.h"
#include "deltapath/base/mem.h"
#include "deltapath/verbs/convert.h"

/* Tensors and companion files in chunks, through filters, and compact: the same bytes as in one extent. */

static void check_runs_of(const dpt_catalog *catalog, const char *path) {
    dpt_store *store = NULL;
    assert_int_equal(dpt_store_open(&test_comm, path, &store), DPT_OK);
    check_runs(catalog, store);
    dpt_store_close(store);
}

static void test_same_bytes(void **state) {
    (void)state;
    dpt_catalog catalog;
    char plain[512], path[512];
    begin(&catalog, plain, sizeof plain);
    for (int i = 0; i < WAYS; i++) {
        snprintf(path, sizeof path, "%s/again-%d.h5", models_root, i);
        store_again(&catalog, plain, path, &ways[i]);
        models_check(&catalog, path);
        check_runs_of(&catalog, path);
        assert_int_equal(dpt_store_verify(&test_comm, path, NULL, NULL, NULL, NULL),
                         DPT_ERR_INPUT); /* values of all bit patterns: NaN among them */
        assert_non_null(strstr(dpt_error_message(), "NaN"));
        dpt_error_clear();
    }
    dpt_catalog_destroy(&catalog);
}

static unsigned char companion_byte(int which, size_t i) {
    return (unsigned char)((i + (size_t)which) * 2654435761u >> 13);
}

/* A folder with companions, and an HDF5 checkpoint of it. */
static void make_companions(dpt_catalog *catalog, char *folder, char *file, size_t size) {
    dpt_store_options options = {.format = DPT_STORE_SAFETENSORS};
    const dpt_convert_options to = {.source = folder, .target = file};
    snprintf(folder, size, "%s", models_path("from"));
    snprintf(file, size, "%s", models_path("from.h5"));
    models_make_catalog(catalog, 10);
    assert_int_equal(models_write(catalog, folder, &options), DPT_OK);
    for (int c = 0; c < 3 && test_comm.rank == 0; c++) {
        char path[600];
        snprintf(path, sizeof path, "%s/%s", folder, companions[c]);
        FILE *out = fopen(path, "wb");
        for (size_t i = 0; i < companion_bytes[c]; i++)
            fputc(companion_byte(c, i), out);
        fclose(out);
    }
    MPI_Barrier(test_comm.mpi);
    assert_int_equal(dpt_convert_run(&test_comm, &to), DPT_OK);
}

/* Converted to a folder again, they have the bytes that they had. */
static void check_companions(const char *path, const char *folder) {
    const dpt_convert_options options = {.source = path, .target = folder};
    dpt_store *store = NULL;
    int64_t bytes;
    assert_int_equal(dpt_store_open(&test_comm, path, &store), DPT_OK);
    assert_int_equal(dpt_store_companion_count(store), 3);
    for (int c = 0; c < 3; c++) {
        assert_string_equal(dpt_store_companion_at(store, c, &bytes), companions[c]);
        assert_int_equal(bytes, companion_bytes[c]);
    }
    dpt_store_close(store);
    assert_int_equal(dpt_convert_run(&test_comm, &options), DPT_OK);
    for (int c = 0; c < 3; c++) {
        char copy[600];
        snprintf(copy, sizeof copy, "%s/%s", folder, companions[c]);
        FILE *in = fopen(copy, "rb");
        assert_non_null(in);
        for (size_t i = 0; i < companion_bytes[c]; i++)
            if (fgetc(in) != companion_byte(c, i))
                fail_msg("byte %zu of %s differs", i, copy);
        assert_int_equal(fgetc(in), EOF);
        fclose(in);
    }
}

static void test_companions(void **state) {
    (void)state;
    static const storing all[] = {{.side = 1000, .deflate = true},
                                  {.side = 3000000, .shuffle = true, .deflate = true},
                                  {.side = 77777, .fletcher = true},
                                  {.side = 50, .compact = true}};
    dpt_catalog catalog;
    char plain[512], folder[512], path[512], back[512];
    make_companions(&catalog, folder, plain, sizeof plain);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        dpt_store *store = NULL;
        char *name = NULL;
        snprintf(path, sizeof path, "%s/companions-%zu.h5", models_root, i);
        snprintf(back, sizeof back, "%s/back-%zu", models_root, i);
        store_again(&catalog, plain, path, &all[i]);
        check_companions(path, back);
        assert_int_equal(dpt_store_open(&test_comm, folder, &store), DPT_OK);
        assert_int_equal(dpt_store_compare_companions(store, path, &name), DPT_OK);
        assert_null(name);
        dpt_store_close(store);
    }
    dpt_catalog_destroy(&catalog);
}

/* A chunk of a companion that is damaged: no file is made of it. */
static void test_damaged_companion(void **state) {
    (void)state;
    const storing how = {.side = 100000, .deflate = true};
    dpt_catalog catalog;
    char plain[512], folder[512], path[512];
    make_companions(&catalog, folder, plain, sizeof plain);
    snprintf(path, sizeof path, "%s", models_path("damaged.h5"));
    store_again(&catalog, plain, path, &how);
    if (test_comm.rank == 0)
        flip_in_chunk(path, "companions/tokenizer.json", 5);
    MPI_Barrier(test_comm.mpi);
    const dpt_convert_options options = {.source = path, .target = models_path("back")};
    assert_int_equal(dpt_convert_run(&test_comm, &options), DPT_ERR_INPUT);
    assert_non_null(strstr(dpt_error_message(), "reading companion file tokenizer.json"));
    dpt_error_clear();
    assert_int_not_equal(access(models_path("back"), F_OK), 0);
    dpt_catalog_destroy(&catalog);
}

/* A byte of a chunk that is another: what HDF5 says, or the hash of the tensor. */
static void test_damage(void **state) {
    (void)state;
    static const storing how[] = {
        {.side = 64, .deflate = true}, {.side = 64, .fletcher = true}, {.side = 64}};
    static const char *const why[] = {"inflate", "Fletcher32", "XXH3"};
    for (int i = 0; i < 3; i++) {
        dpt_catalog catalog;
        char path[512];
        store_damaged(&catalog, path, sizeof path, &how[i]);
        assert_int_equal(dpt_store_verify(&test_comm, path, NULL, NULL, NULL, NULL), DPT_ERR_INPUT);
        if (!said(why[i]) && strstr(dpt_error_message(), "NaN") == NULL)
            fail_msg("damage %d: %s", i, dpt_error_message());
        if (i < 2)
            assert_non_null(strstr(dpt_error_message(), "another.big"));
        dpt_error_clear();
        dpt_catalog_destroy(&catalog);
    }
}

static size_t pass_on(unsigned flags, size_t count, const unsigned *values, size_t bytes,
                      size_t *room, void **data) {
    (void)flags, (void)count, (void)values, (void)room, (void)data;
    return bytes;
}

/* A filter that is not installed where the file is read. */
static void test_missing_filter(void **state) {
    (void)state;
    const H5Z_class2_t class = {.version = H5Z_CLASS_T_VERS,
                                .id = FILTER,
                                .encoder_present = 1,
                                .decoder_present = 1,
                                .name = "squeeze",
                                .filter = pass_on};
    const storing how = {.side = 32, .own = FILTER};
    dpt_catalog catalog;
    dpt_store *store = NULL;
    char plain[512], path[512];
    begin(&catalog, plain, sizeof plain);
    snprintf(path, sizeof path, "%s", models_path("filtered.h5"));
    assert_true(H5Zregister(&class) >= 0);
    store_again(&catalog, plain, path, &how);
    models_check(&catalog, path); /* installed: it reads */
    assert_true(H5Zunregister(FILTER) >= 0);
    assert_int_equal(dpt_store_open(&test_comm, path, &store), DPT_ERR_INPUT);
    assert_non_null(strstr(dpt_error_message(), path));
    assert_non_null(strstr(dpt_error_message(), "tensor another.big is compressed by HDF5 filter "
                                                "300 (squeeze)"));
    assert_non_null(strstr(dpt_error_message(), "HDF5_PLUGIN_PATH"));
    dpt_error_clear();
    dpt_catalog_destroy(&catalog);
}

/* Chunks that nobody wrote, and chunks that no memory holds. */
static void test_refused(void **state) {
    (void)state;
    const char *path = models_path("refused.h5");
    const char *const remedy[] = {"never written", "more than 1 GiB"};
    for (int i = 0; i < 2; i++) {
        if (test_comm.rank == 0) {
            const hsize_t sides[] = {1 << 16, 1 << 16}, small[] = {256, 1 << 16},
                          large[] = {1 << 15, 1 << 14};
            hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
            hid_t group = H5Gcreate2(file, "tensors", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
            hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
            hid_t space = H5Screate_simple(2, sides, NULL);
            H5Pset_chunk(plist, 2, i == 0 ? small : large);
            H5Dclose(
                H5Dcreate2(group, "a", H5T_IEEE_F32LE, space, H5P_DEFAULT, plist, H5P_DEFAULT));
            root_attributes(file);
            H5Sclose(space);
            H5Pclose(plist);
            H5Gclose(group);
            H5Fclose(file);
        }
        MPI_Barrier(test_comm.mpi);
        dpt_store *store = NULL;
        assert_int_equal(dpt_store_open(&test_comm, path, &store), DPT_ERR_INPUT);
        assert_non_null(strstr(dpt_error_message(), remedy[i]));
        dpt_error_clear();
        MPI_Barrier(test_comm.mpi);
    }
}

/* What HDF5 says of a tensor: chunks or none, and how it is compressed. */
static void check_layout(const char *path, const dpt_store_layout *layout) {
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    hid_t set = H5Dopen2(file, "tensors/another.big", H5P_DEFAULT);
    hid_t plist = H5Dget_create_plist(set);
    bool chunks = layout->chunk_bytes > 0 || layout->deflate > 0;
    hsize_t sides[2] = {0, 0};
    assert_int_equal(H5Pget_layout(plist), chunks ? H5D_CHUNKED : H5D_CONTIGUOUS);
    assert_int_equal(chunks ? H5Pget_chunk(plist, 2, sides) : 2, 2);
    if (chunks) {
        int64_t want = layout->chunk_bytes > 0 ? layout->chunk_bytes : 1 << 20;
        assert_int_equal(sides[0], want / 12 < LARGE ? want / 12 : LARGE);
        assert_int_equal(sides[1], 3);
    }
    assert_int_equal(H5Pget_nfilters(plist), layout->deflate > 0 ? 2 : 0);
    if (layout->deflate > 0) {
        unsigned flags = 0, level = 0;
        size_t one = 1;
        assert_true(H5Pget_filter_by_id2(plist, H5Z_FILTER_DEFLATE, &flags, &one, &level, 0, NULL,
                                         NULL) >= 0);
        assert_int_equal(level, layout->deflate - 1);
    }
    H5Pclose(plist);
    H5Dclose(set);
    H5Fclose(file);
}

/* All ways to write: the same tensors, no temporary file left, and all bytes covered. */
static void test_written(void **state) {
    (void)state;
    static const dpt_store_hint hints[] = {{"striping_factor", "2"}, {"cb_nodes", "1"}};
    static const dpt_store_layout layouts[] = {
        {.io = DPT_STORE_INDEPENDENT},
        {.io = DPT_STORE_COLLECTIVE, .nhints = 2, .hints = hints},
        {.chunk_bytes = 100000},
        {.io = DPT_STORE_INDEPENDENT, .chunk_bytes = 1 << 20},
        {.deflate = 2, .nhints = 2, .hints = hints},
        {.io = DPT_STORE_COLLECTIVE, .chunk_bytes = 64 << 20, .deflate = 10}};
    dpt_catalog catalog;
    make_catalog(&catalog);
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
        char path[512];
        dpt_store_options options = {.format = DPT_STORE_HDF5, .layout = layouts[i]};
        snprintf(path, sizeof path, "%s/written-%zu.h5", models_root, i);
        assert_int_equal(models_write(&catalog, path, &options), DPT_OK);
        models_check(&catalog, path);
        check_runs_of(&catalog, path);
        if (test_comm.rank == 0) {
            check_layout(path, &layouts[i]);
            char *stage = dpt_file_temporary(path);
            assert_int_not_equal(access(stage, F_OK), 0);
            dpt_mem_free(stage);
            FILE *raw = fopen(path, "r+b"); /* the trailer covers what is in no chunk */
            fseek(raw, 700, SEEK_SET);
            int old = fgetc(raw);
            fseek(raw, 700, SEEK_SET);
            fputc(old ^ 1, raw);
            fclose(raw);
        }
        MPI_Barrier(test_comm.mpi);
        dpt_store *store = NULL;
        assert_int_equal(dpt_store_open(&test_comm, path, &store), DPT_ERR_INPUT);
        dpt_error_clear();
    }
    dpt_catalog_destroy(&catalog);
}

/* A rank that fails: nothing stays, neither the file nor the temporary one. */
static void test_given_up(void **state) {
    (void)state;
    static const dpt_store_layout layouts[] = {{.io = DPT_STORE_INDEPENDENT}, {.deflate = 2}};
    dpt_catalog catalog;
    make_catalog(&catalog);
    for (int i = 0; i < 2; i++) {
        dpt_shard shard;
        dpt_store_writer *writer = NULL;
        dpt_store_options options = {.format = DPT_STORE_HDF5, .layout = layouts[i]};
        const char *path = models_path("given-up.h5");
        assert_int_equal(dpt_shard_create(&catalog, test_comm.size, &shard), DPT_OK);
        assert_int_equal(dpt_store_create(&test_comm, path, &catalog, &shard, &options, &writer),
                         DPT_OK);
        dpt_status st = models_write_cells(&catalog, &shard, dpt_store_writer_sink(writer));
        if (test_comm.rank == test_comm.size - 1)
            st = dpt_error(DPT_ERR_INPUT, "given up");
        assert_int_equal(dpt_store_finish(writer, st), DPT_ERR_INPUT);
        dpt_error_clear();
        dpt_shard_destroy(&shard);
        if (test_comm.rank == 0) {
            DIR *folder = opendir(models_root);
            for (const struct dirent *entry; (entry = readdir(folder)) != NULL;)
                if (entry->d_name[0] != '.')
                    fail_msg("%s is left", entry->d_name);
            closedir(folder);
        }
        MPI_Barrier(test_comm.mpi);
    }
    dpt_catalog_destroy(&catalog);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_same_bytes, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_companions, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_damaged_companion, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_damage, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_missing_filter, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_refused, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_written, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_given_up, models_setup, models_teardown),
    };
    return test_mpi_main(argc, argv, tests);
}
