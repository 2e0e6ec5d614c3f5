/* ranks: 2 3 */
/* An edit of many small tensors makes no more collective calls than one of few: what is summed over ranks is summed
 * for all tensors at once. */
#include "edit/edit_support.h"

#include <stdlib.h>

static int calls; /* of what comm/ calls, but on a communicator of one rank */

static void count_call(MPI_Comm comm) {
    int size;
    PMPI_Comm_size(comm, &size);
    calls += size > 1;
}

int MPI_Allreduce(const void *from, void *to, int n, MPI_Datatype type, MPI_Op op, MPI_Comm comm) {
    count_call(comm);
    return PMPI_Allreduce(from, to, n, type, op, comm);
}

int MPI_Allgatherv(const void *from, int n, MPI_Datatype type, void *to, const int counts[],
                   const int at[], MPI_Datatype to_type, MPI_Comm comm) {
    count_call(comm);
    return PMPI_Allgatherv(from, n, type, to, counts, at, to_type, comm);
}

int MPI_Bcast(void *data, int n, MPI_Datatype type, int root, MPI_Comm comm) {
    count_call(comm);
    return PMPI_Bcast(data, n, type, root, comm);
}

int MPI_Barrier(MPI_Comm comm) {
    count_call(comm);
    return PMPI_Barrier(comm);
}

enum { MANY = 400, MORE = 12 }; /* a selection that misses its bracket has three passes more */

/* Matrices and vectors in turn, of a few rows. */
static void create_small(pair *p, int count) {
    static char names[MANY][48];
    static pair_tensor tensors[MANY];
    for (int t = 0; t < count; t++) {
        snprintf(names[t], sizeof names[t], "model.layers.%03d.%s.weight", t / 2,
                 t % 2 ? "norm" : "mlp.up_proj");
        tensors[t] = (pair_tensor){.name = names[t], .ndim = t % 2 ? 1 : 2, .shape = {8, 24}};
        if (t % 2)
            tensors[t].shape[0] = 24;
    }
    qsort(tensors, (size_t)count, sizeof *tensors, (int (*)(const void *, const void *))strcmp);
    pair_create_of(p, DPT_BF16, DPT_BF16, count, tensors);
}

static int count_calls(const char *text, int count) {
    pair p;
    dpt_edit_spec spec;
    dpt_edit_report report;
    create_small(&p, count);
    assert_int_equal(spec_parse(text, 1, &spec), DPT_OK);
    int before = calls;
    if (dpt_edit_run(&spec, &p.input, p.sink, &report) != DPT_OK)
        fail_msg("%s: %s", text, dpt_error_message());
    int made = calls - before;
    dpt_edit_report_destroy(&report);
    pair_destroy(&p);
    return made;
}

static void calls_do_not_grow_with_tensors(void **state) {
    (void)state;
    static const char *const edits[] = {"dare:p=0.5",
                                        "dare:p=0.5,rescale=l1",
                                        "drop:p=0.5",
                                        "bias:k=0.5",
                                        "della:p=0.5,epsilon=0.2",
                                        "prune:keep=0.3",
                                        "prune:keep=0.3,scope=model",
                                        "bitdelta",
                                        "bitdelta:granularity=row",
                                        "bitdelta:sample=normal",
                                        "bitdelta:convention=code",
                                        "multibit:bits=2",
                                        "expo:alpha=0.5",
                                        "lowrank:rank=2",
                                        "prune:keep=0.5;bitdelta;dare:p=0.5"};
    for (size_t e = 0; e < sizeof edits / sizeof edits[0]; e++) {
        int few = count_calls(edits[e], 8), many = count_calls(edits[e], MANY);
        if (many > few + MORE)
            fail_msg("%s: %d calls for 8 tensors, %d for %d", edits[e], few, many, MANY);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(calls_do_not_grow_with_tensors)};
    return test_mpi_main(argc, argv, tests);
}
