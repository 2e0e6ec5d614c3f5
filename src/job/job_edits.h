#ifndef DELTAPATH_SRC_JOB_JOB_EDITS_H
#define DELTAPATH_SRC_JOB_JOB_EDITS_H

#include "deltapath/job/job.h"
#include "yaml.h"

/** Expand the entry at a place of `edits` over its lists and append the results to the job. Local. */
dpt_status dpt_job_edits_expand(dpt_job *job, const dpt_yaml *yaml, int place,
                                struct fy_node *entry);

/** Check that no two edits share an id, and that none is there twice (dpt_edit_spec_compare). Local. @param[in] list  of the entries, for the message. */
dpt_status dpt_job_edits_check(const dpt_job *job, const dpt_yaml *yaml, struct fy_node *list);

/** Whether a name is fit for files and groups: letters, digits, . _ + - and not starting with '.'. */
bool dpt_job_name_valid(const char *name);

#endif
