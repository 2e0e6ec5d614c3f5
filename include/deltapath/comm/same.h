#ifndef DELTAPATH_COMM_SAME_H
#define DELTAPATH_COMM_SAME_H

#include "deltapath/base/assert.h"
#include "deltapath/base/hash.h"
#include "deltapath/comm/comm.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Checks of contracts that say `Collective over comm (same: a, b)`, in builds with checks
 * (base/assert.h): one small all-reduce each. They stand at the top of the function, before
 * anything that may go another way on one rank. On a mismatch one line names place, function,
 * argument and two ranks that differ, and all ranks end. Collective over comm in those builds. */

/** A number, boolean or enumeration; of a struct its fields, for its padding may differ. */
#define DPT_ASSERT_SAME(comm, value)                                                               \
    do {                                                                                           \
        if (DPT_CHECKS) {                                                                          \
            __typeof__(value) dpt_same_value = (value);                                            \
            dpt_same_check(comm, dpt_hash_bytes(&dpt_same_value, sizeof dpt_same_value), #value,   \
                           __FILE__, __LINE__, __func__);                                          \
        }                                                                                          \
    } while (0)

/** n items of an array without padding; NULL counts as an array of its own. */
#define DPT_ASSERT_SAME_ARRAY(comm, items, n)                                                      \
    do {                                                                                           \
        if (DPT_CHECKS)                                                                            \
            dpt_same_check(comm, dpt_same_array(items, n, sizeof *(items)), #items, __FILE__,      \
                           __LINE__, __func__);                                                    \
    } while (0)

/** A text, or NULL on all ranks. */
#define DPT_ASSERT_SAME_TEXT(comm, text)                                                           \
    do {                                                                                           \
        if (DPT_CHECKS)                                                                            \
            dpt_same_check(comm, dpt_same_text(text), #text, __FILE__, __LINE__, __func__);        \
    } while (0)

/* * Whether a value is the same on all ranks, and when not, two ranks that differ. Collective over
 * comm. */
bool dpt_same_on_all(const dpt_comm *comm, uint64_t value, int differ[2]);

/* What the macros call. The first is Collective over comm, the others Local. */
void dpt_same_check(const dpt_comm *comm, uint64_t value, const char *argument, const char *file,
                    int line, const char *function);
uint64_t dpt_same_array(const void *items, int64_t n, size_t size);
uint64_t dpt_same_text(const char *text);

#endif
