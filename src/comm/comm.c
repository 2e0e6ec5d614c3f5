#include "deltapath/comm/comm.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

/* Bytes of one call. MPI's own buffer for a reduction is as large, and not in our budget. */
enum { PIECE_BYTES = 1 << 26 };

dpt_status dpt_comm_check(int code, const char *call) {
    if (code == MPI_SUCCESS)
        return DPT_OK;
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    int rank = 0;
    MPI_Error_string(code, text, &length);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    fprintf(stderr,
            "deltapath: error: [rank %d] %s failed (%s): all ranks end, a study goes on with "
            "--resume\n",
            rank, call, text);
    MPI_Abort(MPI_COMM_WORLD, DPT_ERR_INTERNAL);
    return DPT_ERR_INTERNAL;
}

static dpt_status comm_finish(MPI_Comm mpi, dpt_comm *out) {
    out->mpi = mpi;
    out->rank = -1;
    out->size = 0;
    if (mpi == MPI_COMM_NULL)
        return DPT_OK;
    (void)dpt_comm_check(MPI_Comm_rank(mpi, &out->rank), "MPI_Comm_rank");
    return dpt_comm_check(MPI_Comm_size(mpi, &out->size), "MPI_Comm_size");
}

dpt_status dpt_comm_create(MPI_Comm parent, dpt_comm *out) {
    MPI_Comm mpi = MPI_COMM_NULL;
    dpt_status st = dpt_comm_check(MPI_Comm_dup(parent, &mpi), "MPI_Comm_dup");
    return st != DPT_OK ? st : comm_finish(mpi, out);
}

dpt_status dpt_comm_split(const dpt_comm *comm, int color, int key, dpt_comm *out) {
    MPI_Comm mpi = MPI_COMM_NULL;
    int mpi_color = color < 0 ? MPI_UNDEFINED : color;
    dpt_status st =
        dpt_comm_check(MPI_Comm_split(comm->mpi, mpi_color, key, &mpi), "MPI_Comm_split");
    return st != DPT_OK ? st : comm_finish(mpi, out);
}

dpt_status dpt_comm_split_node(const dpt_comm *comm, dpt_comm *out) {
    MPI_Comm mpi = MPI_COMM_NULL;
    dpt_status st = dpt_comm_check(
        MPI_Comm_split_type(comm->mpi, MPI_COMM_TYPE_SHARED, comm->rank, MPI_INFO_NULL, &mpi),
        "MPI_Comm_split_type");
    return st != DPT_OK ? st : comm_finish(mpi, out);
}

void dpt_comm_destroy(dpt_comm *comm) {
    if (comm->size > 0 && comm->mpi != MPI_COMM_NULL)
        (void)dpt_comm_check(MPI_Comm_free(&comm->mpi), "MPI_Comm_free");
    comm->size = 0;
}

static dpt_status all_reduce(const dpt_comm *comm, void *values, int64_t n, size_t size,
                             MPI_Datatype type, MPI_Op op) {
    if (comm->size <= 1)
        return DPT_OK;
    DPT_ASSERT_SAME(comm, n);
    int64_t maximum = PIECE_BYTES / (int64_t)size;
    for (int64_t at = 0; at < n; at += maximum) {
        int count = (int)(n - at < maximum ? n - at : maximum);
        char *piece = (char *)values + (size_t)at * size;
        dpt_status st = dpt_comm_check(
            MPI_Allreduce(MPI_IN_PLACE, piece, count, type, op, comm->mpi), "MPI_Allreduce");
        if (st != DPT_OK)
            return st;
    }
    return DPT_OK;
}

dpt_status dpt_comm_sum_f64(const dpt_comm *comm, double *values, int64_t n) {
    return all_reduce(comm, values, n, sizeof *values, MPI_DOUBLE, MPI_SUM);
}

dpt_status dpt_comm_sum_f32(const dpt_comm *comm, float *values, int64_t n) {
    return all_reduce(comm, values, n, sizeof *values, MPI_FLOAT, MPI_SUM);
}

dpt_status dpt_comm_sum_i64(const dpt_comm *comm, int64_t *values, int64_t n) {
    return all_reduce(comm, values, n, sizeof *values, MPI_INT64_T, MPI_SUM);
}

dpt_status dpt_comm_max_f64(const dpt_comm *comm, double *values, int64_t n) {
    return all_reduce(comm, values, n, sizeof *values, MPI_DOUBLE, MPI_MAX);
}

dpt_status dpt_comm_max_f32(const dpt_comm *comm, float *values, int64_t n) {
    return all_reduce(comm, values, n, sizeof *values, MPI_FLOAT, MPI_MAX);
}

dpt_status dpt_comm_max_i64(const dpt_comm *comm, int64_t *values, int64_t n) {
    return all_reduce(comm, values, n, sizeof *values, MPI_INT64_T, MPI_MAX);
}

dpt_status dpt_comm_broadcast(const dpt_comm *comm, void *bytes, int64_t n, int root) {
    if (comm->size <= 1)
        return DPT_OK;
    DPT_ASSERT(root >= 0 && root < comm->size);
    DPT_ASSERT_SAME(comm, root);
    DPT_ASSERT_SAME(comm, n);
    for (int64_t at = 0; at < n; at += PIECE_BYTES) {
        int count = (int)(n - at < PIECE_BYTES ? n - at : PIECE_BYTES);
        dpt_status st = dpt_comm_check(
            MPI_Bcast((char *)bytes + at, count, MPI_BYTE, root, comm->mpi), "MPI_Bcast");
        if (st != DPT_OK)
            return st;
    }
    return DPT_OK;
}

dpt_status dpt_comm_broadcast_string(const dpt_comm *comm, const char *text, int root, char **out) {
    *out = NULL;
    DPT_ASSERT_SAME(comm, root);
    int64_t bytes = comm->rank == root && text != NULL ? (int64_t)strlen(text) + 1 : 0;
    dpt_status st = dpt_comm_broadcast(comm, &bytes, sizeof bytes, root);
    if (st != DPT_OK || bytes == 0)
        return st;
    char *copy = dpt_mem_alloc(bytes, 1, "broadcast text");
    st = dpt_agree(comm, copy == NULL ? DPT_ERR_OUTPUT : DPT_OK);
    if (st == DPT_OK) {
        if (comm->rank == root && text != NULL)
            memcpy(copy, text, (size_t)bytes);
        st = dpt_comm_broadcast(comm, copy, bytes, root);
    }
    if (st != DPT_OK) {
        dpt_mem_free(copy);
        return st;
    }
    *out = copy;
    return DPT_OK;
}

/* One call while sizes fit its ints; else a broadcast of each block. `sizes`, `counts` and `starts`
 * are (comm->size). */
static dpt_status gather_blocks(const dpt_comm *comm, const void *bytes, const int64_t *sizes,
                                int *counts, int *starts, char *blocks) {
    int64_t total = 0;
    for (int r = 0; r < comm->size; r++) {
        counts[r] = (int)sizes[r];
        starts[r] = (int)total;
        total += sizes[r];
        if (total > INT_MAX)
            break;
    }
    if (total <= INT_MAX)
        return dpt_comm_check(MPI_Allgatherv(bytes, counts[comm->rank], MPI_BYTE, blocks, counts,
                                             starts, MPI_BYTE, comm->mpi),
                              "MPI_Allgatherv");
    dpt_status st = DPT_OK;
    for (int r = 0; st == DPT_OK && r < comm->size; r++) {
        if (r == comm->rank && sizes[r] > 0)
            memcpy(blocks, bytes, (size_t)sizes[r]);
        st = dpt_comm_broadcast(comm, blocks, sizes[r], r);
        blocks += sizes[r];
    }
    return st;
}

dpt_status dpt_comm_allgather(const dpt_comm *comm, const void *bytes, int64_t n, void **all,
                              int64_t **counts) {
    *all = NULL;
    *counts = NULL;
    char *blocks = NULL;
    int64_t *sizes = dpt_mem_zalloc(comm->size, sizeof *sizes, "gathered sizes");
    int *ints = dpt_mem_alloc(2 * (int64_t)comm->size, sizeof *ints, "gathered sizes");
    dpt_status st = dpt_agree(comm, sizes == NULL || ints == NULL ? DPT_ERR_OUTPUT : DPT_OK);
    if (st != DPT_OK)
        goto done;
    sizes[comm->rank] = n;
    st = dpt_comm_sum_i64(comm, sizes, comm->size);
    int64_t total = 0;
    for (int r = 0; r < comm->size; r++)
        total += sizes[r];
    blocks = dpt_mem_alloc(total, 1, "gathered blocks");
    st = dpt_agree(comm, st == DPT_OK && blocks == NULL ? DPT_ERR_OUTPUT : st);
    if (st == DPT_OK)
        st = gather_blocks(comm, bytes, sizes, ints, ints + comm->size, blocks);
done:
    dpt_mem_free(ints);
    if (st != DPT_OK) {
        dpt_mem_free(blocks);
        dpt_mem_free(sizes);
        return st;
    }
    *all = blocks;
    *counts = sizes;
    return DPT_OK;
}

/* Where checks are on: what one rank sends is what the other waits for. */
static void comm_check_counts(const dpt_comm *comm, int to, int64_t sends, int from,
                              int64_t waits) {
    int64_t told = waits;
    if (!DPT_CHECKS)
        return;
    (void)dpt_comm_check(MPI_Sendrecv(&sends, 1, MPI_INT64_T, to, 1, &told, 1, MPI_INT64_T, from, 1,
                                      comm->mpi, MPI_STATUS_IGNORE),
                         "MPI_Sendrecv");
    DPT_ASSERT(told == waits);
}

/* Send to one rank and receive from another, in pieces. */
static dpt_status comm_send_pieces(const dpt_comm *comm, const char *out, int64_t out_left, int to,
                                   char *in, int64_t in_left, int from) {
    while (out_left > 0 || in_left > 0) {
        int out_now = (int)(out_left < PIECE_BYTES ? out_left : PIECE_BYTES);
        int in_now = (int)(in_left < PIECE_BYTES ? in_left : PIECE_BYTES);
        dpt_status st =
            dpt_comm_check(MPI_Sendrecv(out, out_now, MPI_BYTE, out_now > 0 ? to : MPI_PROC_NULL, 0,
                                        in, in_now, MPI_BYTE, in_now > 0 ? from : MPI_PROC_NULL, 0,
                                        comm->mpi, MPI_STATUS_IGNORE),
                           "MPI_Sendrecv");
        if (st != DPT_OK)
            return st;
        out += out_now;
        in += in_now;
        out_left -= out_now;
        in_left -= in_now;
    }
    return DPT_OK;
}

/* Each rank sends its items to the next, then those that it got, in pieces: no message exceeds one. */
dpt_status dpt_comm_allgather_even(const dpt_comm *comm, const void *own, int64_t n, int64_t bytes,
                                   void *all) {
    DPT_ASSERT_SAME(comm, n);
    DPT_ASSERT_SAME(comm, bytes);
    int ranks = comm->size;
    int64_t each = n / ranks, more = n % ranks;
    int64_t count = each + (comm->rank < more);
    int64_t first = each * comm->rank + (comm->rank < more ? comm->rank : more);
    memcpy((char *)all + first * bytes, own, (size_t)(count * bytes));
    for (int step = 0; step < ranks - 1; step++) {
        int sent = (comm->rank - step + ranks) % ranks, got = (sent - 1 + ranks) % ranks;
        int64_t out_left = (each + (sent < more)) * bytes, in_left = (each + (got < more)) * bytes;
        const char *out = (char *)all + (each * sent + (sent < more ? sent : more)) * bytes;
        char *in = (char *)all + (each * got + (got < more ? got : more)) * bytes;
        dpt_status st = comm_send_pieces(comm, out, out_left, (comm->rank + 1) % ranks, in, in_left,
                                         (comm->rank - 1 + ranks) % ranks);
        if (st != DPT_OK)
            return st;
    }
    return DPT_OK;
}

/* Rounds of pairwise exchange in pieces: at each step a rank sends to rank + step and receives from
 * rank - step, so that every message has its partner and none exceeds a piece. */
dpt_status dpt_comm_exchange(const dpt_comm *comm, const void *send, const int64_t *send_counts,
                             void *recv, const int64_t *recv_counts) {
    for (int step = 0; step < comm->size; step++) {
        int to = (comm->rank + step) % comm->size;
        int from = (comm->rank - step + comm->size) % comm->size;
        const char *out = send;
        char *in = recv;
        for (int r = 0; r < to; r++)
            out += send_counts[r];
        for (int r = 0; r < from; r++)
            in += recv_counts[r];
        int64_t out_left = send_counts[to];
        int64_t in_left = recv_counts[from];
        DPT_ASSERT(out_left >= 0 && in_left >= 0);
        comm_check_counts(comm, to, out_left, from, in_left);
        if (step == 0) {
            if (out_left > 0)
                memcpy(in, out, (size_t)out_left);
            continue;
        }
        dpt_status st = comm_send_pieces(comm, out, out_left, to, in, in_left, from);
        if (st != DPT_OK)
            return st;
    }
    return DPT_OK;
}

dpt_status dpt_comm_local_size(const dpt_comm *comm, int *ranks_here) {
    dpt_comm node = {.size = 0};
    dpt_status st = dpt_comm_split_node(comm, &node);
    if (st == DPT_OK)
        *ranks_here = node.size;
    dpt_comm_destroy(&node);
    return st;
}
