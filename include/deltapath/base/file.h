#ifndef DELTAPATH_BASE_FILE_H
#define DELTAPATH_BASE_FILE_H

#include "deltapath/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Files that appear whole or not at all, written by one process under a temporary name of its own, synced
 * and renamed; no input is ever written to (base/guard); input files that are what they seem; and what a
 * file is known again by. All functions are Local. */

/** What makes a name a temporary one: NAME DPT_FILE_PARTIAL, of models, which are locked, and
 * NAME DPT_FILE_PARTIAL.MACHINE.PROCESS of other files, so that two processes that write one file never
 * write into one temporary file: the last complete one wins. No user gives a file such a name: once nobody
 * can be writing it, it is taken for one that a process which was killed left behind, and removed. */
#define DPT_FILE_PARTIAL ".partial-deltapath"

/** Temporary name of `path` for this process, allocated (dpt_mem_free); NULL without memory. */
char *dpt_file_temporary(const char *path);

/** Length of the final name in a temporary name, without folders; 0 when it is none. */
size_t dpt_file_temporary_stem(const char *name);

/** Remove temporary files that were left in a folder: those of the file `name`, or of all files when it is
 * NULL; whoever wrote them when the caller holds the lock of the folder, else those of processes of this
 * machine that have ended. What cannot be removed stays, without an error. */
void dpt_file_sweep(const char *folder, const char *name, bool locked);

/** The same for one file, without a lock, before it is written. */
void dpt_file_sweep_of(const char *path);

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

/** Write n bytes at the position of an open file or pipe, all of them. @return false with errno. */
bool dpt_file_write_open(int fd, const void *bytes, int64_t n);

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
    int64_t ctime; /**< [ns] of the last change of content, links, permissions or owner */
    uint64_t links, mode, owner, group;
} dpt_file_identity;

/** Identity of the file behind a path or a descriptor, links followed.
 * Errors: DPT_ERR_INPUT naming the file when there is none; the identity is zero. */
dpt_status dpt_file_identify(const char *path, dpt_file_identity *out);
dpt_status dpt_file_identify_open(int fd, const char *path, dpt_file_identity *out);

/** Whether device, inode, size and both times agree: two looks of one node. The time of change is the one
 * that nobody can set back; where it alone moved, a link that came or went, or other permissions or another owner,
 * explain it: a backup by hard links must not end a run. */
bool dpt_file_same(const dpt_file_identity *a, const dpt_file_identity *b);

/** The same without the device: looks of two nodes at a network file system. */
bool dpt_file_same_content(const dpt_file_identity *a, const dpt_file_identity *b);

/** Record that an input is no longer what was read of it. Local. @return DPT_ERR_INPUT. */
dpt_status dpt_file_changed(const char *path);

#endif
