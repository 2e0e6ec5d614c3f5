#ifndef DELTAPATH_BASE_ISOLATE_H
#define DELTAPATH_BASE_ISOLATE_H

#include "deltapath/base/status.h"

#include <stdint.h>

/** Work that reads an untrusted file through a library. It runs in a child process: it may not call
 * MPI, and nothing that it changes in memory is seen by the parent.
 * @param[out] bytes  its result, n plain bytes of base/mem; may stay NULL. */
typedef dpt_status (*dpt_isolate_fn)(void *ctx, char **bytes, int64_t *n);

/** Run `work` in a child process and bring its result, or its error, back.
 *
 * The HDF5 library can crash or loop on a damaged file (1.10 does, on single flipped bits); a batch
 * job of a thousand ranks must answer with one line instead. When the system gives no child process,
 * the work runs in this one. A signal that asks the process for a stop (dpt_signal_install) does not end
 * the child.
 * Local. @param[in] path  the file, for the message. @param[out] bytes allocated; NULL when n is 0.
 * Errors: those of work; DPT_ERR_INPUT when the child crashes, or needs more than 20 s of processor
 * time (DPT_ISOLATE_SECONDS in the environment) or ten minutes in all; DPT_ERR_OUTPUT when it is killed from
 * outside, as a system without memory does, or when it fails and this process can get no memory either.
 */
dpt_status dpt_isolate_run(const char *path, dpt_isolate_fn work, void *ctx, char **bytes,
                           int64_t *n);

/** As dpt_isolate_run for work that makes `path` or changes it: HDF5 also crashes when the disk or the
 * memory ends below it, at the latest when the process does. A crash is DPT_ERR_OUTPUT. Local. */
dpt_status dpt_isolate_write(const char *path, dpt_isolate_fn work, void *ctx, char **bytes,
                             int64_t *n);

#endif
