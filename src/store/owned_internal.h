#ifndef DELTAPATH_SRC_STORE_OWNED_INTERNAL_H
#define DELTAPATH_SRC_STORE_OWNED_INTERNAL_H

#include "deltapath/base/sealed.h"
#include "deltapath/base/status.h"
#include "deltapath/store/owned.h"

#include <stdbool.h>
#include <stdint.h>

/* What the files of store/owned share. Private to them. */

enum { DPT_OWNED_START_BYTES = 16 << 10 }; /* in which the mark of a file stands */

#define DPT_OWNED_HDF5_START "\211HDF\r\n\032\n"

#define DPT_OWNED_PROGRESS_START "deltapath-progress "

/* Whether an HDF5 file that is there is of a kind, also a damaged one. */
bool dpt_owned_is_marked(const char *path, dpt_owned_kind kind);

/* The errors: of another origin; changed by someone; of another study. */
dpt_status dpt_owned_refuse(const char *path, const char *what);
dpt_status dpt_owned_refuse_changed(const char *path);
dpt_status dpt_owned_refuse_study(const char *path, const char *owner, const char *study);

/* The start and the end of a file, as far as they go; its length, or -1 when it cannot be read. */
int64_t dpt_owned_peek(const char *path, char start[DPT_OWNED_START_BYTES + 1],
                       char tail[DPT_SEAL_BYTES + 1]);
bool dpt_owned_begins(const char *text, const char *start);

#endif
