#ifndef DELTAPATH_STUDY_DIRECTORY_LOCK_H
#define DELTAPATH_STUDY_DIRECTORY_LOCK_H

#include "deltapath/base/status.h"

/** Keep other runs out of an output directory for the rest of this process, so that its report belongs to the
 * run as well; where the file system has no locks on folders, runs are not kept apart. From then on nothing is
 * written to another folder that gets its name (dpt_guard_enter).
 *
 * Local, for rank 0. Waits half a minute for a run that is about to end. A directory that this process has
 * locked before is its own.
 * Errors: DPT_ERR_OUTPUT naming the directory when another run stays in it, or when it is another one after
 * the wait; DPT_INTERRUPTED. */
dpt_status dpt_directory_lock(const char *directory);

/** The same for the folder of the models of a study, before anything in it is looked at: it may be a link that
 * leads to a folder that other studies use too. One that is not there is no error. Local, for rank 0. */
dpt_status dpt_directory_lock_models(const char *models);

#endif
