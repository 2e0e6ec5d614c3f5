#ifndef DELTAPATH_SRC_STUDY_ASIDE_H
#define DELTAPATH_SRC_STUDY_ASIDE_H

#include "deltapath/base/status.h"

#include <stdbool.h>
#include <stddef.h>

/* Files and folders of models that are replaced step aside by a rename, which can be taken back, and are
 * removed once what replaces them is there. All functions are Local. */

/** What its name ends in before that of a temporary file. */
#define DPT_ASIDE_ENDING ".old"

/** Rename it. @param[out] aside  its temporary name, allocated (dpt_mem_free); NULL when it was not there.
 * Errors: DPT_ERR_OUTPUT naming it; it stays where it is. */
dpt_status dpt_aside_move(const char *path, char **aside);

/** Take the rename back; a warning says when that fails. */
void dpt_aside_restore(const char *aside, const char *path);

/** Remove it; a warning names what stays. */
void dpt_aside_remove(const char *aside);

/** Length of the name that something had before it stepped aside, without folders; 0 when it did not. */
size_t dpt_aside_stem(const char *name);

/** Rename back what a run that was killed left aside in a folder, where nothing else has the name by now.
 * @param[in] only  what had that name alone; NULL: all. */
void dpt_aside_restore_all(const char *folder, const char *only);

/** Whether what stepped aside in a directory has been replaced, so that it is only to be removed. A mark, an
 * empty file, says so between dpt_aside_make_final and dpt_aside_end. */
bool dpt_aside_is_final(const char *directory);
void dpt_aside_make_final(const char *directory);
dpt_status
dpt_aside_end(const char *directory); /**< Errors: DPT_ERR_OUTPUT: the mark is still there. */

#endif
