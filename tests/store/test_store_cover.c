/* ranks: 1 */
/* seconds: 60 */
#include "store_models.h"

#include "deltapath/base/file.h"
#include "deltapath/base/mem.h"
#include "deltapath/store/manifest.h"

#include <fcntl.h>

/* Bytes of a model that are no tensor's are covered: by a trailer in HDF5, by a manifest in a folder. */

static const char provenance[] = "{\"program\": \"test\", \"recipe\": \"0123456789abcdef\"}";

static void make_model(const char *path, dpt_store_format format, uint64_t *digest) {
    dpt_catalog catalog;
    dpt_shard shard;
    dpt_store_writer *writer = NULL;
    dpt_store_options options = {.format = format,
                                 .config = "{\"model_type\": \"llama\"}",
                                 .metadata = "{\"format\": \"pt\"}",
                                 .provenance = provenance,
                                 .shard_bytes = 20000};
    models_make_catalog(&catalog, 700);
    assert_int_equal(dpt_shard_create(&catalog, test_comm.size, &shard), DPT_OK);
    assert_int_equal(dpt_store_create(&test_comm, path, &catalog, &shard, &options, &writer),
                     DPT_OK);
    dpt_status st = models_write_cells(&catalog, &shard, dpt_store_writer_sink(writer));
    assert_int_equal(dpt_store_finish_digest(writer, st, digest), DPT_OK);
    models_check(&catalog, path);
    dpt_shard_destroy(&shard);
    dpt_catalog_destroy(&catalog);
}

static void check_origin(const char *path, dpt_store_format format, uint64_t digest) {
    dpt_store_origin origin;
    assert_int_equal(dpt_store_get_origin(path, &origin), DPT_OK);
    assert_true(origin.ours && origin.format == format && origin.digest == digest && digest != 0);
    assert_string_equal(origin.recipe, "0123456789abcdef");
}

static void flip(const char *file, int64_t bit) {
    unsigned char byte;
    int fd = open(file, O_RDWR);
    assert_int_equal(pread(fd, &byte, 1, bit / 8), 1);
    byte ^= (unsigned char)(1u << bit % 8);
    assert_int_equal(pwrite(fd, &byte, 1, bit / 8), 1);
    close(fd);
}

static void check_refused(const char *path, const char *name, const char *what) {
    dpt_store_origin origin;
    if (dpt_store_get_origin(path, &origin) != DPT_ERR_INPUT ||
        strstr(dpt_error_message(), name) == NULL)
        fail_msg("%s of %s: \"%s\"", what, name, dpt_error_message());
    dpt_error_clear();
}

/* Bits of [begin, end) of a file, `step` apart. */
static void check_flips(const char *path, const char *file, int64_t begin, int64_t end,
                        int64_t step) {
    for (int64_t bit = 8 * begin; bit < 8 * end; bit += step) {
        char what[64];
        snprintf(what, sizeof what, "bit %lld", (long long)bit);
        flip(file, bit);
        check_refused(path, path, what);
        flip(file, bit);
    }
}

/* What ends where HDF5 says was written by a program that knows no trailer: it is read, and not taken for
 * one that this program left. */
static void check_rewritten(const char *path, uint64_t digest) {
    dpt_store_origin origin;
    assert_int_equal(dpt_store_get_origin(path, &origin), DPT_OK);
    assert_true(!origin.ours && origin.digest == digest);
}

/* The provenance, as many ranks give the same bytes, and as another program may change them. */
static void test_hdf5(void **state) {
    (void)state;
    uint64_t digest;
    char path[512];
    dpt_file_identity file;
    snprintf(path, sizeof path, "%s", models_path("model.h5"));
    make_model(path, DPT_STORE_HDF5, &digest);
    if (test_comm.rank == 0) {
        check_origin(path, DPT_STORE_HDF5, digest);
        assert_int_equal(dpt_file_identify(path, &file), DPT_OK);
        setenv("DPT_ISOLATE_SECONDS", "2", 1);
        check_flips(path, path, 0, 2048, 443);
        check_flips(path, path, file.size - 80, file.size, 17);
        assert_int_equal(truncate(path, file.size - 1), 0);
        check_refused(path, path, "cut");
        assert_int_equal(truncate(path, file.size - 79), 0);
        check_refused(path, path, "a trailer of one byte");
        assert_int_equal(truncate(path, file.size - 80), 0);
        check_rewritten(path, digest);
        assert_int_equal(truncate(path, file.size - 81), 0);
        check_refused(path, path, "shorter than HDF5 says");
    }
    MPI_Barrier(test_comm.mpi);
}

static void check_file(const char *folder, const char *name, int64_t covered) {
    char file[1024], hidden[1024];
    dpt_file_identity info;
    snprintf(file, sizeof file, "%s/%s", folder, name);
    snprintf(hidden, sizeof hidden, "%s/../hidden", folder);
    assert_int_equal(dpt_file_identify(file, &info), DPT_OK);
    check_flips(folder, file, 0, covered < 0 ? info.size : covered, 57);
    assert_int_equal(truncate(file, info.size + 1), 0);
    check_refused(folder, folder, "longer");
    assert_int_equal(truncate(file, info.size), 0);
    assert_int_equal(rename(file, hidden), 0);
    if (strcmp(name, DPT_MANIFEST_CHECKPOINT) != 0)
        check_refused(folder, folder, "missing");
    assert_int_equal(rename(hidden, file), 0);
}

static void test_safetensors(void **state) {
    (void)state;
    uint64_t digest;
    char path[512], list[600];
    snprintf(path, sizeof path, "%s", models_path("model"));
    make_model(path, DPT_STORE_SAFETENSORS, &digest);
    if (test_comm.rank == 0) {
        dpt_manifest manifest;
        bool found = false;
        check_origin(path, DPT_STORE_SAFETENSORS, digest);
        snprintf(list, sizeof list, "%s/" DPT_MANIFEST_CHECKPOINT, path);
        assert_int_equal(dpt_manifest_read(list, &manifest, &found), DPT_OK);
        assert_true(found && manifest.count >= 5); /* weights, index, config, sidecar */
        assert_string_equal(manifest.recipe, "0123456789abcdef");
        for (int64_t i = 0; i < manifest.count; i++)
            check_file(path, manifest.entries[i].name, manifest.entries[i].covered);
        check_file(path, DPT_MANIFEST_CHECKPOINT, -1);
        check_origin(path, DPT_STORE_SAFETENSORS, digest);
        assert_int_equal(unlink(list), 0); /* it may be taken away on purpose */
        check_origin(path, DPT_STORE_SAFETENSORS, digest);
        dpt_manifest_destroy(&manifest);
    }
    MPI_Barrier(test_comm.mpi);
}

static void put(const char *folder, const char *name, const char *text) {
    char path[600];
    const dpt_file_piece piece = {.bytes = text, .n = (int64_t)strlen(text)};
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(dpt_file_put(path, &piece, 1), DPT_OK);
}

/* The manifest knows the file of before and after at each moment. */
static void test_study(void **state) {
    (void)state;
    if (test_comm.rank == 0) {
        static const char *const names[] = {"summary.csv", "results.json"};
        dpt_manifest manifest;
        bool found;
        char path[600];
        snprintf(path, sizeof path, "%s/" DPT_MANIFEST_STUDY, models_root);
        put(models_root, names[0], "one");
        put(models_root, names[1], "two");
        assert_int_equal(dpt_manifest_commit(models_root, "a study", 2, names), DPT_OK);
        assert_int_equal(dpt_manifest_read(path, &manifest, &found), DPT_OK);
        assert_true(found && manifest.count == 2 && !manifest.entries[0].replacing);
        assert_string_equal(manifest.name, "a study");
        for (int i = 0; i < 2; i++) {
            assert_int_equal(dpt_manifest_check(models_root, &manifest.entries[i]), DPT_OK);
            assert_true(dpt_manifest_owns(&manifest, models_root, names[i]));
        }
        assert_false(dpt_manifest_owns(&manifest, models_root, "other"));
        /* As after a kill between the manifest and the renames. */
        dpt_manifest_entry next = {.name = (char *)(uintptr_t)names[0], .replacing = true};
        memcpy(next.previous, dpt_manifest_find(&manifest, names[0])->hash, sizeof next.previous);
        assert_int_equal(dpt_manifest_set(&manifest, &next), DPT_OK);
        assert_int_equal(dpt_manifest_write(path, &manifest), DPT_OK);
        dpt_manifest_destroy(&manifest);
        assert_int_equal(dpt_manifest_read(path, &manifest, &found), DPT_OK);
        assert_true(dpt_manifest_owns(&manifest, models_root, names[0]));
        assert_int_equal(dpt_manifest_check(models_root, dpt_manifest_find(&manifest, names[0])),
                         DPT_ERR_INPUT);
        dpt_error_clear();
        put(models_root, names[0], "three");
        char file[600];
        snprintf(file, sizeof file, "%s/%s", models_root, names[0]);
        assert_int_equal(dpt_manifest_commit_file(file), DPT_OK);
        dpt_manifest_destroy(&manifest);
        assert_int_equal(dpt_manifest_read(path, &manifest, &found), DPT_OK);
        assert_int_equal(dpt_manifest_check(models_root, dpt_manifest_find(&manifest, names[0])),
                         DPT_OK);
        flip(file, 3);
        assert_false(dpt_manifest_owns(&manifest, models_root, names[0]));
        assert_int_equal(dpt_manifest_check(models_root, dpt_manifest_find(&manifest, names[0])),
                         DPT_ERR_INPUT);
        assert_non_null(strstr(dpt_error_message(), file));
        dpt_error_clear();
        dpt_manifest_destroy(&manifest);
        flip(path, 8 * 30);
        put(models_root, names[0], "four"); /* a damaged manifest is not hidden */
        assert_int_equal(dpt_manifest_commit_file(file), DPT_ERR_INPUT);
        dpt_error_clear();
        char *temporary = dpt_file_temporary(models_path("summary.csv"));
        assert_int_not_equal(access(temporary, F_OK), 0);
        dpt_mem_free(temporary);
    }
    MPI_Barrier(test_comm.mpi);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_hdf5, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_safetensors, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_study, models_setup, models_teardown),
    };
    return test_mpi_main(argc, argv, tests);
}
