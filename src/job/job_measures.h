#ifndef DELTAPATH_SRC_JOB_JOB_MEASURES_H
#define DELTAPATH_SRC_JOB_JOB_MEASURES_H

#include "deltapath/job/job.h"
#include "yaml.h"

/** A list of shell patterns below a key of a mapping. Local. Errors: DPT_ERR_USAGE; DPT_ERR_OUTPUT without memory.
 * @param[out] out (count) owned by the caller; its texts are the job's. */
dpt_status dpt_job_read_patterns(const dpt_yaml *yaml, struct fy_node *map, const char *key,
                                 int *count, const char ***out);

/** Read a section and check it against what was read before: edits, data, path. Local. Errors: DPT_ERR_USAGE. */
dpt_status dpt_job_read_law(dpt_job *job, const dpt_yaml *yaml, struct fy_node *root);
dpt_status dpt_job_read_hessian(dpt_job *job, const dpt_yaml *yaml, struct fy_node *root);
dpt_status dpt_job_read_plane(dpt_job *job, const dpt_yaml *yaml, struct fy_node *root);
dpt_status dpt_job_read_proof(dpt_job *job, const dpt_yaml *yaml, struct fy_node *root);

#endif
