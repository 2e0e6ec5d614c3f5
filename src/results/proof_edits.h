#ifndef DELTAPATH_SRC_RESULTS_PROOF_EDITS_H
#define DELTAPATH_SRC_RESULTS_PROOF_EDITS_H

#include "deltapath/results/results.h"

/* Which units of a data set are independent edits, and which of them have their masks in common. Local. */

/** Units that are no two edits, directly or by others, have one cluster: 0 and on, in the order of their first ones.
 * @param[out] cluster (n). @return how many. */
int64_t dpt_proof_clusters(int64_t n, const dpt_result *const *units, int64_t *cluster);

/** Units with the same seed have one number, 0 and on: what each of them draws of an element is the same.
 * @param[in] cluster (n). @param[out] seed (n) -1 of units that draw nothing.
 * @return how many; 0 where no two clusters have one in common. */
int64_t dpt_proof_seeds(int64_t n, const dpt_result *const *units, const int64_t *cluster,
                        int64_t *seed);

#endif
