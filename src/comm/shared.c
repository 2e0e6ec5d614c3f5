#include "deltapath/comm/shared.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SHARED_ALIGN = 64 };

/* Ranks of the world that are taken for a machine; 0: as it is. */
static int shared_machine_ranks(void) {
    const char *text = getenv("DPT_MACHINE_RANKS");
    return text != NULL ? atoi(text) : 0;
}

/* Map so many bytes of a file without a name that the first rank makes and the others open as its file. A window of MPI
 * lies in /dev/shm, which in a container is often of 64 MB, and where it is full Open MPI 4.1 waits for ever.
 * @return NULL where this rank cannot, with errno. */
static void *shared_map(const dpt_comm *machine, int64_t bytes) {
    int64_t name[2] = {getpid(), -1};
    void *map = MAP_FAILED;
    int file = -1;
    if (machine->rank == 0) {
        file = memfd_create("deltapath", MFD_CLOEXEC);
        if (file >= 0 && ftruncate(file, bytes) == 0)
            name[1] = file;
    }
    (void)dpt_comm_broadcast(machine, name, sizeof name, 0);
    if (machine->rank != 0 && name[1] >= 0) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%lld/fd/%lld", (long long)name[0], (long long)name[1]);
        file = open(path, O_RDWR | O_CLOEXEC);
    }
    if (file >= 0 && name[1] >= 0)
        map = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    int why = errno;
    (void)dpt_comm_check(MPI_Barrier(machine->mpi), "MPI_Barrier"); /* all have opened it */
    if (file >= 0)
        close(file);
    errno = why;
    return map != MAP_FAILED ? map : NULL;
}

/* Whether the ranks really see what the others write. */
static bool shared_works(const dpt_comm *machine) {
    int64_t missing = machine->size, n = missing * (int64_t)sizeof missing;
    int64_t *seen = machine->size > 1 ? shared_map(machine, n) : NULL;
    int64_t fails = machine->size > 1 && seen == NULL;
    if (dpt_agree_fault("shared.map") != DPT_OK) {
        dpt_error_clear(); /* there is another way */
        fails = 1;
    }
    (void)dpt_comm_max_i64(machine, &fails, 1);
    if (seen != NULL && !fails) {
        seen[machine->rank] = machine->rank + 1;
        (void)dpt_comm_check(MPI_Barrier(machine->mpi), "MPI_Barrier");
        for (int r = 0; r < machine->size; r++)
            fails = fails || seen[r] != r + 1;
        (void)dpt_comm_max_i64(machine, &fails, 1);
    }
    if (seen != NULL)
        munmap(seen, (size_t)n);
    return !fails;
}

dpt_status dpt_comm_split_machines(const dpt_comm *comm, dpt_comm *out) {
    int rank = 0, taken = shared_machine_ranks();
    dpt_comm whole = {.size = 0};
    dpt_status st = dpt_comm_split_node(comm, &whole);
    if (st == DPT_OK)
        st = dpt_comm_check(MPI_Comm_rank(MPI_COMM_WORLD, &rank), "MPI_Comm_rank");
    if (st == DPT_OK && !shared_works(&whole))
        taken = 1;
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

int64_t dpt_shared_bytes(int64_t bytes, int ranks) {
    bytes = bytes > 0 ? bytes : 1; /* nothing cannot be mapped */
    int64_t share = (bytes / ranks / SHARED_ALIGN + 1) * SHARED_ALIGN;
    return share < bytes ? share : bytes;
}

dpt_status dpt_shared_create(const dpt_comm *machine, int64_t bytes, const char *what,
                             dpt_shared *out) {
    DPT_ASSERT_SAME(machine, bytes);
    *out = (dpt_shared){.bytes = bytes > 0 ? bytes : 1};
    if (machine->size == 1) {
        out->base = dpt_mem_alloc(out->bytes, 1, what);
        return out->base != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    }
    int64_t share = dpt_shared_bytes(bytes, machine->size);
    int64_t left = out->bytes - share * machine->rank;
    int64_t own = left < 0 ? 0 : left < share ? left : share;
    if (dpt_mem_charge(own, what))
        out->own = own;
    dpt_status st = dpt_agree(machine, out->own == own ? DPT_OK : DPT_ERR_OUTPUT);
    if (st != DPT_OK)
        goto done;
    out->base = shared_map(machine, out->bytes);
    out->mapped = out->base != NULL;
    if (!out->mapped)
        st = dpt_error(DPT_ERR_OUTPUT,
                       "%s needs %" PRId64
                       " bytes that the ranks of a machine share (%s): " DPT_MEM_REMEDY,
                       what, out->bytes, strerror(errno));
    st = dpt_agree(machine, st);
done:
    if (st != DPT_OK)
        dpt_shared_destroy(out);
    return st;
}

void dpt_shared_sync(const dpt_comm *machine, const dpt_shared *shared) {
    if (!shared->mapped)
        return;
    atomic_thread_fence(memory_order_seq_cst);
    (void)dpt_comm_check(MPI_Barrier(machine->mpi), "MPI_Barrier");
    atomic_thread_fence(memory_order_seq_cst);
}

void dpt_shared_destroy(dpt_shared *shared) {
    if (shared->mapped)
        munmap(shared->base, (size_t)shared->bytes);
    else
        dpt_mem_free(shared->base);
    dpt_mem_discharge(shared->own);
    *shared = (dpt_shared){.base = NULL};
}
