#ifndef DELTAPATH_SRC_STORE_SYNTHETIC_H
#define DELTAPATH_SRC_STORE_SYNTHETIC_H

#include "store_internal.h"

/** Whether a folder is a synthetic model. Local. */
bool dpt_store_is_synthetic(const char *path);

/** Elements [ig, ig + n) of a tensor that is made. Local.
 *
 * Computes: with s and d the sums of the four bytes of the element's words of two streams, each less 510 (mean 0,
 * standard deviation sqrt(21845)): b = round(mean + scale s), and b, or where there is a delta round(b + step d).
 * In fp32; rounded to the type of the tensor.
 * Determinism: depends on seed, name and element alone. */
void dpt_store_synthetic_run(const dpt_store_entry *entry, int64_t ig, int64_t n, void *out);

/** Feed a hash with all that its values depend on. Local. */
void dpt_store_synthetic_feed(const dpt_store_entry *entry, dpt_hash *hash);

#endif
