#ifndef DELTAPATH_SRC_STUDY_SUMMARY_H
#define DELTAPATH_SRC_STUDY_SUMMARY_H

#include "deltapath/store/results.h"

#include <stdint.h>

/** Print the verdicts of a study on stdout: a table per data set. Local; call it on one rank.
 * @param[in] results (edits x units) edit by edit; units are the data sets of the job. */
void dpt_summary_print(const dpt_result *results, int64_t edits, int64_t units);

#endif
