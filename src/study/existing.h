#ifndef DELTAPATH_SRC_STUDY_EXISTING_H
#define DELTAPATH_SRC_STUDY_EXISTING_H

#include "deltapath/study/job.h"

#include <stdbool.h>

/* What lies in the output directory of a study before it begins. Files are known by their content
 * (store/owned), never by their place: what others put there is neither replaced nor removed. For rank 0,
 * after the inputs were opened. All functions are Local. */

/** Check that nothing lies where this study writes but what it wrote itself. With `replaces` also that
 * its folders hold nothing foreign, when there is something of it to remove.
 * @param[out] study  whether something of an earlier run is there.
 * Errors: DPT_ERR_OUTPUT naming the first foreign file, or the input that is in the way. */
dpt_status dpt_existing_check(const dpt_job *job, bool replaces, bool *study);

/** Check the same, then remove all that an earlier run left. Errors: as above; nothing is removed when a
 * file is foreign. */
dpt_status dpt_existing_remove(const dpt_job *job);

#endif
