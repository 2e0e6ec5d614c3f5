#ifndef DELTAPATH_PATH_CENTRAL_H
#define DELTAPATH_PATH_CENTRAL_H

#include "deltapath/comm/comm.h"
#include "deltapath/path/oracle.h"

#include <stdint.h>

/** Derivative at t = 0 of the terms of an oracle: with terms <grad of tensor i at t, E_i> it is E_i^T (H E)_i. */
typedef struct dpt_central {
    double step;        /**< the smaller of the two whose differences make the numbers */
    double total;       /**< sum of the derivatives */
    double error;       /**< size of the numerical error of the total */
    double *derivative; /**< (oracle->terms) */
} dpt_central;

/** Central differences with a step between truncation and rounding.
 *
 * Collective over comm (same: oracle->terms, first).
 * Computes: D(h) = (terms(h) - terms(-h)) / 2h for h = first and half of it, then (4 D(h/2) - D(h)) / 3, whose
 * truncation is of fourth order. The error is what the two steps differ by, in the total or, where that is less, as
 * the root of the sum of the squared differences of the terms: it stands for truncation, which it exceeds, and for
 * the rounding of the slopes. While it is above a thousandth of the total the step is halved, until it grows, which is
 * rounding, or four times; the pair of least error is kept.
 * oracle.slope is called at h and -h for falling h.
 * @param[in]  first a step at which the terms are close to straight, above 0.
 * @param[out] out   to be destroyed by the caller; empty on error. The same on all ranks.
 * Errors: those of the oracle; DPT_ERR_OUTPUT without memory. Determinism: the same for the same oracle values.
 */
dpt_status dpt_central_run(const dpt_comm *comm, const dpt_oracle *oracle, double first,
                           dpt_central *out);

/** D(h) of one step alone. Collective as dpt_central_run. @param[out] derivative (oracle->terms). */
dpt_status dpt_central_step(const dpt_comm *comm, const dpt_oracle *oracle, double step,
                            double *derivative);

void dpt_central_destroy(dpt_central *central); /**< Local; an empty one is allowed. */

#endif
