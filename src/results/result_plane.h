#ifndef DELTAPATH_SRC_RESULTS_RESULT_PLANE_H
#define DELTAPATH_SRC_RESULTS_RESULT_PLANE_H

#include "deltapath/results/results.h"

#include <stdio.h>

/* The losses on the plane of two edits in results.h5 (group /plane, missing without one) and plane.csv. */

bool dpt_result_plane_put(int64_t file, const dpt_results_study *study);
bool dpt_result_plane_get(int64_t file, int64_t file_bytes, dpt_results *out);
void dpt_result_plane_csv(FILE *file, const dpt_results_study *study);

#endif
