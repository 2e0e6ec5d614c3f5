#ifndef DELTAPATH_SRC_RESULTS_RESULT_MATRICES_H
#define DELTAPATH_SRC_RESULTS_RESULT_MATRICES_H

#include "deltapath/results/results.h"

/** The table /matrices of a results file; nothing without matrices. Local. */
bool dpt_result_matrices_put(int64_t file, const dpt_results_matrices *matrices);
/** Read it back; empty where it is not there. Local. @return whether it is sound and of `tensors` tensors. */
bool dpt_result_matrices_get(int64_t file, int64_t tensors, dpt_results_matrices *out);

#endif
