#ifndef DELTAPATH_COMM_COMM_H
#define DELTAPATH_COMM_COMM_H

#include "deltapath/base/status.h"

#include <mpi.h>
#include <stdint.h>

/** A private communicator: its own duplicate, so that our messages never meet a caller's. */
typedef struct dpt_comm {
    MPI_Comm mpi;
    int rank;
    int size;
} dpt_comm;

/** What an MPI call answered: DPT_OK, or the end of all ranks by MPI_Abort with code 5, after a line that
 * names the call. After an error the state of a communicator is undefined and other ranks may wait in the
 * call for ever; no agreement can reach them. Local. */
dpt_status dpt_comm_check(int code, const char *call);

/** Duplicate `parent`. Collective over parent. */
dpt_status dpt_comm_create(MPI_Comm parent, dpt_comm *out);

/** Split into sub-communicators by color, ordered by key. A negative color joins none:
 * out->mpi is then MPI_COMM_NULL and out->size 0. Collective over comm. */
dpt_status dpt_comm_split(const dpt_comm *comm, int color, int key, dpt_comm *out);

/** Split into the ranks of each node, ordered by rank. Collective over comm. */
dpt_status dpt_comm_split_node(const dpt_comm *comm, dpt_comm *out);

/** Free; a null or freed communicator is allowed. Collective over comm. */
void dpt_comm_destroy(dpt_comm *comm);

/* Large-count collectives: `n` may exceed INT_MAX; transfers go in pieces of 2^26 bytes.
 * All are Collective over comm; n and root are the same on all ranks. Errors: none,
 * dpt_comm_check ends the program. Determinism: the sums of
 * doubles are taken in an order that MPI chooses; use the order-fixed sums of linalg/reduce.h, or
 * arrays in which each slot is nonzero on one rank only, where bits must not depend on ranks. */
dpt_status dpt_comm_sum_f64(const dpt_comm *comm, double *values, int64_t n);
dpt_status dpt_comm_sum_f32(const dpt_comm *comm, float *values, int64_t n);
dpt_status dpt_comm_sum_i64(const dpt_comm *comm, int64_t *values, int64_t n);
dpt_status dpt_comm_max_f64(const dpt_comm *comm, double *values, int64_t n);
dpt_status dpt_comm_max_f32(const dpt_comm *comm, float *values, int64_t n);
dpt_status dpt_comm_max_i64(const dpt_comm *comm, int64_t *values, int64_t n);
dpt_status dpt_comm_broadcast(const dpt_comm *comm, void *bytes, int64_t n, int root);

/** Allocate on every rank a copy of root's text (dpt_mem_free releases it). NULL stays NULL.
 * Collective over comm (same: root). Errors: DPT_ERR_OUTPUT without memory, on all ranks. */
dpt_status dpt_comm_broadcast_string(const dpt_comm *comm, const char *text, int root, char **out);

/** Gather every rank's block in rank order onto every rank.
 * @param[in] bytes (n) this rank's block. @param[out] all, counts: blocks end to end and their
 * sizes [bytes], both allocated. Collective over comm; n may differ.
 * Errors: DPT_ERR_OUTPUT without memory, on all ranks; both NULL. */
dpt_status dpt_comm_allgather(const dpt_comm *comm, const void *bytes, int64_t n, void **all,
                              int64_t **counts);

/** Gather items that are spread evenly, as dpt_shard_split spreads them: sizes differ by at most 1, larger ones first.
 * @param[in] own (its share of n, bytes each). @param[out] all (n). Collective over comm (same: n, bytes). */
dpt_status dpt_comm_allgather_even(const dpt_comm *comm, const void *own, int64_t n, int64_t bytes,
                                   void *all);

/** Exchange blocks with every rank (MPI_Alltoallv with 64-bit sizes in bytes).
 * @param[in]  send_counts (size), blocks end to end in send.
 * @param[in]  recv_counts (size), known to the receiver; blocks end to end in recv.
 * Collective over comm. */
dpt_status dpt_comm_exchange(const dpt_comm *comm, const void *send, const int64_t *send_counts,
                             void *recv, const int64_t *recv_counts);

/** Ranks of `comm` that share this rank's machine. Collective over comm. */
dpt_status dpt_comm_local_size(const dpt_comm *comm, int *ranks_here);

#endif
