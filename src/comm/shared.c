#include "deltapath/comm/shared.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"

#include <stdlib.h>

enum { SHARED_ALIGN = 64 };

/* Ranks of the world that are taken for a machine; 0: as it is. */
static int shared_machine_ranks(void) {
    const char *text = getenv("DPT_MACHINE_RANKS");
    return text != NULL ? atoi(text) : 0;
}

dpt_status dpt_comm_split_machines(const dpt_comm *comm, dpt_comm *out) {
    MPI_Comm mpi = MPI_COMM_NULL;
    int rank = 0, taken = shared_machine_ranks();
    dpt_status st = dpt_comm_check(
        MPI_Comm_split_type(comm->mpi, MPI_COMM_TYPE_SHARED, comm->rank, MPI_INFO_NULL, &mpi),
        "MPI_Comm_split_type");
    dpt_comm whole = {.mpi = mpi, .rank = 0, .size = 1};
    if (st == DPT_OK)
        st = dpt_comm_check(MPI_Comm_rank(MPI_COMM_WORLD, &rank), "MPI_Comm_rank");
    if (st == DPT_OK)
        st = dpt_comm_split(&whole, taken > 0 ? rank / taken : 0, comm->rank, out);
    dpt_comm_destroy(&whole);
    return st;
}

dpt_status dpt_comm_count_machines(const dpt_comm *comm, int *machines) {
    dpt_comm machine = {.size = 0};
    dpt_status st = dpt_comm_split_machines(comm, &machine);
    int64_t first = machine.rank == 0;
    if (st == DPT_OK)
        st = dpt_comm_sum_i64(comm, &first, 1);
    *machines = (int)first;
    dpt_comm_destroy(&machine);
    return st;
}

/* Map the own bytes of each rank, end to end. The window answers errors itself: memory can be short here. */
static dpt_status shared_map(const dpt_comm *machine, const char *what, dpt_shared *out) {
    MPI_Errhandler before;
    char *base = NULL, *mine = NULL;
    MPI_Aint size = 0;
    int unit = 1;
    (void)dpt_comm_check(MPI_Comm_get_errhandler(machine->mpi, &before), "MPI_Comm_get_errhandler");
    (void)dpt_comm_check(MPI_Comm_set_errhandler(machine->mpi, MPI_ERRORS_RETURN),
                         "MPI_Comm_set_errhandler");
    int code = MPI_Win_allocate_shared((MPI_Aint)out->own, 1, MPI_INFO_NULL, machine->mpi, &mine,
                                       &out->window);
    (void)dpt_comm_check(MPI_Comm_set_errhandler(machine->mpi, before), "MPI_Comm_set_errhandler");
    (void)dpt_comm_check(MPI_Errhandler_free(&before), "MPI_Errhandler_free");
    if (code != MPI_SUCCESS) {
        return dpt_error(
            DPT_ERR_OUTPUT,
            "%s needs %lld bytes of shared memory, which MPI could not give: free room in /dev/shm "
            "or name another directory (Open MPI: OMPI_MCA_osc_sm_backing_store=DIR)",
            what, (long long)out->bytes);
    }
    out->mapped = true;
    (void)dpt_comm_check(MPI_Win_shared_query(out->window, MPI_PROC_NULL, &size, &unit, &base),
                         "MPI_Win_shared_query");
    out->base = base + (SHARED_ALIGN - (uintptr_t)base % SHARED_ALIGN) % SHARED_ALIGN;
    return dpt_comm_check(MPI_Win_lock_all(MPI_MODE_NOCHECK, out->window), "MPI_Win_lock_all");
}

dpt_status dpt_shared_create(const dpt_comm *machine, int64_t bytes, const char *what,
                             dpt_shared *out) {
    DPT_ASSERT_SAME(machine, bytes);
    *out = (dpt_shared){.bytes = bytes};
    if (machine->size == 1) {
        out->base = dpt_mem_alloc(bytes, 1, what);
        return out->base != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    }
    int64_t room = bytes + SHARED_ALIGN;
    int64_t share = (room / machine->size / SHARED_ALIGN + 1) * SHARED_ALIGN;
    int64_t left = room - share * machine->rank;
    int64_t own = left < 0 ? 0 : left < share ? left : share;
    if (dpt_mem_charge(own, what))
        out->own = own;
    dpt_status st = dpt_agree(machine, out->own == own ? DPT_OK : DPT_ERR_OUTPUT);
    if (st == DPT_OK)
        st = dpt_agree(machine, shared_map(machine, what, out));
    if (st != DPT_OK)
        dpt_shared_destroy(out);
    return st;
}

void dpt_shared_sync(const dpt_comm *machine, const dpt_shared *shared) {
    if (!shared->mapped)
        return;
    (void)dpt_comm_check(MPI_Win_sync(shared->window), "MPI_Win_sync");
    (void)dpt_comm_check(MPI_Barrier(machine->mpi), "MPI_Barrier");
    (void)dpt_comm_check(MPI_Win_sync(shared->window), "MPI_Win_sync");
}

void dpt_shared_destroy(dpt_shared *shared) {
    if (shared->mapped) {
        (void)dpt_comm_check(MPI_Win_unlock_all(shared->window), "MPI_Win_unlock_all");
        (void)dpt_comm_check(MPI_Win_free(&shared->window), "MPI_Win_free");
    } else {
        dpt_mem_free(shared->base);
    }
    dpt_mem_discharge(shared->own);
    *shared = (dpt_shared){.base = NULL};
}
