#ifndef DELTAPATH_STORE_BESIDE_H
#define DELTAPATH_STORE_BESIDE_H

#include "deltapath/base/status.h"

/* Small files that appear whole or not at all: written as `path`.partial by one process, synced and
 * renamed. All functions are Local. */

/** Name of the file beside `path` to write to, allocated (dpt_mem_free). A stale one is removed.
 * Errors: NULL after dpt_error without memory. */
char *dpt_beside_begin(const char *path);

/** Sync the file beside, rename it to its final name, sync the directory.
 * Errors: DPT_ERR_OUTPUT naming the file; the file beside is removed, an old `path` is untouched. */
dpt_status dpt_beside_commit(const char *path);

/** Remove the file beside, if there is one. */
void dpt_beside_discard(const char *path);

#endif
