#ifndef DELTAPATH_SRC_STUDY_PLAN_ACTUAL_H
#define DELTAPATH_SRC_STUDY_PLAN_ACTUAL_H

#include "deltapath/comm/comm.h"
#include "passes.h"
#include "resources.h"

/** Log what a whole study took next to what its plan said: time, the most memory of a rank, bytes read and written by
 * all ranks, passes over data sets. Collective over comm. @param[in] passes  that were taken. @param[in] seconds  that
 * it took. */
dpt_status dpt_plan_compare(const dpt_comm *comm, const dpt_resources *planned,
                            const dpt_pass_counts *passes, double seconds);

#endif
