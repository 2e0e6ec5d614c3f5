#ifndef DELTAPATH_COMM_SHARED_H
#define DELTAPATH_COMM_SHARED_H

#include "deltapath/comm/comm.h"

#include <stdbool.h>
#include <stdint.h>

/** Memory that the ranks of one machine have in common. Each counts its share against its own budget. */
typedef struct dpt_shared {
    void *base; /**< of all of it, 64-byte aligned, the same bytes on every rank; NULL: none */
    int64_t bytes;
    int64_t own; /**< bytes that this rank counts */
    bool
        mapped; /**< from a file without a name that the ranks share; else base is this rank's own block */
} dpt_shared;

/** Split a communicator into those of its machines, ordered by rank. Ranks that cannot map each other's memory, being in
 * containers of their own, are taken for machines of one rank. Collective over comm.
 * The environment's DPT_MACHINE_RANKS takes so many ranks of the world for a machine: for tests of several. */
dpt_status dpt_comm_split_machines(const dpt_comm *comm, dpt_comm *out);

/** Number of machines that the ranks are on. Collective over comm. */
dpt_status dpt_comm_count_machines(const dpt_comm *comm, int *machines);

/** Allocate (contents undefined). Collective over machine (same: bytes).
 * @param[in] machine ranks of one machine, as dpt_comm_split_machines makes.
 * Errors, agreed: DPT_ERR_OUTPUT over the budget or without memory; *out is empty then. */
dpt_status dpt_shared_create(const dpt_comm *machine, int64_t bytes, const char *what,
                             dpt_shared *out);

/** Most that a rank of so many counts of memory that they have in common. Local. */
int64_t dpt_shared_bytes(int64_t bytes, int ranks);

/** What any rank wrote before is seen by all afterwards. Collective over machine. */
void dpt_shared_sync(const dpt_comm *machine, const dpt_shared *shared);

void dpt_shared_destroy(dpt_shared *shared); /**< Local: the others keep theirs. */

#endif
