#ifndef DELTAPATH_BASE_FILE_H
#define DELTAPATH_BASE_FILE_H

#include "deltapath/base/status.h"

#include <stdbool.h>
#include <stdint.h>

/* Files that appear whole or not at all, written by one process under the temporary name
 * `path` DPT_FILE_PARTIAL, synced and renamed; no input is ever written to (base/guard); input files that are what they seem; and what a file is known again by. All
 * functions are Local. */

/** Ending of temporary names. A file of such a name is taken for one that a run which was killed left
 * behind, and replaced: no user gives a file this name. */
#define DPT_FILE_PARTIAL ".partial-deltapath"

/** One of the parts that make up a file, in order. Borrowed. */
typedef struct dpt_file_piece {
    const void *bytes;
    int64_t n;
} dpt_file_piece;

/** Write a whole file: temporary name, sync, rename, sync of the folder.
 * Errors: DPT_ERR_OUTPUT naming the file; the temporary file is removed, an old `path` is untouched. */
dpt_status dpt_file_write(const char *path, const void *bytes, int64_t n);

/** The first half of dpt_file_write: all bytes are in the temporary file and synced, so that a full disk
 * is found; dpt_file_commit or dpt_file_discard must follow. Several files that belong together are put
 * first and committed then.
 * Errors: DPT_ERR_OUTPUT naming the file; the temporary file is removed. */
dpt_status dpt_file_put(const char *path, const dpt_file_piece *pieces, int count);

/** Temporary name of `path` for a caller that writes by itself, allocated (dpt_mem_free). A stale file of
 * that name is removed. Errors: NULL after dpt_error without memory, or when `path` is an input. */
char *dpt_file_begin(const char *path);

/** Sync the temporary file, rename it to its final name, sync the folder.
 * Errors: DPT_ERR_OUTPUT naming the file; the temporary file is removed, an old `path` is untouched. */
dpt_status dpt_file_commit(const char *path);

/** Remove the temporary file, if there is one. */
void dpt_file_discard(const char *path);

/** Open a regular file for reading, links followed; a FIFO, a device or a folder is refused at once and
 * never waited for. @return a descriptor that is closed on exec, or -1.
 * Errors: -1 after dpt_error with DPT_ERR_INPUT naming the file. */
int dpt_file_open_input(const char *path);

/** Read n bytes at an offset of an open file. @return how many there were; less than n only at its end;
 * -1 with errno when reading failed. */
int64_t dpt_file_read_at(int fd, int64_t offset, void *out, int64_t n);

/** Read a regular file of at most `limit` bytes whole, by read(2), once.
 * @param[out] bytes  allocated (dpt_mem_free), with a NUL after the last byte; n: without it.
 * Errors: DPT_ERR_INPUT naming the file; DPT_ERR_OUTPUT without memory; bytes is NULL then. */
dpt_status dpt_file_read(const char *path, int64_t limit, char **bytes, int64_t *n);

/** What tells whether a file is still the one that it was. */
typedef struct dpt_file_identity {
    uint64_t device; /**< differs between the nodes of a network file system */
    uint64_t inode;
    int64_t size;
    int64_t mtime; /**< [ns] */
    int64_t ctime; /**< [ns] changes with links and permissions too */
} dpt_file_identity;

/** Identity of the file behind a path or a descriptor, links followed.
 * Errors: DPT_ERR_INPUT naming the file when there is none; the identity is zero. */
dpt_status dpt_file_identify(const char *path, dpt_file_identity *out);
dpt_status dpt_file_identify_open(int fd, const char *path, dpt_file_identity *out);

/** Whether device, inode, size and both times agree: two looks of one node. The time of change is the one
 * that nobody can set back; links and permissions move it too. */
bool dpt_file_same(const dpt_file_identity *a, const dpt_file_identity *b);

/** The same without the device: looks of two nodes at a network file system. */
bool dpt_file_same_content(const dpt_file_identity *a, const dpt_file_identity *b);

#endif
