#ifndef DELTAPATH_BASE_SEALED_H
#define DELTAPATH_BASE_SEALED_H

#include "deltapath/base/file.h"

/* Small files whose every byte is covered by a checksum: what the caller gives, then a trailer of
 * DPT_SEAL_BYTES characters, one line of text:
 *
 *   deltapath-xxh128 <XXH3-128 of what precedes, 32 hex digits> <its length, 16 hex digits>   \n
 *
 * HDF5 does not look beyond its own end of file, so a sealed HDF5 file is an HDF5 file. All functions
 * are Local. */

enum { DPT_SEAL_BYTES = 80 };

/** Trailer for n bytes whose XXH3-128 is `hash`; no terminator. */
void dpt_seal_format(const uint64_t hash[2], int64_t n, char seal[DPT_SEAL_BYTES]);

/** Whether n bytes end with the trailer of what precedes it. @param[out] length what precedes it. */
bool dpt_seal_check(const char *bytes, int64_t n, int64_t *length);

/** dpt_file_write, and dpt_file_put, with the trailer after the n bytes. Errors: as there, and
 * DPT_ERR_OUTPUT for bytes that are NULL: there was no memory to make them. */
dpt_status dpt_sealed_write(const char *path, const void *bytes, int64_t n);
dpt_status dpt_sealed_put(const char *path, const void *bytes, int64_t n);

/** Read such a file of at most `limit` bytes, once, and check it.
 * @param[out] bytes  allocated (dpt_mem_free), with a NUL after the last byte; n: without the trailer.
 * Errors: DPT_ERR_INPUT naming the file when it cannot be read, has no trailer (it was cut off, or
 * another program wrote it), or has another hash; DPT_ERR_OUTPUT without memory. bytes is NULL then. */
dpt_status dpt_sealed_read(const char *path, int64_t limit, char **bytes, int64_t *n);

/** Check a file that may end with the seal of the Python tools, 99 characters of
 * text by SHA-256, which Python has without a package:
 *
 *   deltapath-sha256 <SHA-256 of what precedes, 64 hex digits> <its length, 16 hex digits>\n
 *
 * A file without one is not checked: another program made or changed it.
 * Errors: DPT_ERR_INPUT naming the file when it cannot be read, or is not what was sealed. */
dpt_status dpt_seal_check_tools(const char *path);

#endif
