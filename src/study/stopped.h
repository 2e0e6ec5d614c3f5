#ifndef DELTAPATH_SRC_STUDY_STOPPED_H
#define DELTAPATH_SRC_STUDY_STOPPED_H

#include "deltapath/job/job.h"

/** Add to the message of a study that was stopped what is kept of it, and how to go on. Local.
 * @param[in] done edits that are finished; -1: what an earlier run finished was not looked at yet. */
void dpt_stopped_explain(const dpt_job *job, int done);

#endif
