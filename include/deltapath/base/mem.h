#ifndef DELTAPATH_BASE_MEM_H
#define DELTAPATH_BASE_MEM_H

#include "deltapath/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Allocate `count` items of `size` bytes, 64-byte aligned, contents undefined.
 *
 * Local, thread-safe. Large blocks are advised to huge pages. A count of 0 gives a valid pointer.
 * The bytes are counted against the budget of this process.
 * @param[in] what  what the block is for; used in the message.
 * @return the block, or NULL after dpt_error with DPT_ERR_OUTPUT when the product overflows, the
 *         budget is exceeded, or the system has no memory. Callers return DPT_ERR_OUTPUT.
 */
void *dpt_mem_alloc(int64_t count, size_t size, const char *what);

/** As dpt_mem_alloc, filled with zero bytes. Local. */
void *dpt_mem_zalloc(int64_t count, size_t size, const char *what);

/** Grow or shrink a block; contents up to the smaller size are kept. On NULL the old block stays. Local. */
void *dpt_mem_realloc(void *block, int64_t count, size_t size, const char *what);

/** Copy a string into a counted block. NULL on no memory, or when text is NULL. Local. */
char *dpt_mem_strdup(const char *text, const char *what);

/** printf into a counted block. NULL on no memory. Local. */
char *dpt_mem_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** Release a block of this module; NULL is allowed. Local. */
void dpt_mem_free(void *block);

/** Count bytes that are not of this module, such as memory that processes share, against the budget. Local.
 * @return false after dpt_error with DPT_ERR_OUTPUT when they exceed it: nothing is counted then. */
bool dpt_mem_charge(int64_t bytes, const char *what);
void dpt_mem_discharge(int64_t bytes); /**< No longer. Local. */

/** Bytes now in use, and the largest ever in use, by blocks of this module and what is charged in this process. Local. */
int64_t dpt_mem_in_use(void);
int64_t dpt_mem_peak(void);

/** Set the budget [bytes] that dpt_mem_alloc enforces; 0 means none. Local. */
void dpt_mem_set_budget(int64_t bytes);

/** Bytes still free under the budget; INT64_MAX without one. Local. */
int64_t dpt_mem_available(void);

/** Memory [bytes] that this machine or its control group grants to all of its processes. Local. */
int64_t dpt_mem_machine(void);

/** Product and sum that say when they overflow int64. Local. @return true when it fits. */
bool dpt_mem_mul(int64_t a, int64_t b, int64_t *product);
bool dpt_mem_add(int64_t a, int64_t b, int64_t *sum);

/** What the reports of short memory end with. */
#define DPT_MEM_REMEDY "free memory on the node, or spread the ranks over more nodes"

/** malloc for a library that makes values whose parts may be missing when memory is short (jansson: a
 * member whose value could not be made is left out). A failure is recorded as this process's error.
 * Local, thread-safe. */
void *dpt_mem_library_alloc(size_t bytes);

/** DPT_OK, or DPT_ERR_OUTPUT when dpt_mem_library_alloc has failed once: what was made since must not be
 * used. Whoever writes a file asks, and so does dpt_agree. Local. */
dpt_status dpt_mem_check(void);

#endif
