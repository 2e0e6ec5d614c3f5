/* ranks: 1 */
#include "../../src/store/store_internal.h"
#include "../support/test_mpi.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* What is read ahead and what is sent to the disk early. The two system calls stand here in place of libc's: they
 * note what is asked for, and fail, which must change nothing. */

enum { MIB = 1 << 20, CALLS_MOST = 64 };

typedef struct asked {
    int64_t offset, bytes;
} asked;

static asked calls[CALLS_MOST];
static int ncalls;

static void note(off_t offset, off_t bytes) {
    assert_true(ncalls < CALLS_MOST);
    calls[ncalls++] = (asked){.offset = offset, .bytes = bytes};
}

int posix_fadvise(int fd, off_t offset, off_t bytes, int advice) {
    assert_true(fd >= 0);
    assert_int_equal(advice, POSIX_FADV_WILLNEED);
    note(offset, bytes);
    return ESPIPE;
}

int sync_file_range(int fd, off_t offset, off_t bytes, unsigned flags) {
    assert_true(fd >= 0);
    assert_int_equal(flags, SYNC_FILE_RANGE_WRITE);
    note(offset, bytes);
    errno = EIO;
    return -1;
}

static void check_span(dpt_store_span span, int64_t offset, int64_t bytes) {
    assert_int_equal(span.bytes, bytes);
    if (bytes > 0)
        assert_int_equal(span.offset, offset);
}

static dpt_store_span whole(int64_t offset, int64_t bytes) {
    return (dpt_store_span){.offset = offset, .bytes = bytes};
}

static void test_reader_in_order(void **state) {
    (void)state;
    dpt_store_run run = {.begin = 0};
    const int64_t cell = 2 * MIB, at = 12345;
    int64_t end = at; /* of what was asked for */
    for (int c = 0; c < 100; c++) {
        int64_t here = at + c * cell;
        dpt_store_span span = dpt_store_run_read(&run, whole(here, cell), here, cell);
        if (span.bytes > 0) {
            assert_int_equal(span.offset, end); /* nothing twice, nothing left out */
            end = span.offset + span.bytes;
        }
        assert_true(end <= here + cell + c * cell / 2); /* at most half of what came before */
        assert_true(end <= here + cell + 32 * MIB);
        if (c > 1)
            assert_true(end >= here + cell + MIB);
        if (c > 40)
            assert_int_equal(end, here + cell + 32 * MIB);
    }
}

static void test_single_reads(void **state) {
    (void)state;
    dpt_store_run run = {.begin = 0};
    /* Of places that do not follow each other nothing is read but what is asked for. */
    check_span(dpt_store_run_read(&run, whole(100 * MIB, 8 * MIB), 100 * MIB, 8 * MIB), 100 * MIB,
               8 * MIB);
    check_span(dpt_store_run_read(&run, whole(50 * MIB, 8 * MIB), 50 * MIB, 8 * MIB), 50 * MIB,
               8 * MIB);
    check_span(dpt_store_run_read(&run, whole(200 * MIB, 65536), 200 * MIB, 65536), 0, 0);
    /* A long one is read ahead as far as it goes, and no farther. */
    dpt_store_span request = whole(300 * MIB, 84 * MIB);
    check_span(dpt_store_run_read(&run, request, 300 * MIB, 16 * MIB), 300 * MIB, 48 * MIB);
    check_span(dpt_store_run_read(&run, request, 316 * MIB, 16 * MIB), 348 * MIB, 16 * MIB);
    /* Small reads elsewhere, as of scales, do not end the run. */
    check_span(dpt_store_run_read(&run, whole(5 * MIB, 4096), 5 * MIB, 4096), 0, 0);
    check_span(dpt_store_run_read(&run, request, 332 * MIB, 16 * MIB), 364 * MIB, 16 * MIB);
    check_span(dpt_store_run_read(&run, request, 348 * MIB, 16 * MIB), 380 * MIB, 4 * MIB);
    check_span(dpt_store_run_read(&run, request, 364 * MIB, 16 * MIB), 0, 0);
    check_span(dpt_store_run_read(&run, request, 380 * MIB, 4 * MIB), 0, 0);
    /* The next goes on where it ended: now there is something to guess from. */
    check_span(dpt_store_run_read(&run, whole(384 * MIB, 2 * MIB), 384 * MIB, 2 * MIB), 384 * MIB,
               34 * MIB);
}

static void test_written(void **state) {
    (void)state;
    dpt_store_run run = {.begin = 0};
    for (int c = 0; c < 3; c++)
        check_span(dpt_store_run_written(&run, 1000 + c * 2 * MIB, 2 * MIB), 0, 0);
    check_span(dpt_store_run_written(&run, 1000 + 6 * MIB, 2 * MIB), 1000, 8 * MIB);
    check_span(dpt_store_run_written(&run, 1000 + 8 * MIB, 5 * MIB), 0, 0);
    /* Elsewhere: what is left of the run goes, but for what fsync takes as well. */
    check_span(dpt_store_run_written(&run, 500 * MIB, 3), 1000 + 8 * MIB, 5 * MIB);
    check_span(dpt_store_run_written(&run, 900 * MIB, 3), 0, 0);
    check_span(dpt_store_run_written(&run, 900 * MIB + 3, 9 * MIB), 900 * MIB, 9 * MIB + 3);
}

/* Through a file: advice that fails changes nothing, and all but the last of what is written goes early. */
static void test_file(void **state) {
    (void)state;
    char path[] = "/tmp/deltapath-run-XXXXXX";
    char *const paths[] = {path};
    const int64_t size = 40 * MIB + 7, cell = 2 * MIB;
    int fd = mkstemp(path);
    assert_true(fd >= 0 && close(fd) == 0);
    unsigned char *made = malloc((size_t)size), *back = malloc((size_t)size);
    assert_true(made != NULL && back != NULL);
    for (int64_t i = 0; i < size; i++)
        made[i] = (unsigned char)(i * 40503 >> 8);
    dpt_store_files files;
    assert_int_equal(dpt_store_files_init(&files, 1, paths, true), DPT_OK);
    ncalls = 0;
    for (int64_t at = 0; at < size; at += cell) {
        int64_t n = size - at < cell ? size - at : cell;
        assert_int_equal(dpt_store_files_write(&files, 0, at, n, made + at, "t"), DPT_OK);
    }
    assert_int_equal(dpt_store_files_close(&files, true), DPT_OK);
    assert_int_equal(ncalls, 5);
    for (int i = 0; i < ncalls; i++)
        check_span((dpt_store_span){calls[i].offset, calls[i].bytes}, i * 8 * MIB, 8 * MIB);
    assert_int_equal(dpt_store_files_init(&files, 1, paths, false), DPT_OK);
    ncalls = 0;
    for (int64_t at = 0; at < size; at += cell) {
        int64_t n = size - at < cell ? size - at : cell;
        assert_int_equal(dpt_store_files_read(&files, 0, at, n, back + at, "t"), DPT_OK);
    }
    assert_true(ncalls > 3);
    assert_memory_equal(made, back, (size_t)size);
    memset(back, 0, (size_t)size);
    ncalls = 0;
    assert_int_equal(dpt_store_files_read(&files, 0, 0, size, back, "t"), DPT_OK);
    assert_memory_equal(made, back, (size_t)size);
    assert_int_equal(ncalls, 1); /* a piece of 16 MiB and the rest, which is less than 32 MiB */
    assert_int_equal(dpt_store_files_read(&files, 0, size - 1, 2, back, "t"), DPT_ERR_INPUT);
    test_error_says("became shorter");
    assert_int_equal(dpt_store_files_close(&files, false), DPT_OK);
    unlink(path);
    free(made);
    free(back);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reader_in_order),
        cmocka_unit_test(test_single_reads),
        cmocka_unit_test(test_written),
        cmocka_unit_test(test_file),
    };
    return test_mpi_main(argc, argv, tests);
}
