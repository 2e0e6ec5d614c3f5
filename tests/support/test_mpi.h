#ifndef DELTAPATH_TESTS_TEST_MPI_H
#define DELTAPATH_TESTS_TEST_MPI_H

/* Include this in place of cmocka.h in a test that runs on several ranks. cmocka jumps out of a
 * failing test, so a failing rank may leave the others inside a collective: the runner's time limit
 * and MPI_Abort here turn that into a failure, never a hang. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <mpi.h>
#include <stdio.h>
#include <string.h>

#include "deltapath/base/guard.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/status.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/comm.h"
#include "deltapath/comm/same.h"

static dpt_comm test_comm;

/* The first error of this rank says `named`; forget it. */
static inline void test_error_says(const char *named) {
    if (strstr(dpt_error_message(), named) == NULL)
        fail_msg("no \"%s\" in: %s", named, dpt_error_message());
    dpt_error_clear();
}

/* A value is the same on all ranks. Collective. */
static inline void test_same_on_all(uint64_t value) {
    int differ[2];
    if (!dpt_same_on_all(&test_comm, value, differ))
        fail_msg("ranks %d and %d differ", differ[0], differ[1]);
}

/* Group setup: the world communicator in `test_comm`. */
static int test_mpi_setup(void **state) {
    (void)state;
    return dpt_comm_create(MPI_COMM_WORLD, &test_comm) == DPT_OK ? 0 : -1;
}

static int test_mpi_teardown(void **state) {
    (void)state;
    dpt_comm_destroy(&test_comm);
    dpt_guard_clear();
    return dpt_mem_in_use() == 0 ? 0 : -1; /* memory balances */
}

/* `return test_mpi_main(argc, argv, tests)`: the exit code is non-zero on every rank if any rank
 * failed. */
#define test_mpi_main(argc, argv, tests)                                                           \
    test_mpi_run(&(argc), &(argv), #tests, tests, sizeof(tests) / sizeof((tests)[0]))

static int test_mpi_run(int *argc, char ***argv, const char *name, const struct CMUnitTest *tests,
                        size_t count) {
    MPI_Init(argc, argv);
    int rank, size;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    dpt_agree_set_world(rank, size);
    if (rank != 0 && freopen("/dev/null", "w", stdout) == NULL)
        return 1;
    cmocka_set_message_output(CM_OUTPUT_TAP);
    int failed = _cmocka_run_group_tests(name, tests, count, test_mpi_setup, test_mpi_teardown);
    if (failed != 0) {
        fprintf(stderr, "rank %d of %d: %d failed\n", rank, size, failed);
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
    MPI_Finalize();
    return failed != 0;
}

#endif
