#ifndef DELTAPATH_BASE_GUARD_H
#define DELTAPATH_BASE_GUARD_H

#include "deltapath/base/status.h"

#include <stdbool.h>

/* The user's files. Whatever this process reads is registered where it is opened, and every writer asks
 * here before it makes, replaces or removes anything. Files are known by device and inode, links
 * followed, so that neither another spelling nor a link makes an input an output. All functions are
 * Local and for one thread; the process that writes, rank 0, must be the one that registers. */

/** Register a file or folder as an input for the rest of the process, a folder with all that lies in it.
 * A path that leads to nothing is no input. Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_guard_input(const char *path);

/** Check that a file or folder may be made at `path`, or what is there be replaced or removed.
 *
 * Errors: DPT_ERR_OUTPUT naming both files when `path` is an input, lies inside an input folder, or is a
 * folder that holds an input; naming `path` when it is a symbolic link, a device, a pipe or a socket; and of
 * dpt_guard_check_moved. */
dpt_status dpt_guard_output(const char *path);

/** Keep to a folder into which this process writes: once another one, or none, has its name, dpt_guard_output
 * refuses what would lie in it. One that it keeps to under this name already stays the one; a path that leads to
 * no folder is none. Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_guard_enter(const char *folder);

/** Forget that folder, and those below it, when other work begins in it. */
void dpt_guard_leave(const char *folder);

/** Whether `path` is, or would lie in, another folder than the one that was entered under its name. */
bool dpt_guard_is_moved(const char *path);

/** The same as an error: DPT_ERR_OUTPUT naming the folder and the remedy. */
dpt_status dpt_guard_check_moved(const char *path);

/** Forget all inputs and folders, for tests that write what they have read. */
void dpt_guard_clear(void);

#endif
