#ifndef DELTAPATH_SRC_STUDY_MEMORY_H
#define DELTAPATH_SRC_STUDY_MEMORY_H

#include "deltapath/comm/comm.h"

/** Memory of one rank [bytes]: what was asked for, or an even share of nine tenths of the machine for 0; the
 * least of all ranks. Collective over comm, agreed. */
dpt_status dpt_memory_budget(const dpt_comm *comm, int64_t asked, int64_t *budget);

/** Memory of a machine that its ranks may share [bytes]: nine tenths of it; the least of all ranks. Collective over comm,
 * agreed. */
dpt_status dpt_memory_granted(const dpt_comm *comm, int64_t *bytes);

/** Log the most that any rank held, counted and as the system sees it. Collective over comm, agreed. */
dpt_status dpt_memory_log_peak(const dpt_comm *comm, int64_t budget);

#endif
