#include "store_internal.h"

#include <fcntl.h>

/* Bytes that are moved in order: what follows is read ahead, and what was written goes to the disk while the
 * next is made. Both are advice to the system, which keeps the bytes, so that neither has an error of its own nor memory
 * of this process: what could not be read ahead is read when it is asked for, and what could not be written
 * is reported by fsync. */

enum {
    SMALL = 64 << 10,      /* headers and scales between the values: no run */
    AHEAD = 32 << 20,      /* most that is read ahead */
    AHEAD_LEAST = 1 << 20, /* less is not worth a call */
    BEHIND = 8 << 20       /* written at a time */
};

dpt_store_span dpt_store_run_read(dpt_store_run *run, dpt_store_span request, int64_t offset,
                                  int64_t piece) {
    if (offset != run->end && request.bytes < SMALL)
        return (dpt_store_span){.bytes = 0};
    if (offset != run->end)
        *run = (dpt_store_run){.begin = offset, .asked = offset};
    /* The rest of this request, and half of what came in order before it: that a reader goes on is a guess, and
     * where ranks read next to each other what it asks for too much is another one's. */
    int64_t before = request.offset > run->begin ? request.offset - run->begin : 0;
    int64_t until = request.offset + request.bytes + before / 2;
    run->end = offset + piece;
    until = until < run->end + AHEAD ? until : run->end + AHEAD;
    dpt_store_span span = {.offset = run->asked > offset ? run->asked : offset};
    if (until - span.offset < AHEAD_LEAST)
        return (dpt_store_span){.bytes = 0};
    span.bytes = until - span.offset;
    run->asked = until;
    return span;
}

dpt_store_span dpt_store_run_written(dpt_store_run *run, int64_t offset, int64_t bytes) {
    dpt_store_span span = {.offset = run->asked, .bytes = run->end - run->asked};
    if (offset != run->end) {
        *run = (dpt_store_run){.begin = offset, .end = offset + bytes, .asked = offset};
        return span.bytes >= AHEAD_LEAST ? span : (dpt_store_span){.bytes = 0};
    }
    run->end += bytes;
    span.bytes += bytes;
    if (span.bytes < BEHIND)
        return (dpt_store_span){.bytes = 0};
    run->asked = run->end;
    return span;
}

void dpt_store_read_ahead(int fd, dpt_store_span span) {
    if (span.bytes > 0)
        (void)posix_fadvise(fd, (off_t)span.offset, (off_t)span.bytes, POSIX_FADV_WILLNEED);
}

void dpt_store_write_behind(int fd, dpt_store_span span) {
    if (span.bytes > 0)
        (void)sync_file_range(fd, (off_t)span.offset, (off_t)span.bytes, SYNC_FILE_RANGE_WRITE);
}
