#ifndef DELTAPATH_SRC_EDIT_ORDER_H
#define DELTAPATH_SRC_EDIT_ORDER_H

#include <stddef.h>
#include <stdint.h>

/* The order of the magnitudes of one row. Private to src/edit. */

/** Bytes that dpt_edit_order_row needs for rows of up to n elements. Local. */
int64_t dpt_edit_order_bytes(int64_t n);

/** Order of each entry of a row by falling magnitude, from 0; of equal ones the first is first. Local.
 * @param[in] x (n), n < 2^32; @param[out] order (n); @param room dpt_edit_order_bytes(n), aligned to 64. */
void dpt_edit_order_row(const float *x, int64_t n, uint32_t *order, void *room);

#endif
