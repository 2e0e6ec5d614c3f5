/* ranks: 1 2 3 4 */
#include "support/test_mpi.h"

#include "deltapath/base/log.h"
#include "deltapath/base/signal.h"
#include "deltapath/comm/stop.h"

#include <signal.h>
#include <unistd.h>

/* Look until a stop arrives, at most 20 s. */
static bool await_stop(void) {
    double until = dpt_log_seconds() + 20;
    while (!dpt_stop_asked() && dpt_log_seconds() < until)
        usleep(100);
    return dpt_stop_asked();
}

static void none_asked(void **fixture) {
    (void)fixture;
    assert_int_equal(dpt_stop_create(&test_comm, dpt_log_seconds(), 0), DPT_OK);
    dpt_stop_count_work();
    for (int i = 0; i < 1000; i++)
        assert_int_equal(dpt_stop_check(), DPT_OK);
    dpt_stop_destroy();
}

static void time_counts_once_work_is_done(void **fixture) {
    (void)fixture;
    double before = dpt_log_seconds() - 100;
    /* The rank that began first counts: the last of the test_comm. */
    bool last = test_comm.rank == test_comm.size - 1;
    assert_int_equal(dpt_stop_create(&test_comm, last ? before : dpt_log_seconds(), 99), DPT_OK);
    assert_false(dpt_stop_asked());
    MPI_Barrier(test_comm.mpi);
    dpt_stop_count_work();
    assert_true(dpt_stop_asked());
    assert_int_equal(dpt_stop_check(), DPT_INTERRUPTED);
    assert_non_null(strstr(dpt_error_message(), "time limit"));
    dpt_error_clear();
    dpt_stop_destroy();
}

static void time_of_one_rank_stops_all(void **fixture) {
    (void)fixture;
    assert_int_equal(dpt_stop_create(&test_comm, dpt_log_seconds() - 5, 1), DPT_OK);
    if (test_comm.rank == test_comm.size - 1)
        dpt_stop_count_work();
    assert_true(await_stop());
    assert_int_equal(dpt_stop_check(), DPT_INTERRUPTED);
    assert_non_null(strstr(dpt_error_message(), "time limit"));
    dpt_error_clear();
    dpt_stop_destroy();
}

/* Messages that nobody looked for are received at the end: one of each rank to each other. */
static void unread_messages(void **fixture) {
    (void)fixture;
    for (int i = 0; i < 20; i++) {
        assert_int_equal(dpt_stop_create(&test_comm, dpt_log_seconds() - 5, 1), DPT_OK);
        if (test_comm.rank % 2 == 0) {
            dpt_stop_count_work();
            assert_true(dpt_stop_asked());
        }
        dpt_stop_destroy();
        assert_false(dpt_stop_asked());
    }
}

/* Last: the flag of a signal stays. */
static void signal_of_one_rank_stops_all(void **fixture) {
    (void)fixture;
    dpt_signal_hold();
    if (test_comm.rank == 0)
        raise(SIGUSR1); /* before the program is ready for it */
    assert_false(dpt_signal_stop());
    dpt_signal_install();
    assert_int_equal(dpt_signal_stop(), test_comm.rank == 0);
    assert_int_equal(dpt_stop_create(&test_comm, dpt_log_seconds(), 0), DPT_OK);
    assert_true(await_stop());
    assert_int_equal(dpt_stop_check(), DPT_INTERRUPTED);
    assert_non_null(strstr(dpt_error_message(), "signal"));
    dpt_error_clear();
    dpt_stop_destroy();
}

static void times(void **fixture) {
    (void)fixture;
    static const struct {
        const char *text;
        double seconds; /* 0: refused */
    } rows[] = {{"1", 1},
                {"3600", 3600},
                {"0.5", 0.5},
                {"05:00", 300},
                {"90:30", 5430},
                {"1:02:03", 3723},
                {"100:00:00", 360000},
                {"1-12", 129600},
                {"1-12:30", 131400},
                {"2-00:00:01", 172801},
                {"0", 0},
                {"", 0},
                {"-5", 0},
                {"abc", 0},
                {"5s", 0},
                {"1:60", 0},
                {"1:60:00", 0},
                {"1:00:60", 0},
                {"1:2:3:4", 0},
                {"1-24", 0},
                {"1-", 0},
                {"-1", 0},
                {"1--2", 0},
                {"1:", 0},
                {":30", 0},
                {"nan", 0},
                {"inf", 0},
                {"0x10", 0},
                {"1-2x", 0},
                {"1e300", 0},
                {"0:00:00", 0},
                {" 5", 0},
                {"1:-5", 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double seconds = -1;
        dpt_status st = dpt_stop_parse_time(rows[i].text, "--max-time", &seconds);
        if (rows[i].seconds > 0 && (st != DPT_OK || seconds != rows[i].seconds))
            fail_msg("%s: %g s", rows[i].text, seconds);
        if (rows[i].seconds == 0 && (st != DPT_ERR_USAGE || seconds != -1))
            fail_msg("'%s' is taken as %g s", rows[i].text, seconds);
        dpt_error_clear();
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times),
        cmocka_unit_test(none_asked),
        cmocka_unit_test(time_counts_once_work_is_done),
        cmocka_unit_test(time_of_one_rank_stops_all),
        cmocka_unit_test(unread_messages),
        cmocka_unit_test(signal_of_one_rank_stops_all),
    };
    return test_mpi_main(argc, argv, tests);
}
