#include "deltapath/base/signal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WENT_ON = 7, STOPPED = 8 };

/* In a child, which may die of it. @return its wait status. */
static int in_child(void (*act)(void)) {
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        act();
        _exit(dpt_signal_stop() ? STOPPED : WENT_ON);
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void each_once(void) {
    dpt_signal_install();
    raise(SIGTERM);
    raise(SIGUSR1);
    raise(SIGTERM);
    raise(SIGINT); /* after a SIGTERM it is the second wish */
}

static void one_of(int number) {
    dpt_signal_install();
    raise(number);
}

static void one_int(void) {
    one_of(SIGINT);
}

static void one_term(void) {
    one_of(SIGTERM);
}

static void one_usr1(void) {
    one_of(SIGUSR1);
}

static void two_int(void) {
    one_of(SIGINT);
    raise(SIGINT);
}

static void none(void) {
    dpt_signal_install();
}

static void held(void) {
    dpt_signal_hold();
    raise(SIGUSR1);
    if (dpt_signal_stop())
        _exit(1); /* it came before its time */
    dpt_signal_install();
}

static void a_signal_asks_for_a_stop(void **state) {
    (void)state;
    assert_int_equal(WEXITSTATUS(in_child(none)), WENT_ON);
    assert_int_equal(WEXITSTATUS(in_child(one_int)), STOPPED);
    assert_int_equal(WEXITSTATUS(in_child(one_term)), STOPPED);
    assert_int_equal(WEXITSTATUS(in_child(one_usr1)), STOPPED);
}

static void a_second_interrupt_ends(void **state) {
    (void)state;
    int status = in_child(two_int);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
    status = in_child(each_once);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
}

static void held_signals_count_later(void **state) {
    (void)state;
    int status = in_child(held);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), STOPPED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_signal_asks_for_a_stop),
        cmocka_unit_test(a_second_interrupt_ends),
        cmocka_unit_test(held_signals_count_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
