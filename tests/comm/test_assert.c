/* ranks: 1 2 3 */
#include "support/test_mpi.h"

#include "deltapath/comm/same.h"

/* With an argument it breaks one promise, for test_contracts.sh, and says whether checks are on. */
static void break_condition(int rank) {
    int64_t begin = 3, end = rank == 1 ? 2 : 4;
    DPT_ASSERT(begin <= end);
}

static void break_number(int rank) {
    int64_t rows = rank == 1 ? 5 : 4;
    DPT_ASSERT_SAME(&test_comm, rows);
}

static void break_text(int rank) {
    const char *path = rank == 0 ? NULL : "";
    DPT_ASSERT_SAME_TEXT(&test_comm, path);
}

static void break_array(int rank) {
    double weights[3] = {1.0, 2.0, rank == 1 ? 4.0 : 3.0};
    DPT_ASSERT_SAME_ARRAY(&test_comm, weights, 3);
}

static void break_call(int rank) {
    int64_t n = rank == 1 ? 2 : 1;
    double values[2] = {0.0, 0.0};
    (void)dpt_comm_sum_f64(&test_comm, values, n);
}

static int break_one(int *argc, char ***argv) {
    static const struct {
        const char *name;
        void (*breaks)(int rank);
    } ways[] = {{"condition", break_condition},
                {"number", break_number},
                {"text", break_text},
                {"array", break_array},
                {"call", break_call}};
    const char *name = (*argv)[1];
    MPI_Init(argc, argv);
    if (dpt_comm_create(MPI_COMM_WORLD, &test_comm) != DPT_OK)
        return 1;
    dpt_agree_set_world(test_comm.rank, test_comm.size);
    if (test_comm.rank == 0) {
        printf("checks %s\n", DPT_CHECKS ? "on" : "off");
        fflush(stdout);
    }
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++)
        if (strcmp(ways[i].name, name) == 0 && (DPT_CHECKS || strcmp(name, "call") != 0))
            ways[i].breaks(test_comm.rank);
    dpt_comm_destroy(&test_comm);
    MPI_Finalize();
    return 0;
}

static void kept_promises_pass(void **state) {
    (void)state;
    int calls = 0;
    double weights[2] = {0.25, 0.75};
    DPT_ASSERT(test_comm.size > 0);
    DPT_ASSERT_SAME(&test_comm, test_comm.size);
    DPT_ASSERT_SAME(&test_comm, weights[1]);
    DPT_ASSERT_SAME_ARRAY(&test_comm, weights, 2);
    DPT_ASSERT_SAME_ARRAY(&test_comm, (double *)NULL, test_comm.size);
    DPT_ASSERT_SAME_TEXT(&test_comm, "a text");
    DPT_ASSERT_SAME_TEXT(&test_comm, NULL);
    DPT_ASSERT(++calls > 0); /* evaluated once, or not at all */
    assert_int_equal(calls, DPT_CHECKS);
}

static void ranks_that_differ(void **state) {
    (void)state;
    static const uint64_t values[] = {0, 1, UINT64_MAX, UINT64_C(1) << 63};
    int differ[2];
    for (int i = 0; i < 4; i++)
        assert_true(dpt_same_on_all(&test_comm, values[i], differ));
    for (int odd = 0; test_comm.size > 1 && odd < test_comm.size; odd++)
        for (int i = 0; i < 4; i++) {
            uint64_t value = test_comm.rank == odd ? values[i] : 5;
            assert_false(dpt_same_on_all(&test_comm, value, differ));
            assert_int_equal(differ[0], 0);
            assert_int_equal(differ[1], odd == 0 ? 1 : odd);
        }
}

static void hashes_tell_apart(void **state) {
    (void)state;
    static const int zeros[3];
    assert_true(dpt_same_text(NULL) != dpt_same_text(""));
    assert_true(dpt_same_text("a") != dpt_same_text("b"));
    assert_true(dpt_same_array(NULL, 0, 4) != dpt_same_array(zeros, 0, 4));
    assert_true(dpt_same_array(zeros, 2, 4) != dpt_same_array(zeros, 3, 4));
    assert_true(dpt_same_array(zeros, 3, 4) == dpt_same_array(zeros, 3, 4));
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept_promises_pass),
        cmocka_unit_test(ranks_that_differ),
        cmocka_unit_test(hashes_tell_apart),
    };
    if (argc > 1)
        return break_one(&argc, &argv);
    return test_mpi_main(argc, argv, tests);
}
