#ifndef DELTAPATH_STUDY_STUDY_H
#define DELTAPATH_STUDY_STUDY_H

#include "deltapath/comm/comm.h"
#include "deltapath/job/job.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct dpt_study_options {
    bool resume;        /**< go on with the units that the output directory lacks */
    bool verify_inputs; /**< check the models as `deltapath verify` does, before the work */
    bool dry_run;       /**< check everything and print the plan, then stop */
    int64_t memory; /**< budget per rank [bytes]; 0: what the machine has, shared by its ranks */
    const char *machine; /**< file that says what the plan knows of the machine, or NULL */
    int ranks_per_node;  /**< with dry_run: of the study; 0: cores over threads, or as they run */
    int plan_last; /**< with plan_ranks: a table of the ranks from those up to these; 0: none */
    double plan_seconds; /**< that the study may take in that table; 0: any */
    bool json;           /**< the plan as JSON */
    const char *plot;    /**< file for a plot of the table, or NULL */
    int plan_ranks;      /**< with dry_run: plan for that many ranks; 0: those that run */
} dpt_study_options;

/** Run a study: check it whole, then each edit in turn, each finished unit saved at once.
 *
 * Collective over comm (same: job, options). A stop (dpt_stop_asked) ends the study after the batch, the
 * cell or the matrix in hand.
 * Errors, agreed: before any work DPT_ERR_USAGE and DPT_ERR_INPUT for what the job, the models or the data
 * have wrong, DPT_ERR_OUTPUT for a study in the way and for memory, room or rights that are short; later
 * DPT_ERR_INPUT for values that are not finite and DPT_ERR_OUTPUT; DPT_INTERRUPTED. All finished units are
 * saved in each case.
 */
dpt_status dpt_study_run(const dpt_comm *comm, const dpt_job *job,
                         const dpt_study_options *options);

#endif
