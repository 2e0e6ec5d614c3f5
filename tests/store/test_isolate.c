/* Work in a child process: its answer, its crash, and signals that the scheduler sends to all processes. */
#include "deltapath/store/isolate.h"

#include "deltapath/base/mem.h"
#include "deltapath/base/signal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <string.h>

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

static void dies(int number) {
    char *bytes = NULL;
    int64_t n = 0;
    assert_int_equal(dpt_isolate_run("file.h5", answer, &number, &bytes, &n), DPT_ERR_INPUT);
    assert_non_null(strstr(dpt_error_message(), "file.h5"));
    dpt_error_clear();
    assert_int_equal(dpt_isolate_write("file.h5", answer, &number, &bytes, &n), DPT_ERR_OUTPUT);
    dpt_error_clear();
    assert_null(bytes);
}

static void the_answer_comes_back(void **state) {
    (void)state;
    answers(0);
}

static void a_crash_is_an_error(void **state) {
    (void)state;
    dies(SIGSEGV);
    dies(SIGABRT);
    dies(SIGKILL);
}

/* Without a handler, as in verbs that do not stop, a signal ends the child as it ends the parent. */
static void a_stop_does_not_end_the_child(void **state) {
    (void)state;
    dies(SIGTERM);
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
        cmocka_unit_test(a_stop_does_not_end_the_child),
    };
    return cmocka_run_group_tests_name("isolate", tests, NULL, NULL);
}
