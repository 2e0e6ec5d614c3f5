#ifndef DELTAPATH_SRC_STUDY_ALLOCATION_H
#define DELTAPATH_SRC_STUDY_ALLOCATION_H

#include "deltapath/base/status.h"

#include <stdbool.h>
#include <stdint.h>

/** What each of n items may take: choices [first[i], first[i + 1]), by rising size and falling cost. Borrowed. */
typedef struct dpt_allocation {
    int n;
    const int64_t *first; /**< (n + 1) */
    const double *size;   /**< (first[n]) */
    const double *cost;   /**< (first[n]) */
    const double
        *level;    /**< (first[n]) rising within an item: what items of a group have in common */
    double budget; /**< largest sum of sizes */
} dpt_allocation;

/** The choices of least total cost within the budget, one for each item that has any.
 *
 * Local. Computes: the minimum of cost + lambda size, which is met on the lower convex hull of each item's choices: all
 * begin at their smallest, and the steps along the hulls are taken in the order of what they save for their size
 * (the Lagrangian, lambda falling); a step that no longer fits ends its item, and later ones that fit are taken. Below
 * the best by at most what the first step that did not fit would have saved. Equal steps go by item.
 * Source: Shoham and Gersho, IEEE Trans. ASSP 36 (1988).
 * @param[out] chosen (n) index into the choices; -1 for an item without.
 * Errors: DPT_ERR_USAGE when the smallest choices exceed the budget; DPT_ERR_OUTPUT without memory. */
dpt_status dpt_allocation_by_item(const dpt_allocation *of, int64_t *chosen);

/** The largest level at which the items of a group fit, each with its last choice up to that level, while all
 * others take their last choice. Local. @param[in] in_group (n). @return whether it fits at all. */
bool dpt_allocation_by_group(const dpt_allocation *of, const bool *in_group, int64_t *chosen);

/** Sums over what was chosen. Local. */
double dpt_allocation_sum(const dpt_allocation *of, const double *values, const int64_t *chosen);

#endif
