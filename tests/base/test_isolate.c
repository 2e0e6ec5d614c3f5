/* Work in a child process: its answer, its crash, and signals that the scheduler sends to all processes. */
#include "deltapath/base/isolate.h"

#include "deltapath/base/mem.h"
#include "deltapath/base/signal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Raises a signal, if there is one, and answers. */
static dpt_status answer(void *ctx, char **bytes, int64_t *n) {
    const int *number = ctx;
    if (*number != 0)
        raise(*number);
    *bytes = dpt_mem_strdup("answer", "answer");
    *n = (int64_t)sizeof "answer";
    return *bytes != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

static void answers(int number) {
    char *bytes = NULL;
    int64_t n = 0;
    assert_int_equal(dpt_isolate_run("file.h5", answer, &number, &bytes, &n), DPT_OK);
    assert_int_equal(n, sizeof "answer");
    assert_string_equal(bytes, "answer");
    dpt_mem_free(bytes);
}

static void dies_as(int number, dpt_status code, const char *word) {
    char *bytes = NULL;
    int64_t n = 0;
    assert_int_equal(dpt_isolate_run("file.h5", answer, &number, &bytes, &n), code);
    assert_non_null(strstr(dpt_error_message(), "file.h5"));
    assert_non_null(strstr(dpt_error_message(), word));
    dpt_error_clear();
    assert_int_equal(dpt_isolate_write("file.h5", answer, &number, &bytes, &n), DPT_ERR_OUTPUT);
    dpt_error_clear();
    assert_null(bytes);
}

static void dies(int number) {
    dies_as(number, DPT_ERR_INPUT, "corrupt");
}

static void the_answer_comes_back(void **state) {
    (void)state;
    answers(0);
}

static void a_crash_is_an_error(void **state) {
    (void)state;
    dies(SIGSEGV);
    dies(SIGABRT);
}

/* A system without memory kills; the file is not to blame. */
static void a_killed_child_is_no_corrupt_file(void **state) {
    (void)state;
    dies_as(SIGKILL, DPT_ERR_OUTPUT, "memory");
}

/* Fails as a library does whose memory is refused. */
static dpt_status refused(void *ctx, char **bytes, int64_t *n) {
    (void)bytes;
    (void)n;
    if (ctx != NULL)
        raise(SIGSEGV);
    return dpt_error(DPT_ERR_INPUT, "file.h5: not an HDF5 file");
}

/* The shadow of the address sanitizer needs more than any limit. */
#ifdef __SANITIZE_ADDRESS__
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

static int64_t mapped_bytes(void) {
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%ld", &pages), 1);
    fclose(file);
    return (int64_t)pages * sysconf(_SC_PAGESIZE);
}

static void refused_memory_is_no_corrupt_file(void **state) {
    (void)state;
    int crashes = 1;
    void *const how[] = {NULL, &crashes};
    struct rlimit before, tight;
    getrlimit(RLIMIT_AS, &before);
    for (int i = 0; i < 2; i++) {
        char *bytes = NULL;
        int64_t n = 0;
        assert_int_equal(dpt_isolate_run("file.h5", refused, how[i], &bytes, &n), DPT_ERR_INPUT);
        dpt_error_clear();
        if (SANITIZED)
            continue;
        tight = (struct rlimit){(rlim_t)mapped_bytes() + (4 << 20), before.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_AS, &tight), 0);
        dpt_status st = dpt_isolate_run("file.h5", refused, how[i], &bytes, &n);
        setrlimit(RLIMIT_AS, &before);
        assert_int_equal(st, DPT_ERR_OUTPUT);
        assert_non_null(strstr(dpt_error_message(), "16 MiB"));
        dpt_error_clear();
    }
}

/* Without a handler, as in verbs that do not stop, a signal ends the child as it ends the parent. */
static void a_stop_does_not_end_the_child(void **state) {
    (void)state;
    dies_as(SIGTERM, DPT_ERR_OUTPUT, "signal 15");
    dpt_signal_install();
    answers(SIGTERM);
    answers(SIGUSR1);
    answers(SIGINT);
    assert_false(dpt_signal_stop()); /* only the child was asked */
    dies(SIGSEGV);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_answer_comes_back),
        cmocka_unit_test(a_crash_is_an_error),
        cmocka_unit_test(a_killed_child_is_no_corrupt_file),
        cmocka_unit_test(refused_memory_is_no_corrupt_file),
        cmocka_unit_test(a_stop_does_not_end_the_child),
    };
    return cmocka_run_group_tests_name("isolate", tests, NULL, NULL);
}
