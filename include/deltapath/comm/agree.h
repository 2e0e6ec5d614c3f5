#ifndef DELTAPATH_COMM_AGREE_H
#define DELTAPATH_COMM_AGREE_H

#include "deltapath/comm/comm.h"

/** Agree on the worst status of all ranks.
 *
 * Every rank leaves with the same status and, on failure, with the message of the lowest rank
 * that had both, prefixed by "[rank R] " (R is the rank in the world). One small all-reduce when all is
 * well; a broadcast more when not.
 * Collective over comm.
 */
dpt_status dpt_agree(const dpt_comm *comm, dpt_status local);

/** Fault injection for tests: fails here when the environment says so.
 *
 * DPT_FAULT="point:rank" or "point:rank:nth" makes the nth call (first by default) of the point on
 * that world rank return DPT_ERR_OUTPUT; rank "last" is the last of the world. `point:rank:nth:kill`
 * raises SIGKILL instead, `...:usr1` raises SIGUSR1 and goes on, `...:stop`
 * waits for SIGCONT.
 * Local. @param[in] point name such as "store.write".
 */
dpt_status dpt_agree_fault(const char *point);

/** Rank and size of the world for messages and faults; set once by main. Local. */
void dpt_agree_set_world(int rank, int size);

#endif
