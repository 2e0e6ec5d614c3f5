#ifndef DELTAPATH_COMM_PEERS_H
#define DELTAPATH_COMM_PEERS_H

#include "deltapath/comm/comm.h"

/** Ranks of the same node as rank 0, how many nodes there are, and the first ranks besides 0 that share its node and that
 * do not; -1 where there is none. Collective over comm; the same on all ranks. */
typedef struct dpt_peers {
    int here, nodes, near, far;
} dpt_peers;
dpt_status dpt_peers_find(const dpt_comm *comm, dpt_peers *out);

/** Seconds of a message of n bytes between rank 0 and `peer`: half of the shortest of some round trips.
 * Collective over comm (same: peer, n). @param[out] seconds on all ranks. */
dpt_status dpt_peers_time(const dpt_comm *comm, int peer, int64_t n, double *seconds);

#endif
