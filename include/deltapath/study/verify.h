#ifndef DELTAPATH_STUDY_VERIFY_H
#define DELTAPATH_STUDY_VERIFY_H

#include "deltapath/comm/comm.h"

#include <stdio.h>

typedef struct dpt_verify_options {
    const char *path; /**< model in any format, or a results.h5 */
    FILE *out;        /**< NULL: standard output */
} dpt_verify_options;

/** Check a model: its structure, the stored XXH3-64 of every tensor, and that every value of a
 * float type that deltapath computes with is finite. Of a results file: that all of it can be read.
 * Rank 0 prints a line for each finding and a summary.
 * Collective over comm (same: options).
 * Errors: DPT_ERR_INPUT naming the first tensor (and index) that is wrong. */
dpt_status dpt_verify_run(const dpt_comm *comm, const dpt_verify_options *options);

#endif
