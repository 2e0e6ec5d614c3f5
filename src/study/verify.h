#ifndef DELTAPATH_SRC_STUDY_VERIFY_H
#define DELTAPATH_SRC_STUDY_VERIFY_H

#include "deltapath/comm/comm.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/** Check a model: structure, all hashes, finite values; rank 0 prints to `out`.
 * Collective over comm. Errors: DPT_ERR_INPUT naming file and tensor. */
dpt_status dpt_verify_model(const dpt_comm *comm, const char *path, FILE *out);

/** The same. @param[out] hashes (count) XXH3-64 of each tensor in the order of the store, on all ranks,
 * allocated; NULL on error. */
dpt_status dpt_verify_hashes(const dpt_comm *comm, const char *path, FILE *out, uint64_t **hashes,
                             int *count);

/** Whether a path is the folder of a study. Local. */
bool dpt_verify_is_study(const char *path);

/** Check every file of a study's folder; all that is wrong is printed by rank 0, and what no checksum
 * covers. Collective over comm. Errors: DPT_ERR_INPUT naming the first file that is wrong. */
dpt_status dpt_verify_study(const dpt_comm *comm, const char *path, FILE *out);

#endif
