#ifndef DELTAPATH_BASE_PATH_H
#define DELTAPATH_BASE_PATH_H

#include "deltapath/base/status.h"

#include <limits.h>
#include <stdbool.h>

/** Replace a leading `~/` of a path, where no shell has done it.
 *
 * Local. @param[out] out  allocated (dpt_mem_free) with $HOME in its place; NULL when there is nothing to
 * replace.
 * Errors: DPT_ERR_USAGE for another user's `~name` that is no file, for `~/` without HOME, and for a
 * variable such as `$SCRATCH`, which may differ between ranks; DPT_ERR_OUTPUT without memory. */
dpt_status dpt_path_expand(const char *path, char **out);

/** What is at a path, links followed; a path that cannot be looked at exists. Local. */
bool dpt_path_is_directory(const char *path);
bool dpt_path_is_file(const char *path); /**< a regular one */
bool dpt_path_exists(const char *path);  /**< links are not followed */

bool dpt_path_ends_with(const char *path, const char *ending); /**< Local. */

/** "directory/name"; the folder of a path, "." without one. Allocated; NULL without memory. Local. */
char *dpt_path_join(const char *directory, const char *name);
char *dpt_path_parent(const char *path);

/** A path without links, `.` and `..`, also one whose last names are not there yet. Local.
 * @return false when it is too long. */
bool dpt_path_resolve(const char *path, char real[PATH_MAX]);

/** A path from the root as it is named: links stay, and `..` takes the name before it away. Local.
 * @return false when it is too long. */
bool dpt_path_absolute(const char *path, char out[PATH_MAX]);

/** Put what the first link on the way of such a path points to in its place. Local.
 * @return false when there is none, or the path becomes too long. */
bool dpt_path_follow_link(char path[PATH_MAX]);

/** Cut the last name off a path that begins with a slash. Local. @return false at the root. */
bool dpt_path_go_up(char *path);

/** What follows the last slash. Local. @return a part of path. */
const char *dpt_path_base(const char *path);

#endif
