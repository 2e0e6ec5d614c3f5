#ifndef DELTAPATH_BASE_PATH_H
#define DELTAPATH_BASE_PATH_H

#include "deltapath/base/status.h"

/** Replace a leading `~/` of a path, where no shell has done it.
 *
 * Local. @param[out] out  allocated (dpt_mem_free) with $HOME in its place; NULL when there is nothing to
 * replace.
 * Errors: DPT_ERR_USAGE for another user's `~name` that is no file, for `~/` without HOME, and for a
 * variable such as `$SCRATCH`, which may differ between ranks; DPT_ERR_OUTPUT without memory. */
dpt_status dpt_path_expand(const char *path, char **out);

#endif
