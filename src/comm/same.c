#include "deltapath/comm/same.h"

#include <stdio.h>
#include <stdlib.h>

bool dpt_same_on_all(const dpt_comm *comm, uint64_t value, int differ[2]) {
    differ[0] = differ[1] = comm->rank;
    if (comm->size <= 1)
        return true;
    /* The least value and, as the least complement, the largest. */
    uint64_t ends[2] = {value, ~value};
    (void)dpt_comm_check(MPI_Allreduce(MPI_IN_PLACE, ends, 2, MPI_UINT64_T, MPI_MIN, comm->mpi),
                         "MPI_Allreduce");
    if (ends[0] == ~ends[1])
        return true;
    /* Then who: the first rank of each of the two. */
    int first[2] = {value == ends[0] ? comm->rank : comm->size,
                    value == ~ends[1] ? comm->rank : comm->size};
    (void)dpt_comm_check(MPI_Allreduce(MPI_IN_PLACE, first, 2, MPI_INT, MPI_MIN, comm->mpi),
                         "MPI_Allreduce");
    differ[0] = first[0] < first[1] ? first[0] : first[1];
    differ[1] = first[0] < first[1] ? first[1] : first[0];
    return false;
}

void dpt_same_check(const dpt_comm *comm, uint64_t value, const char *argument, const char *file,
                    int line, const char *function) {
    int differ[2];
    if (dpt_same_on_all(comm, value, differ))
        return;
    char what[256];
    snprintf(what, sizeof what, "%s differs between ranks %d and %d of %d", argument, differ[0],
             differ[1], comm->size);
    if (comm->rank == differ[1])
        dpt_assert_failed(file, line, function, what);
    /* One line is enough: the others wait until that rank ends them. */
    (void)dpt_comm_check(MPI_Barrier(comm->mpi), "MPI_Barrier");
}

uint64_t dpt_same_array(const void *items, int64_t n, size_t size) {
    if (items == NULL)
        return 1;
    return dpt_hash_bytes(items, n > 0 ? (size_t)n * size : 0) + (uint64_t)n;
}

uint64_t dpt_same_text(const char *text) {
    return text == NULL ? 1 : dpt_hash_string(text);
}
