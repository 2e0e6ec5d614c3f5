#ifndef DELTAPATH_SRC_PATH_START_SLOPES_H
#define DELTAPATH_SRC_PATH_START_SLOPES_H

#include <stdint.h>

/** What is known of every sample where its slope at t = 0 is not, but the mean of these slopes is. */
typedef struct dpt_start_known {
    int64_t samples;
    const double *shares;       /**< (samples) of each in the mean; NULL: even */
    double mean;                /**< of the slopes at t = 0 */
    int points;                 /**< 0 to 2: nodes after t = 0, rising */
    const double *at;           /**< (points) */
    const double *const *loss;  /**< (points) each (samples) */
    const double *const *terms; /**< (points) slopes, each (samples) */
    const double *loss_start;   /**< (samples) at t = 0 */
    const double *loss_end;     /**< (samples) at t = 1; read with one point alone */
} dpt_start_known;

/** Add weight * (slope of each sample at t = 0) to out.
 *
 * Local. Computes: the slope at t = 0 of the polynomial through the loss there and losses and slopes at the
 * nodes, or with one node through the loss at t = 1 too; all then moved alike, so that their mean is exact.
 * @param[out] out (samples) NaN without a node.
 * @return what the polynomials may add to the standard error of the mean of out: weight times the root mean
 * square of their last terms over the root of the number of samples; NaN without a node. */
double dpt_start_slopes_add(const dpt_start_known *known, double weight, double *out);

#endif
