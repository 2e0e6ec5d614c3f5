#ifndef DELTAPATH_SRC_STUDY_ASIDE_H
#define DELTAPATH_SRC_STUDY_ASIDE_H

#include "deltapath/base/status.h"

/* Files and folders of models that are replaced step aside by a rename, which can be taken back, and are
 * removed once what replaces them is there. All functions are Local. */

/** What its name ends in before that of a temporary file. */
#define DPT_ASIDE_ENDING ".old"

/** Check that something could be renamed and removed, without a change.
 * Errors: DPT_ERR_OUTPUT naming it and why not. */
dpt_status dpt_aside_check(const char *path);

/** Rename it. @param[out] aside  its temporary name, allocated (dpt_mem_free); NULL when it was not there.
 * Errors: DPT_ERR_OUTPUT naming it; it stays where it is. */
dpt_status dpt_aside_move(const char *path, char **aside);

/** Take the rename back; a warning says when that fails. */
void dpt_aside_restore(const char *aside, const char *path);

/** Remove it; a warning names what stays. */
void dpt_aside_remove(const char *aside);

#endif
