#include "deltapath/comm/peers.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"

#include <math.h>

enum { TAG = 71, TRIPS = 20 };

/* The least rank of this rank's node. */
static dpt_status peers_node(const dpt_comm *comm, int64_t *node) {
    dpt_comm local = {.size = 0};
    *node = comm->rank;
    dpt_status st = dpt_comm_split_node(comm, &local);
    if (st == DPT_OK)
        st = dpt_comm_broadcast(&local, node, sizeof *node, 0);
    dpt_comm_destroy(&local);
    return st;
}

dpt_status dpt_peers_find(const dpt_comm *comm, dpt_peers *out) {
    *out = (dpt_peers){.here = 1, .nodes = 1, .near = -1, .far = -1};
    int64_t own = 0, *node = dpt_mem_zalloc(comm->size, sizeof *node, "nodes of ranks");
    dpt_status st = dpt_agree(comm, node != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    if (st == DPT_OK)
        st = dpt_agree(comm, peers_node(comm, &own));
    if (st == DPT_OK) {
        node[comm->rank] = own;
        st = dpt_agree(comm, dpt_comm_sum_i64(comm, node, comm->size));
    }
    for (int r = 1; r < comm->size && st == DPT_OK; r++) {
        out->here += node[r] == node[0];
        out->nodes += node[r] == r; /* the first of its node */
        if (node[r] == node[0] && out->near < 0)
            out->near = r;
        if (node[r] != node[0] && out->far < 0)
            out->far = r;
    }
    dpt_mem_free(node);
    return st;
}

static dpt_status peers_trip(const dpt_comm *comm, int peer, char *bytes, int n) {
    int other = comm->rank == 0 ? peer : 0;
    for (int turn = 0; turn < 2; turn++) {
        bool sends = (comm->rank == 0) == (turn == 0);
        int code = sends ? MPI_Send(bytes, n, MPI_CHAR, other, TAG, comm->mpi)
                         : MPI_Recv(bytes, n, MPI_CHAR, other, TAG, comm->mpi, MPI_STATUS_IGNORE);
        dpt_status st = dpt_comm_check(code, sends ? "MPI_Send" : "MPI_Recv");
        if (st != DPT_OK)
            return st;
    }
    return DPT_OK;
}

dpt_status dpt_peers_time(const dpt_comm *comm, int peer, int64_t n, double *seconds) {
    DPT_ASSERT_SAME(comm, peer);
    DPT_ASSERT_SAME(comm, n);
    char *bytes = dpt_mem_zalloc(n, 1, "bytes of a message");
    double shortest = INFINITY;
    dpt_status st = bytes != NULL && n <= INT32_MAX ? DPT_OK : DPT_ERR_OUTPUT;
    st = dpt_agree(comm, st);
    bool takes = comm->rank == 0 || comm->rank == peer;
    for (int i = 0; i < TRIPS && takes && st == DPT_OK; i++) {
        double before = MPI_Wtime();
        st = peers_trip(comm, peer, bytes, (int)n);
        shortest = fmin(shortest, (MPI_Wtime() - before) / 2.0);
    }
    *seconds = shortest;
    dpt_mem_free(bytes);
    st = dpt_agree(comm, st);
    return st == DPT_OK ? dpt_agree(comm, dpt_comm_broadcast(comm, seconds, sizeof *seconds, 0))
                        : st;
}
