#ifndef DELTAPATH_SRC_STUDY_SHARED_H
#define DELTAPATH_SRC_STUDY_SHARED_H

#include "deltapath/job/job.h"

/** Check that a model which is to be replaced or removed is of this study and not of another one of the same
 * name, where `models/` is a link to a folder that studies may share: a unit of this study is about it.
 * Nothing is asked where `models/` is a folder of the study itself. Local.
 * Errors: DPT_ERR_OUTPUT naming the model. */
dpt_status dpt_shared_check(const dpt_job *job, const char *model);

#endif
