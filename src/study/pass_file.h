#ifndef DELTAPATH_SRC_STUDY_PASS_FILE_H
#define DELTAPATH_SRC_STUDY_PASS_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "deltapath/loss/loss.h"

/* One file of progress/: a pass over a data set that is finished, or how far one rank has come with it.
 * All functions are Local. None records an error: what is kept only saves work. */

enum { DPT_PASS_FINISHED = -1 };

/** What a file says of itself. */
typedef struct dpt_pass_header {
    char format[24]; /**< "deltapath-progress 1\n" and zeros */
    uint64_t key;    /**< of the pass and all that its numbers depend on */
    int64_t next;    /**< the first sample that is not in it, or DPT_PASS_FINISHED */
    int64_t ranks;   /**< of the run that wrote it, and those that shared a replica */
    int64_t group;
    int64_t rank;  /**< that wrote it */
    int64_t bytes; /**< that follow, before the seal */
} dpt_pass_header;

/** Write header and parts under a temporary name, sealed, and rename; with `sync` it outlives the machine
 * too, else the process. Sets format and bytes of the header.
 * @return false with errno when it could not be written; an old file is untouched. */
bool dpt_pass_file_write(const char *path, dpt_pass_header *header, const dpt_loss_part *parts,
                         int count, bool sync);

/** Header of a file of this format and of the length that it says. */
bool dpt_pass_file_peek(const char *path, dpt_pass_header *header);

/** Read the parts of a file whose key, next, ranks, group and rank are those of `wanted`. @return false when it
 * is not that file or is damaged; the parts are undefined then. */
bool dpt_pass_file_read(const char *path, const dpt_pass_header *wanted, const dpt_loss_part *parts,
                        int count);

#endif
