#ifndef DELTAPATH_VERBS_VERIFY_H
#define DELTAPATH_VERBS_VERIFY_H

#include "deltapath/comm/comm.h"

#include <stdio.h>

typedef struct dpt_verify_options {
    const char *path; /**< study folder, unit, results.h5, data set, or model in any format */
    const char *
        base; /**< of the model where it is a PEFT adapter that names none that lies here; or NULL */
    FILE *out; /**< NULL: standard output */
} dpt_verify_options;

/** Check a model: its structure, the stored XXH3-64 of every tensor, the manifest or trailer that covers
 * the rest, and that every value of a float type that deltapath computes with is finite. Of a results file
 * or a unit: its checksum, and that all of it can be read; of a data set that too, as a run does. Of a study's folder: its manifest with every
 * file, every unit and model, that they belong together, and what no checksum covers.
 * Rank 0 prints a line for each finding and a summary.
 * Collective over comm (same: options).
 * Errors: DPT_ERR_INPUT naming the first tensor (and index) that is wrong. */
dpt_status dpt_verify_run(const dpt_comm *comm, const dpt_verify_options *options);

#endif
