#ifndef DELTAPATH_RESULTS_REFERENCE_CACHE_H
#define DELTAPATH_RESULTS_REFERENCE_CACHE_H

#include "deltapath/comm/comm.h"

#include <stdbool.h>
#include <stdint.h>

/* Numbers that are costly to compute, kept in a small file of their own. */

/** Load n numbers if the file is there, whole, and of this key.
 *
 * Rank 0 reads, in a child process. Collective over comm (same: path, key, n).
 * @param[out] values (n) the same on all ranks when found, else undefined.
 * @param[out] found  the same on all ranks; false for a file that is missing, damaged or of another key:
 *                    the numbers are then to be computed again, with a warning unless it is missing.
 * Errors: DPT_ERR_OUTPUT without memory.
 */
dpt_status dpt_cache_load(const dpt_comm *comm, const char *path, uint64_t key, int64_t n,
                          double *values, bool *found);

/** Save n numbers in a sealed file that appears whole or not at all (base/sealed). Missing folders of the last level are made.
 * Rank 0 writes. Collective over comm. Errors: DPT_ERR_OUTPUT naming the file; no file under its name. */
dpt_status dpt_cache_save(const dpt_comm *comm, const char *path, uint64_t key, int64_t n,
                          const double *values);

#endif
