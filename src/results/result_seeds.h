#ifndef DELTAPATH_SRC_RESULTS_RESULT_SEEDS_H
#define DELTAPATH_SRC_RESULTS_RESULT_SEEDS_H

#include "deltapath/results/results.h"

#include <jansson.h>
#include <stdio.h>

/* The summaries over seeds in results.h5 (group /seeds, missing without any), seeds.csv and
 * results.json. Private to the store layer. */

bool dpt_result_seeds_put(int64_t file, const dpt_results_study *study);
/* Whether the file's table has the columns of this program; true without a table. */
bool dpt_result_seeds_has_columns(int64_t file);
bool dpt_result_seeds_get(int64_t file, int64_t file_bytes, dpt_results *out);
void dpt_result_seeds_csv(FILE *file, const dpt_results_study *study);
json_t *dpt_result_seeds_json(const dpt_results_study *study);

#endif
