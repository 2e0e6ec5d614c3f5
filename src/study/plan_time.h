#ifndef DELTAPATH_SRC_STUDY_PLAN_TIME_H
#define DELTAPATH_SRC_STUDY_PLAN_TIME_H

#include "deltapath/study/machine.h"
#include "resources.h"

/** Seconds of a study by phase, on the machine that res->machine says, with mesh and batch of `resources`: a rank's
 * arithmetic at the rate of products, its bytes at the rates of memory and files, its messages by number and bytes
 * (doc/architecture.md has the formulas). Sets `phase`, `seconds`, `restart`, `pass_seconds` and the bytes of files.
 * Local. */
void dpt_plan_time(const dpt_inputs *inputs, dpt_resources *resources);

/** "load", "bind" ... Local. */
const char *dpt_plan_phase_name(int phase);

#endif
