#ifndef DELTAPATH_SRC_VERBS_VERIFY_H
#define DELTAPATH_SRC_VERBS_VERIFY_H

#include "deltapath/comm/comm.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/** Check a model: structure, all hashes, finite values; rank 0 prints to `out`.
 * Collective over comm. @param[in] base  of an adapter, or NULL. Errors: DPT_ERR_INPUT naming file and tensor. */
dpt_status dpt_verify_model(const dpt_comm *comm, const char *path, const char *base, FILE *out);

/** Whether a path is the folder of a study. Local. */
bool dpt_verify_is_study(const char *path);

/** Check every file of a study's folder; all that is wrong is printed by rank 0, and what no checksum
 * covers. Collective over comm. Errors: DPT_ERR_INPUT naming the first file that is wrong. */
dpt_status dpt_verify_study(const dpt_comm *comm, const char *path, FILE *out);

#endif
