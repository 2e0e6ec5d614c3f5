/* ranks: 1 2 3 4 */
#include "support/test_mpi.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

static int forget(void **state) {
    (void)state;
    unsetenv("DPT_FAULT");
    dpt_error_clear();
    return 0;
}

static void all_well(void **state) {
    (void)state;
    (void)dpt_error(DPT_ERR_INPUT, "an error that was fixed");
    assert_int_equal(dpt_agree(&test_comm, DPT_OK), DPT_OK);
    assert_string_equal(dpt_error_message(), "an error that was fixed");
}

static void one_failing_rank_speaks(void **state) {
    (void)state;
    static const dpt_status statuses[] = {DPT_ERR_USAGE, DPT_ERR_INPUT, DPT_ERR_OUTPUT,
                                          DPT_ERR_INTERNAL, DPT_INTERRUPTED};
    for (int s = 0; s < 5; s++)
        for (int culprit = 0; culprit < test_comm.size; culprit++) {
            dpt_status st = DPT_OK;
            if (test_comm.rank == culprit)
                st = dpt_error(statuses[s], "file %d: reason", culprit);
            assert_int_equal(dpt_agree(&test_comm, st), statuses[s]);
            char expected[64];
            snprintf(expected, sizeof expected, "[rank %d] file %d: reason", culprit, culprit);
            assert_string_equal(dpt_error_message(), expected);
            /* Agreeing once more changes nothing. */
            assert_int_equal(dpt_agree(&test_comm, statuses[s]), statuses[s]);
            assert_string_equal(dpt_error_message(), expected);
            dpt_error_clear();
        }
}

static void worst_status_and_lowest_rank_win(void **state) {
    (void)state;
    dpt_status st = DPT_OK;
    if (test_comm.rank == 0)
        st = dpt_error(DPT_ERR_USAGE, "mild");
    if (test_comm.rank > 0)
        st = dpt_error(DPT_ERR_OUTPUT, "grave on %d", test_comm.rank);
    bool alone = test_comm.size == 1;
    assert_int_equal(dpt_agree(&test_comm, st), alone ? DPT_ERR_USAGE : DPT_ERR_OUTPUT);
    assert_string_equal(dpt_error_message(), alone ? "[rank 0] mild" : "[rank 1] grave on 1");
}

/* All ranks know the status, one alone the reason. */
static void reason_is_not_lost(void **state) {
    (void)state;
    if (test_comm.rank == test_comm.size - 1)
        (void)dpt_error(DPT_ERR_OUTPUT, "no space");
    assert_int_equal(dpt_agree(&test_comm, DPT_ERR_OUTPUT), DPT_ERR_OUTPUT);
    char expected[64];
    snprintf(expected, sizeof expected, "[rank %d] no space", test_comm.size - 1);
    assert_string_equal(dpt_error_message(), expected);
}

static void failure_without_any_message(void **state) {
    (void)state;
    assert_int_equal(dpt_agree(&test_comm, DPT_INTERRUPTED), DPT_INTERRUPTED);
    assert_string_equal(dpt_error_message(), "");
}

static volatile sig_atomic_t signalled;

static void on_usr1(int number) {
    (void)number;
    signalled = 1;
}

static void faults(void **state) {
    (void)state;
    assert_int_equal(dpt_agree_fault("first"), DPT_OK);
    setenv("DPT_FAULT", "second:0", 1);
    assert_int_equal(dpt_agree_fault("other"), DPT_OK);
    dpt_status st = dpt_agree_fault("second");
    assert_int_equal(st, test_comm.rank == 0 ? DPT_ERR_OUTPUT : DPT_OK);
    assert_int_equal(dpt_agree(&test_comm, st), DPT_ERR_OUTPUT);
    assert_string_equal(dpt_error_message(), "[rank 0] injected fault at second");
    dpt_error_clear();
    assert_int_equal(dpt_agree_fault("second"), DPT_OK); /* once */
    setenv("DPT_FAULT", "third:last:2", 1);
    assert_int_equal(dpt_agree_fault("third"), DPT_OK);
    st = dpt_agree_fault("third");
    assert_int_equal(st, test_comm.rank == test_comm.size - 1 ? DPT_ERR_OUTPUT : DPT_OK);
    assert_int_equal(dpt_agree_fault("third"), DPT_OK);
    signal(SIGUSR1, on_usr1);
    setenv("DPT_FAULT", "fourth:last:1:usr1", 1);
    assert_int_equal(dpt_agree_fault("fourth"), DPT_OK);
    assert_int_equal(signalled, test_comm.rank == test_comm.size - 1);
    static const char *const broken[] = {"", ":", "fifth", "fifth:", "::::", "fifth:99"};
    for (int i = 0; i < 6; i++) {
        setenv("DPT_FAULT", broken[i], 1);
        assert_int_equal(dpt_agree_fault("fifth"), DPT_OK);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(all_well, forget),
        cmocka_unit_test_teardown(one_failing_rank_speaks, forget),
        cmocka_unit_test_teardown(worst_status_and_lowest_rank_win, forget),
        cmocka_unit_test_teardown(reason_is_not_lost, forget),
        cmocka_unit_test_teardown(failure_without_any_message, forget),
        cmocka_unit_test_teardown(faults, forget),
    };
    return test_mpi_main(argc, argv, tests);
}
