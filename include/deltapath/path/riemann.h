#ifndef DELTAPATH_PATH_RIEMANN_H
#define DELTAPATH_PATH_RIEMANN_H

#include "deltapath/comm/comm.h"
#include "deltapath/path/oracle.h"
#include "deltapath/path/quadrature.h"

#include <stdint.h>

/** What is known before the path is walked, because other work has already found it. Every pointer
 * may be NULL; all are borrowed and the same on all ranks.
 *
 * The gradient at t = 0 does not depend on the edit: a study takes it once, and gives here its inner
 * products with the E of this edit. oracle.slope is then not called at t = 0. */
typedef struct dpt_riemann_shared {
    const double *loss_start;  /**< (samples) losses at t = 0 */
    const double *terms_start; /**< (terms + parts) <gradient at 0, E_i>; needs loss_start too */
    const double *sample_terms_start; /**< (samples) or NULL: NaN throughout */
    const double *loss_end;           /**< (samples) losses at t = 1 */
    const double *sample_shares;      /**< (samples) share of each in all means, sum 1; NULL: even.
                                           The terms of oracle.slope are of the same mean. */
} dpt_riemann_shared;

/** The Riemann sum of one edit on one data set. The same on all ranks. */
typedef struct dpt_riemann {
    dpt_quadrature quadrature;
    int64_t terms, parts;
    int64_t samples;
    double *term;              /**< (terms, points) row-major: <grad of tensor i at t_c, E_i> */
    double *integrated;        /**< (terms) sum over c of w_c term[i][c] */
    double *part;              /**< (parts, points) and */
    double *part_integrated;   /**< (parts) and */
    double *part_second_order; /**< (parts): the same of the oracle's parts */
    double *split;       /**< (terms) the change: integrated, and shares of what it misses in all */
    double *split_error; /**< (terms) size of the error of split */
    double *second_order;      /**< (terms) 1/2 E_i^T (H E)_i near t = 0; NaN with one point */
    double *slope;             /**< (points) sum of the terms at t_c */
    double *loss_mean;         /**< (points) mean loss at t_c; NaN where it is not known */
    double *loss_post;         /**< (samples) L at t = 0 */
    double *loss_edit;         /**< (samples) L at t = 1 */
    double *sample_integrated; /**< (samples) sum over c of w_c <grad of the sample's loss, E>; at
                                  t = 0, where only the mean of the gradients is known, from losses and
                                  slopes of the sample at other points (dpt_start_slopes); NaN where
                                  there is no other point */
    double sample_error;       /**< what that may add to the standard error of their mean [nats] */
    int gradients;             /**< calls of oracle.slope */
    double estimate;           /**< sum of integrated [nats] */
    double change;             /**< mean loss_edit - mean loss_post [nats] */
    double error;              /**< estimate - change: what the quadrature misses */
    double
        quadrature_error; /**< size of it by the slopes alone, at least 0: the difference to another
                                  rule with the same nodes (dpt_quadrature_error_weights); or NaN */
    double second_order_total; /**< sum of second_order: 1/2 E^T H E */
} dpt_riemann;

/** Walk the path and sum.
 *
 * Collective over comm (same: oracle->samples, oracle->terms, oracle->parts, quadrature, which pointers of shared
 * are NULL).
 * Computes: estimate = sum_c w_c sum_i <grad_i L(W_post + t_c E), E_i>, Eq. 1 of arXiv:2410.13841;
 * second_order from the first two nodes, see dpt_riemann_slope_weights.
 * oracle.slope is called once per node in rising order, oracle.loss at an end that no node visits.
 * Rule auto begins with the fewest points and takes those of the next rule as long as
 * |estimate - change| is above tolerance |change| and above the rounding of the losses, up to the given rule:
 * the ends decide how many slopes are taken, and never enter the estimate.
 * split gives what the estimate misses to the tensors in proportion to the errors that their own slopes show
 * (dpt_quadrature_error_weights), whose sizes are split_error.
 * @param[in]  quadrature  rule; of auto the finest one, with its tolerance.
 * @param[in]  shared  NULL: nothing is known.
 * @param[out] out     to be destroyed by the caller; empty on error.
 * Errors: those of the oracle; DPT_ERR_OUTPUT without memory; DPT_ERR_INPUT without samples.
 * Determinism: sums in index order in double; the same bits for the same oracle values.
 */
dpt_status dpt_riemann_run(const dpt_comm *comm, const dpt_oracle *oracle,
                           const dpt_quadrature *quadrature, const dpt_riemann_shared *shared,
                           dpt_riemann *out);
void dpt_riemann_destroy(dpt_riemann *riemann); /**< Local; an empty one is allowed. */

/** Weights that give the derivative of the directional derivative near t = 0 from its values at
 * rising nodes: f'(0) ~ sum_c out[c] f(t_c). Local.
 *
 * Computes: the secant through the first two nodes, which is the mean of E^T H E over the path
 * between them: exact where the loss is quadratic. Polynomials through more nodes are of higher
 * order, but the loss of a real edit may rise a thousandfold along the path, and they then return
 * large values of either sign.
 * @param[out] out (n); NaN for n = 1. */
void dpt_riemann_slope_weights(const double *nodes, int n, double *out);

#endif
