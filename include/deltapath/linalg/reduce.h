#ifndef DELTAPATH_LINALG_REDUCE_H
#define DELTAPATH_LINALG_REDUCE_H

#include "deltapath/comm/comm.h"

#include <stdint.h>

/** Sums in double over one cell (or part of one), in a fixed order of 16 interleaved lanes that are
 * added pairwise at the end: the same bits for the same values, whatever the vector width. Local. */
double dpt_reduce_abs(const float *x, int64_t n);    /**< sum of |x| */
double dpt_reduce_square(const float *x, int64_t n); /**< sum of x^2 */
double dpt_reduce_dot(const float *x, const float *y, int64_t n);

/** Totals from partial sums that were taken cell by cell on the ranks that own the cells.
 *
 * Every slot of `partial` is set by exactly one rank and zero on the others; the slots of group g
 * are [first[g], first[g + 1]), and are added in slot order.
 * Collective over comm (same: groups, first).
 * @param[in,out] partial (first[groups]) this rank's slots; all slots on return.
 * @param[out]    totals  (groups) the same bits on all ranks and at any number of ranks.
 */
dpt_status dpt_reduce_totals(const dpt_comm *comm, int64_t groups, const int64_t *first,
                             double *partial, double *totals);

#endif
