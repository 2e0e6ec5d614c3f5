#ifndef DELTAPATH_BASE_GUARD_H
#define DELTAPATH_BASE_GUARD_H

#include "deltapath/base/status.h"

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
 * folder that holds an input; naming `path` when it is a symbolic link, a device, a pipe or a socket. */
dpt_status dpt_guard_output(const char *path);

/** Forget all inputs, for tests that write what they have read. */
void dpt_guard_clear(void);

#endif
