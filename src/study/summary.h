#ifndef DELTAPATH_SRC_STUDY_SUMMARY_H
#define DELTAPATH_SRC_STUDY_SUMMARY_H

#include "deltapath/results/results.h"
#include "deltapath/job/job.h"

#include <stdint.h>

/** A number to be printed: of NaN printf shows the sign, which says nothing. Local. */
double dpt_summary_number(double x);

/** Print the verdicts of a study on stdout: a table per data set. Local; call it on one rank.
 * @param[in] results (edits x units) edit by edit; units are the data sets of the job; an edit that a data set does
 *            not judge has an empty place (edit NULL). */
void dpt_summary_print(const dpt_result *results, int64_t edits, int64_t units);

/** Print what the law predicted of the edits on a data set, which predictions are out of range and why, and how they
 * compare with the true changes; nothing without a law. Local. */
void dpt_summary_print_law(int64_t count, const dpt_result *const *units);

/** Print how the terms of groups of tensors compare with what leaving them out of the edits on a data set changes; nothing
 * where none were. Local. */
void dpt_summary_print_groups(int64_t count, const dpt_result *const *units);

/** Finish a study: correct the p-values of each data set for the edits compared on it (Holm), sum up
 * edits that differ in their seed, write all result files, and print the verdicts.
 *
 * Collective over comm (same: units and number of edits; job, study and results are read on rank 0 only).
 * @param[in,out] results (edits of the job x units) edit by edit, as for dpt_summary_print; p_adjusted and p_equivalent_adjusted are
 * filled.
 * Errors: those of dpt_results_write. */
dpt_status dpt_summary_write(const dpt_comm *comm, const dpt_job *job,
                             const dpt_results_study *study, dpt_result *results, int units);

#endif
