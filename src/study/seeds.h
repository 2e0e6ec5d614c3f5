#ifndef DELTAPATH_SRC_STUDY_SEEDS_H
#define DELTAPATH_SRC_STUDY_SEEDS_H

#include "deltapath/results/results.h"
#include "deltapath/job/job.h"

/** Summarise the edits that differ in their seed alone, on each data set.
 *
 * Local. Computes: mean, standard deviation and Student's 95 % interval of the mean over seeds; of the
 * change also that over seeds and samples (dpt_crossed_interval), NaN where one of the units has no interval.
 * @param[in]  results (edits of the job, units) row-major.
 * @param[out] list    (*count) in the order of the job, to be released by dpt_seeds_release; groups of
 *                     one seed and edits without data are left out.
 * Errors: DPT_ERR_OUTPUT without memory; *list NULL. */
dpt_status dpt_seeds_collect(const dpt_job *job, const dpt_result *results, int64_t units,
                             dpt_result_seeds **list, int64_t *count);
void dpt_seeds_release(dpt_result_seeds *list, int64_t count); /**< Local; NULL is allowed. */

#endif
