#ifndef DELTAPATH_STUDY_JOIN_H
#define DELTAPATH_STUDY_JOIN_H

#include "deltapath/comm/comm.h"

#include <stdbool.h>

typedef struct dpt_join_options {
    int nparts;
    const char *const *parts; /**< (nparts) output directories of finished studies */
    const char *directory;    /**< where the results of all go */
    const char *job;          /**< job file with all edits; NULL: the one that the parts share */
    int nsets;
    const char *const *sets; /**< (nsets) changes of the job file, "key=value" */
    bool overwrite;          /**< replace what an earlier join wrote there */
} dpt_join_options;

/** Put together the results of studies that did different edits of one job, as array tasks do: the files
 * that one study of all edits writes, but for times and provenance. Edited models stay where they are.
 *
 * Collective over comm (same: options). Rank 0 reads, writes, and prints the verdicts.
 * @param[out] report  whether the job asks for a report.
 * Errors, agreed: DPT_ERR_INPUT naming the parts that differ in more than their edits, a part that is not
 * finished, an edit that is missing, doubled, of another job or done with other parameters; DPT_ERR_OUTPUT
 * naming the directory; those of dpt_job_read, dpt_results_read and dpt_results_write. Nothing is written
 * before all of it is checked.
 */
dpt_status dpt_join_run(const dpt_comm *comm, const dpt_join_options *options, bool *report);

#endif
