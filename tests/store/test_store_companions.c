/* ranks: 1 2 3 */
#include "store_models.h"

#include "deltapath/base/log.h"
#include "deltapath/verbs/convert.h"

#include <hdf5.h>
#include <pty.h>
#include <signal.h>
#include <sys/resource.h>

/* Tokenizer, generation and licence files through an HDF5 checkpoint and back. */

static void put_file(const char *directory, const char *name, const void *bytes, size_t n) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    fclose(file);
}

static unsigned char *get_file(const char *directory, const char *name, size_t *n) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "rb");
    *n = 0;
    if (file == NULL)
        return NULL;
    fseek(file, 0, SEEK_END);
    *n = (size_t)ftell(file);
    rewind(file);
    unsigned char *bytes = malloc(*n + 1);
    assert_int_equal(fread(bytes, 1, *n, file), *n);
    fclose(file);
    return bytes;
}

static void check_same_file(const char *a, const char *b, const char *name) {
    size_t n[2];
    unsigned char *one = get_file(a, name, &n[0]);
    unsigned char *two = get_file(b, name, &n[1]);
    if (one == NULL || two == NULL || n[0] != n[1] || memcmp(one, two, n[0]) != 0)
        fail_msg("%s of %s and %s differ", name, a, b);
    free(one);
    free(two);
}

static dpt_status convert(const char *from, const char *to) {
    dpt_convert_options options = {.source = from, .target = to};
    return dpt_convert_run(&test_comm, &options);
}

static void make_model(const char *path) {
    dpt_catalog catalog;
    dpt_store_options options = {.format = DPT_STORE_SAFETENSORS};
    models_make_catalog(&catalog, 10);
    assert_int_equal(models_write(&catalog, path, &options), DPT_OK);
    dpt_catalog_destroy(&catalog);
}

enum { LARGE = 3000001 };

static const char *const kept[] = {"LICENSE.txt", "generation_config.json", "merges.txt",
                                   "spiece.model", "tokenizer.json"};

/* Files of no bytes, of a few, and of more than one copy buffer; and some that do not belong. */
static void add_files(const char *directory) {
    static unsigned char large[LARGE];
    for (size_t i = 0; i < LARGE; i++)
        large[i] = (unsigned char)(i * 2654435761u >> 13);
    put_file(directory, "tokenizer.json", large, LARGE);
    put_file(directory, "merges.txt", "", 0);
    put_file(directory, "LICENSE.txt", "free", 4);
    put_file(directory, "generation_config.json", "{}\n", 3);
    put_file(directory, "spiece.model", large, 4097);
    put_file(directory, "notes.txt", "mine", 4);
    put_file(directory, "tokenizer\n.json", "x", 1);
}

static void test_round_trip(void **state) {
    (void)state;
    char from[512], back[512];
    snprintf(from, sizeof from, "%s", models_path("from"));
    snprintf(back, sizeof back, "%s", models_path("back"));
    make_model(from);
    if (test_comm.rank == 0)
        add_files(from);
    MPI_Barrier(test_comm.mpi);
    assert_int_equal(convert(from, models_path("one.h5")), DPT_OK);
    assert_int_equal(convert(models_path("one.h5"), models_path("two.h5")), DPT_OK);
    assert_int_equal(convert(models_path("two.h5"), back), DPT_OK);
    dpt_store *store = NULL;
    assert_int_equal(dpt_store_open(&test_comm, models_path("two.h5"), &store), DPT_OK);
    assert_int_equal(dpt_store_companion_count(store), 5);
    for (int i = 0; i < 5; i++) {
        int64_t bytes = -1;
        assert_string_equal(dpt_store_companion_at(store, i, &bytes), kept[i]);
        check_same_file(from, back, kept[i]);
    }
    dpt_store_close(store);
    assert_int_not_equal(access(models_path("back/notes.txt"), F_OK), 0);
    assert_int_not_equal(access(models_path("back/tokenizer\n.json"), F_OK), 0);
    dpt_catalog catalog;
    models_make_catalog(&catalog, 10);
    models_check(&catalog, back);
    models_check(&catalog, models_path("two.h5"));
    dpt_catalog_destroy(&catalog);
}

static void test_demo_model(void **state) {
    (void)state;
    static const char *const names[] = {"config.json", "generation_config.json", "tokenizer.json",
                                        "tokenizer_config.json"};
    const char *demo = "share/demo/llama-post";
    char back[512];
    snprintf(back, sizeof back, "%s", models_path("demo"));
    assert_int_equal(convert(demo, models_path("demo.h5")), DPT_OK);
    assert_int_equal(convert(models_path("demo.h5"), back), DPT_OK);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        check_same_file(demo, back, names[i]);
}

/* More than an HDF5 checkpoint takes: refused before anything is written. */
static void test_too_many_bytes(void **state) {
    (void)state;
    char from[512];
    snprintf(from, sizeof from, "%s", models_path("from"));
    make_model(from);
    if (test_comm.rank == 0) {
        put_file(from, "tokenizer.json", "", 0);
        assert_int_equal(truncate(models_path("from/tokenizer.json"), (off_t)300 << 20), 0);
    }
    MPI_Barrier(test_comm.mpi);
    assert_int_equal(convert(from, models_path("to.h5")), DPT_ERR_INPUT);
    assert_non_null(strstr(dpt_error_message(), "write safetensors"));
    dpt_error_clear();
    assert_int_not_equal(access(models_path("to.h5"), F_OK), 0);
    assert_int_not_equal(access(models_path("to.h5.partial-deltapath"), F_OK), 0);
}

/* A copy that fails says of which file; one that takes long says how far it is. */
static void test_large(void **state) {
    (void)state;
    char from[512], line[512] = "";
    int ends[2] = {-1, -1}, kept = dup(STDERR_FILENO);
    snprintf(from, sizeof from, "%s", models_path("from"));
    make_model(from);
    const struct rlimit small = {16 << 20, RLIM_INFINITY}, none = {RLIM_INFINITY, RLIM_INFINITY};
    signal(SIGXFSZ, SIG_IGN);
    if (test_comm.rank == 0) {
        put_file(from, "tokenizer.bin", "", 0);
        assert_int_equal(truncate(models_path("from/tokenizer.bin"), (off_t)65 << 20), 0);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    }
    MPI_Barrier(test_comm.mpi);
    assert_int_equal(convert(from, models_path("to")), DPT_ERR_OUTPUT);
    assert_non_null(strstr(dpt_error_message(), "companion file tokenizer.bin of "));
    dpt_error_clear();
    if (test_comm.rank == 0) {
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
        assert_int_equal(openpty(&ends[0], &ends[1], NULL, NULL, NULL), 0);
        dup2(ends[1], STDERR_FILENO);
        dpt_log_configure(0, DPT_LOG_INFO);
    }
    dpt_status st = convert(from, models_path("to"));
    if (test_comm.rank == 0) {
        dpt_log_configure(0, DPT_LOG_WARN);
        dup2(kept, STDERR_FILENO);
        assert_true(read(ends[0], line, sizeof line - 1) > 0);
        assert_non_null(strstr(line, "copy tokenizer.bin"));
        close(ends[0]);
        close(ends[1]);
    }
    close(kept);
    assert_int_equal(st, DPT_OK);
    check_same_file(from, models_path("to"), "tokenizer.bin");
}

/* A data set of `n` bytes, or a damaged one, added to a good checkpoint. */
static void add_set(hid_t file, const char *name, hid_t type, int ndim, hsize_t n, bool chunked) {
    const hsize_t sides[] = {n, 2};
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    if (chunked)
        H5Pset_chunk(plist, ndim, sides);
    else
        H5Pset_alloc_time(plist, H5D_ALLOC_TIME_EARLY);
    hid_t space = H5Screate_simple(ndim, sides, NULL);
    hid_t set = H5Dcreate2(file, name, type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    assert_true(set >= 0);
    H5Dclose(set);
    H5Sclose(space);
    H5Pclose(plist);
}

static void make_hostile(hid_t file, int which) {
    char name[64];
    H5Gclose(H5Gcreate2(file, "companions", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    switch (which) {
    case 0:
        add_set(file, "companions/evil.sh", H5T_STD_U8LE, 1, 8, false);
        break;
    case 1:
        add_set(file, "companions/tokenizer\\..\\x", H5T_STD_U8LE, 1, 8, false);
        break;
    case 2:
        add_set(file, "companions/tokenizer.json", H5T_STD_U8LE, 1, 8, true);
        break;
    case 3:
        add_set(file, "companions/tokenizer.json", H5T_STD_I32LE, 1, 8, false);
        break;
    case 4:
        add_set(file, "companions/tokenizer.json", H5T_STD_U8LE, 2, 8, false);
        break;
    case 5:
        H5Lcreate_soft("/tensors/bytes", file, "companions/tokenizer.json", H5P_DEFAULT,
                       H5P_DEFAULT);
        break;
    case 6:
        H5Gclose(
            H5Gcreate2(file, "companions/tokenizer.json", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
        break;
    default:
        for (int i = 0; i < 300; i++) {
            snprintf(name, sizeof name, "companions/vocab%d", i);
            add_set(file, name, H5T_STD_U8LE, 1, 1, false);
        }
    }
}

static void test_hostile(void **state) {
    (void)state;
    static const char *const remedies[] = {"evil.sh", "remove it", "never written", "uint8",
                                           "uint8",   "remove it", "corrupt",       "not needed"};
    dpt_catalog catalog;
    char path[512];
    snprintf(path, sizeof path, "%s", models_path("hostile.h5"));
    models_make_catalog(&catalog, 10);
    for (int which = 0; which < 8; which++) {
        dpt_store *store = NULL;
        dpt_store_options options = {.format = DPT_STORE_HDF5};
        if (test_comm.rank == 0)
            unlink(path);
        assert_int_equal(models_write(&catalog, path, &options), DPT_OK);
        if (test_comm.rank == 0) {
            hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
            assert_true(file >= 0);
            make_hostile(file, which);
            H5Fclose(file);
        }
        MPI_Barrier(test_comm.mpi);
        dpt_status st = dpt_store_open(&test_comm, path, &store);
        if (st != DPT_ERR_INPUT || strstr(dpt_error_message(), path) == NULL ||
            strstr(dpt_error_message(), remedies[which]) == NULL)
            fail_msg("case %d: status %d, message \"%s\"", which, (int)st, dpt_error_message());
        dpt_error_clear();
    }
    dpt_catalog_destroy(&catalog);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_demo_model, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_too_many_bytes, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_large, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_hostile, models_setup, models_teardown),
    };
    return test_mpi_main(argc, argv, tests);
}
