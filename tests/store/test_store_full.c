/* ranks: 1 3 */
#include "store_models.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>

/* Real file systems that are full or read-only. Mounting needs rights: without them, or when asked by
 * DPT_TEST_NO_MOUNT, the tests are skipped. */

enum { DISK_BYTES = 16 << 20 };

static char disk[512];

static bool mount_disk(void) {
    int mounted = 0;
    snprintf(disk, sizeof disk, "%s/disk", models_root);
    if (test_comm.rank == 0 && getenv("DPT_TEST_NO_MOUNT") == NULL) {
        char size[32];
        mkdir(disk, 0777);
        snprintf(size, sizeof size, "size=%d", (int)DISK_BYTES);
        mounted = mount("none", disk, "tmpfs", 0, size) == 0;
    }
    MPI_Bcast(&mounted, 1, MPI_INT, 0, test_comm.mpi);
    return mounted;
}

static void unmount_disk(void) {
    MPI_Barrier(test_comm.mpi);
    if (test_comm.rank == 0)
        umount2(disk, MNT_DETACH);
    MPI_Barrier(test_comm.mpi);
}

/* Leave about this much room on the disk. */
static void fill_disk(int64_t room) {
    static const char zeros[4096];
    if (test_comm.rank == 0) {
        char path[600];
        snprintf(path, sizeof path, "%s/ballast", disk);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
        assert_true(fd >= 0);
        ssize_t n = 1;
        for (int64_t left = DISK_BYTES - room; left > 0 && n > 0; left -= n)
            n = write(fd, zeros, sizeof zeros);
        close(fd);
    }
    MPI_Barrier(test_comm.mpi);
}

static void check_refused(dpt_status st, const char *path, const char *remedy, const char *label) {
    char partial[700];
    snprintf(partial, sizeof partial, "%s.partial-deltapath", path);
    if (st != DPT_ERR_OUTPUT || strstr(dpt_error_message(), path) == NULL ||
        strstr(dpt_error_message(), remedy) == NULL)
        fail_msg("%s: status %d, message \"%s\"", label, (int)st, dpt_error_message());
    dpt_error_clear();
    MPI_Barrier(test_comm.mpi);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_not_equal(access(partial, F_OK), 0);
    MPI_Barrier(test_comm.mpi);
}

static const dpt_store_format formats[] = {DPT_STORE_HDF5, DPT_STORE_SAFETENSORS};

static void output_path(char *path, size_t n, int format) {
    snprintf(path, n, "%s/%s", disk, format == 0 ? "model.h5" : "model");
}

/* Too little room from the start: found before anything is written. */
static void test_full_before(void **state) {
    (void)state;
    dpt_catalog catalog;
    if (!mount_disk())
        skip();
    models_make_catalog(&catalog, 600000); /* 10.8 MB */
    for (int f = 0; f < 2; f++) {
        char path[600];
        dpt_store_options options = {.format = formats[f]};
        output_path(path, sizeof path, f);
        fill_disk(5 << 20);
        check_refused(models_write(&catalog, path, &options), path, "make room", "too little room");
    }
    dpt_catalog_destroy(&catalog);
    unmount_disk();
}

/* Give the space of the largest file back that was taken in advance, as if the file system could not
 * do that. */
static void give_back(const char *path, int format) {
    char partial[700];
    snprintf(partial, sizeof partial, "%s.partial-deltapath%s", path,
             format == 0 ? "" : "/model.safetensors");
    if (test_comm.rank == 0) {
        int fd = open(partial, O_WRONLY);
        assert_true(fd >= 0);
        assert_int_equal(
            fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2 << 20, 6 << 20), 0);
        close(fd);
    }
    MPI_Barrier(test_comm.mpi);
}

static dpt_status write_while_filling(const dpt_catalog *catalog, const char *path, int format,
                                      dpt_store_io io, bool taken) {
    dpt_shard shard;
    dpt_store_writer *writer = NULL;
    dpt_store_options options = {.format = formats[format], .layout = {.io = io}};
    assert_int_equal(dpt_shard_create(catalog, test_comm.size, &shard), DPT_OK);
    dpt_status st = dpt_store_create(&test_comm, path, catalog, &shard, &options, &writer);
    assert_int_equal(st, DPT_OK);
    if (!taken)
        give_back(path, format);
    fill_disk(0);
    st = dpt_store_finish(writer,
                          models_write_cells(catalog, &shard, dpt_store_writer_sink(writer)));
    dpt_shard_destroy(&shard);
    return st;
}

static void empty_disk(void) {
    MPI_Barrier(test_comm.mpi);
    if (test_comm.rank == 0)
        assert_int_equal(unlink(models_path("disk/ballast")), 0);
    MPI_Barrier(test_comm.mpi);
}

/* Others fill the disk while the model is written. */
static void test_full_during(void **state) {
    (void)state;
    dpt_catalog catalog;
    char path[600];
    if (!mount_disk())
        skip();
    models_make_catalog(&catalog, 600000);
    for (int f = 0; f < 2; f++) {
        output_path(path, sizeof path, f);
        check_refused(write_while_filling(&catalog, path, f, DPT_STORE_DIRECT, false), path,
                      "0.000 GB left", "no space");
        empty_disk();
    }
    /* A checkpoint has its space from the start; a directory lacks that of its last small file. */
    output_path(path, sizeof path, 1);
    check_refused(write_while_filling(&catalog, path, 1, DPT_STORE_DIRECT, true), path,
                  "disk space", "no sidecar");
    empty_disk();
    output_path(path, sizeof path, 0);
    assert_int_equal(write_while_filling(&catalog, path, 0, DPT_STORE_DIRECT, true), DPT_OK);
    models_check(&catalog, path);
    dpt_catalog_destroy(&catalog);
    unmount_disk();
}

/* By H5Dwrite: what the library says stands in the line. */
static void test_full_library(void **state) {
    (void)state;
    dpt_catalog catalog;
    char path[600];
    if (!mount_disk())
        skip();
    models_make_catalog(&catalog, 600000);
    output_path(path, sizeof path, 0);
    dpt_status st = write_while_filling(&catalog, path, 0, DPT_STORE_INDEPENDENT, false);
    assert_null(strstr(dpt_error_message(), "no reason"));
    if (strstr(dpt_error_message(), "HDF5 could not write another.big (") == NULL)
        fail_msg("%s", dpt_error_message());
    check_refused(st, path, "check disk space", "no space");
    dpt_catalog_destroy(&catalog);
    unmount_disk();
}

static void test_read_only(void **state) {
    (void)state;
    dpt_catalog catalog;
    if (!mount_disk())
        skip();
    if (test_comm.rank == 0)
        assert_int_equal(mount("none", disk, "tmpfs", MS_REMOUNT | MS_RDONLY, NULL), 0);
    MPI_Barrier(test_comm.mpi);
    models_make_catalog(&catalog, 10);
    for (int f = 0; f < 2; f++) {
        char path[600];
        dpt_store_options options = {.format = formats[f]};
        output_path(path, sizeof path, f);
        check_refused(models_write(&catalog, path, &options), path, "another place",
                      "read-only file system");
    }
    dpt_catalog_destroy(&catalog);
    unmount_disk();
}

static int teardown(void **state) {
    (void)state;
    if (test_comm.rank == 0)
        umount2(disk, MNT_DETACH);
    models_remove_root();
    return 0;
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_full_before, models_setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_during, models_setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_library, models_setup, teardown),
        cmocka_unit_test_setup_teardown(test_read_only, models_setup, teardown),
    };
    return test_mpi_main(argc, argv, tests);
}
