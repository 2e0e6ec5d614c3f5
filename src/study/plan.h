#ifndef DELTAPATH_SRC_STUDY_PLAN_H
#define DELTAPATH_SRC_STUDY_PLAN_H

#include "deltapath/study/study.h"
#include "resources.h"

/** Plan a study, check it, and print the plan where the options ask for no more; sets the budget of memory.
 * Collective over comm (same: options). @param[out] resources  the same on all ranks.
 * Errors, agreed: those of dpt_machine_read, dpt_resources_plan and dpt_checks_run. */
dpt_status dpt_plan_study(const dpt_comm *comm, dpt_inputs *inputs,
                          const dpt_study_options *options, dpt_resources *resources);

#endif
