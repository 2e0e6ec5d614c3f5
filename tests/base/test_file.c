#include "support/test_mpi.h"

#include "deltapath/base/file.h"
#include "deltapath/base/hash.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/sealed.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[64];
static char path[128], temporary[200];

static int setup(void **state) {
    (void)state;
    strcpy(folder, "/tmp/dpt-file-XXXXXX");
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/file", folder);
    char *name = dpt_file_temporary(path);
    snprintf(temporary, sizeof temporary, "%s", name);
    dpt_mem_free(name);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    char command[128];
    umount2(folder, MNT_DETACH);
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

static void check_content(const char *expected, int64_t n) {
    char *bytes = NULL;
    int64_t got = 0;
    assert_int_equal(dpt_file_read(path, 1 << 20, &bytes, &got), DPT_OK);
    assert_int_equal(got, n);
    assert_memory_equal(bytes, expected, (size_t)n);
    assert_int_equal(bytes[n], 0);
    dpt_mem_free(bytes);
}

static void check_error(const char *text) {
    if (strstr(dpt_error_message(), text) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", text, dpt_error_message());
    dpt_error_clear();
}

static void writes_whole_or_not_at_all(void **state) {
    (void)state;
    assert_int_equal(dpt_file_write(path, "", 0), DPT_OK);
    check_content("", 0);
    assert_int_equal(dpt_file_write(path, "first", 5), DPT_OK);
    check_content("first", 5);
    const dpt_file_piece pieces[] = {{"sec", 3}, {"", 0}, {"ond", 3}};
    assert_int_equal(dpt_file_put(path, pieces, 3), DPT_OK);
    check_content("first", 5); /* not before the commit */
    assert_int_equal(access(temporary, F_OK), 0);
    assert_int_equal(dpt_file_commit(path), DPT_OK);
    check_content("second", 6);
    assert_int_equal(dpt_file_put(path, pieces, 3), DPT_OK);
    dpt_file_discard(path);
    check_content("second", 6);
    assert_int_not_equal(access(temporary, F_OK), 0);
    assert_int_equal(dpt_file_commit(path), DPT_ERR_OUTPUT); /* nothing was put */
    check_error(path);
    check_content("second", 6);
    /* A stale temporary file, or one of another owner's making, is no way to write elsewhere. */
    assert_int_equal(symlink("/tmp/dpt-file-elsewhere", temporary), 0);
    assert_int_equal(dpt_file_write(path, "third", 5), DPT_OK);
    assert_int_not_equal(access("/tmp/dpt-file-elsewhere", F_OK), 0);
    check_content("third", 5);
    assert_int_equal(dpt_file_write("/nowhere/at/all", "x", 1), DPT_ERR_OUTPUT);
    check_error("/nowhere/at/all");
}

/* Run a function in another process; its end is waited for. */
static void elsewhere(void (*work)(void)) {
    pid_t child = fork();
    int state = 0;
    if (child == 0) {
        work();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &state, 0), child);
    assert_true(WIFEXITED(state) && WEXITSTATUS(state) == 0);
}

static void put_and_die(void) {
    const dpt_file_piece piece = {"other", 5};
    if (dpt_file_put(path, &piece, 1) != DPT_OK)
        _exit(1);
}

static void write_elsewhere(void) {
    if (dpt_file_write(path, "other", 5) != DPT_OK)
        _exit(1);
}

/* Each has a temporary file of its own: the file is always one of the two, whole, and the last one wins. */
static void writers_do_not_mix(void **state) {
    (void)state;
    const dpt_file_piece piece = {"this", 4};
    assert_int_equal(dpt_file_put(path, &piece, 1), DPT_OK);
    elsewhere(write_elsewhere);
    check_content("other", 5);
    assert_int_equal(dpt_file_commit(path), DPT_OK);
    check_content("this", 4);
}

static int count_temporaries(void) {
    int count = 0;
    DIR *opened = opendir(folder);
    for (const struct dirent *entry; (entry = readdir(opened)) != NULL;)
        count += dpt_file_temporary_stem(entry->d_name) == 4;
    closedir(opened);
    return count;
}

static void make_empty(const char *ending) {
    char name[200];
    snprintf(name, sizeof name, "%s%s", path, ending);
    int fd = open(name, O_WRONLY | O_CREAT, 0666);
    assert_true(fd >= 0);
    close(fd);
}

/* What is left is removed once nobody can be writing it: of this machine when the process has ended, of others
 * for the holder of a lock. Names that only resemble stay. */
static void sweeps_what_is_left(void **state) {
    (void)state;
    const dpt_file_piece piece = {"this", 4};
    static const char *const others[] = {".partial-deltapath.lock",
                                         ".partial-deltapath.0123abcd.12x",
                                         ".partial-deltapath.0123abc.12", ".partial"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        make_empty(others[i]);
    assert_int_equal(count_temporaries(), 0);
    make_empty(".partial-deltapath");
    make_empty(".partial-deltapath.0123abcd.1");
    elsewhere(put_and_die);
    elsewhere(put_and_die);
    assert_int_equal(dpt_file_put(path, &piece, 1), DPT_OK);
    assert_int_equal(count_temporaries(), 5);
    dpt_file_sweep(folder, "fil", false);
    assert_int_equal(count_temporaries(), 5);
    dpt_file_sweep_of(path);
    assert_int_equal(count_temporaries(), 2);
    assert_int_equal(dpt_file_commit(path), DPT_OK);
    check_content("this", 4);
    dpt_file_sweep(folder, NULL, true);
    assert_int_equal(count_temporaries(), 0);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char name[200];
        snprintf(name, sizeof name, "%s%s", path, others[i]);
        assert_int_equal(access(name, F_OK), 0);
    }
    assert_int_equal(dpt_file_temporary_stem(".partial-deltapath"), 0);
    assert_int_equal(dpt_file_temporary_stem("a.partial-deltapath.partial-deltapath"), 19);
}

static void full_disk_leaves_the_old_file(void **state) {
    (void)state;
    if (getenv("DPT_TEST_NO_MOUNT") != NULL || mount("none", folder, "tmpfs", 0, "size=64k") != 0)
        skip();
    static char large[1 << 18];
    memset(large, 'x', sizeof large);
    assert_int_equal(dpt_file_write(path, "old", 3), DPT_OK);
    assert_int_equal(dpt_file_write(path, large, sizeof large), DPT_ERR_OUTPUT);
    check_error("No space left");
    assert_int_not_equal(access(temporary, F_OK), 0);
    check_content("old", 3);
    assert_int_equal(dpt_sealed_write(path, large, sizeof large), DPT_ERR_OUTPUT);
    check_error(path);
    check_content("old", 3);
    assert_int_equal(dpt_file_write(path, "new", 3), DPT_OK);
    check_content("new", 3);
}

static void refused_input(const char *what, const char *reason) {
    char *bytes = NULL;
    int64_t n = 0;
    assert_int_equal(dpt_file_open_input(what), -1);
    check_error(reason);
    assert_int_equal(dpt_file_read(what, 100, &bytes, &n), DPT_ERR_INPUT);
    check_error(what);
    assert_null(bytes);
}

/* None of these may be waited for. */
static void opens_regular_files_only(void **state) {
    (void)state;
    refused_input(path, "No such file");
    refused_input(folder, "no regular file");
    refused_input("/dev/zero", "no regular file");
    assert_int_equal(mkfifo(path, 0666), 0);
    refused_input(path, "no regular file");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(dpt_file_write(path, "abcdef", 6), DPT_OK);
    char other[160], read[8] = "";
    snprintf(other, sizeof other, "%s.link", path);
    assert_int_equal(symlink("file", other), 0);
    int fd = dpt_file_open_input(other);
    assert_true(fd >= 0);
    assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    assert_int_equal(dpt_file_read_at(fd, 2, read, 3), 3);
    assert_string_equal(read, "cde");
    assert_int_equal(dpt_file_read_at(fd, 4, read, 8), 2);
    assert_int_equal(dpt_file_read_at(fd, 40, read, 8), 0);
    close(fd);
    assert_int_equal(dpt_file_read_at(fd, 0, read, 8), -1);
    char *bytes = NULL;
    int64_t n = 0;
    assert_int_equal(dpt_file_read(path, 5, &bytes, &n), DPT_ERR_INPUT);
    check_error("6 bytes exceed the limit of 5");
}

static void identity_tells_changes(void **state) {
    (void)state;
    dpt_file_identity a, b;
    assert_int_equal(dpt_file_identify(path, &a), DPT_ERR_INPUT);
    check_error(path);
    assert_int_equal(dpt_file_write(path, "abc", 3), DPT_OK);
    assert_int_equal(dpt_file_identify(path, &a), DPT_OK);
    assert_int_equal(a.size, 3);
    int fd = open(path, O_RDWR);
    assert_int_equal(dpt_file_identify_open(fd, path, &b), DPT_OK);
    assert_true(dpt_file_same(&a, &b) && dpt_file_same_content(&a, &b));
    b.device++;
    assert_true(!dpt_file_same(&a, &b) && dpt_file_same_content(&a, &b));
    usleep(20000); /* longer than a tick of the file system's clock */
    const struct timespec back[2] = {{.tv_nsec = UTIME_OMIT},
                                     {a.mtime / 1000000000, a.mtime % 1000000000}};
    assert_int_equal(pwrite(fd, "y", 1, 0), 1);
    assert_int_equal(futimens(fd, back), 0); /* as a copy that keeps times does */
    assert_int_equal(dpt_file_identify(path, &b), DPT_OK);
    assert_true(a.mtime == b.mtime && !dpt_file_same_content(&a, &b));
    assert_int_equal(pwrite(fd, "x", 1, 0), 1);
    close(fd);
    assert_int_equal(dpt_file_identify(path, &b), DPT_OK);
    assert_false(dpt_file_same_content(&a, &b));
    assert_int_equal(dpt_file_write(path, "abc", 3), DPT_OK);
    assert_int_equal(dpt_file_identify(path, &b), DPT_OK);
    assert_false(dpt_file_same_content(&a, &b));
}

/* A backup by hard links, or other permissions, leave the content as it was; a write next to them does not. */
static void identity_ignores_links_and_permissions(void **state) {
    (void)state;
    dpt_file_identity a, b;
    char other[512];
    snprintf(other, sizeof other, "%s.link", path);
    assert_int_equal(dpt_file_write(path, "abc", 3), DPT_OK);
    assert_int_equal(dpt_file_identify(path, &a), DPT_OK);
    usleep(20000);
    assert_int_equal(link(path, other), 0);
    assert_int_equal(dpt_file_identify(path, &b), DPT_OK);
    assert_true(a.ctime != b.ctime && dpt_file_same_content(&a, &b) && dpt_file_same(&a, &b));
    a = b;
    usleep(20000);
    assert_int_equal(chmod(path, 0400), 0);
    assert_int_equal(dpt_file_identify(path, &b), DPT_OK);
    assert_true(a.ctime != b.ctime && dpt_file_same_content(&a, &b));
    assert_int_equal(chmod(path, 0600), 0);
    usleep(20000);
    int fd = open(other, O_WRONLY);
    assert_int_equal(pwrite(fd, "y", 1, 0), 1);
    close(fd);
    assert_int_equal(dpt_file_identify(path, &b), DPT_OK);
    assert_false(dpt_file_same_content(&a, &b));
    assert_int_equal(unlink(other), 0);
}

/* The trailer is XXH3-128 as other programs print it, and each flipped bit, cut or addition is found. */
static void seal_covers_every_bit(void **state) {
    (void)state;
    static const char text[] = "deltapath-xxh128 06b05ab6733a618578af5f94892f3950 0000000000000003";
    char *bytes = NULL;
    int64_t n = 0, whole = 0;
    assert_int_equal(dpt_sealed_write(path, "abc", 3), DPT_OK);
    assert_int_equal(dpt_file_read(path, 1 << 20, &bytes, &whole), DPT_OK);
    assert_int_equal(whole, 3 + DPT_SEAL_BYTES);
    assert_memory_equal(bytes + 3, text, strlen(text));
    assert_int_equal(bytes[whole - 1], '\n');
    for (int64_t bit = 0; bit < 8 * whole; bit++) {
        bytes[bit / 8] ^= (char)(1 << bit % 8);
        assert_false(dpt_seal_check(bytes, whole, &n));
        bytes[bit / 8] ^= (char)(1 << bit % 8);
    }
    for (int64_t cut = 0; cut < whole; cut++)
        assert_false(dpt_seal_check(bytes, cut, &n));
    assert_false(dpt_seal_check(bytes, whole + 1, &n)); /* the terminator after it */
    assert_true(dpt_seal_check(bytes, whole, &n) && n == 3);
    assert_int_equal(truncate(path, whole - 1), 0);
    dpt_mem_free(bytes);
    assert_int_equal(dpt_sealed_read(path, 1 << 20, &bytes, &n), DPT_ERR_INPUT);
    check_error("checksum");
    assert_null(bytes);
    assert_int_equal(dpt_sealed_write(path, "", 0), DPT_OK);
    assert_int_equal(dpt_sealed_read(path, 1 << 20, &bytes, &n), DPT_OK);
    assert_int_equal(n, 0);
    assert_int_equal(bytes[0], 0);
    dpt_mem_free(bytes);
}

static void hash128_streams(void **state) {
    (void)state;
    uint64_t one[2], other[2];
    dpt_hash hash;
    char data[5000];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (char)(i * i % 251);
    dpt_hash_begin(&hash);
    for (size_t at = 0, step = 1; at < sizeof data; at += step, step = step * 3 + 1) {
        step = step < sizeof data - at ? step : sizeof data - at;
        dpt_hash_update(&hash, data + at, step);
    }
    dpt_hash128_value(&hash, one);
    dpt_hash128_bytes(data, sizeof data, other);
    assert_memory_equal(one, other, sizeof one);
    assert_true(dpt_hash_value(&hash) == dpt_hash_bytes(data, sizeof data));
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(writes_whole_or_not_at_all, setup, teardown),
        cmocka_unit_test_setup_teardown(writers_do_not_mix, setup, teardown),
        cmocka_unit_test_setup_teardown(sweeps_what_is_left, setup, teardown),
        cmocka_unit_test_setup_teardown(full_disk_leaves_the_old_file, setup, teardown),
        cmocka_unit_test_setup_teardown(opens_regular_files_only, setup, teardown),
        cmocka_unit_test_setup_teardown(identity_tells_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(identity_ignores_links_and_permissions, setup, teardown),
        cmocka_unit_test_setup_teardown(seal_covers_every_bit, setup, teardown),
        cmocka_unit_test(hash128_streams),
    };
    return test_mpi_main(argc, argv, tests);
}
