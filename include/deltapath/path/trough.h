#ifndef DELTAPATH_PATH_TROUGH_H
#define DELTAPATH_PATH_TROUGH_H

#include "deltapath/base/status.h"

#include <stdbool.h>

enum { DPT_TROUGH_POINTS = 64 /**< most evaluations of a search */ };

/** One evaluation on a line. */
typedef struct dpt_trough_point {
    double at;
    double loss;
    double slope; /**< derivative of the loss along the line */
} dpt_trough_point;

/** Loss and slope at a place of the line. May be collective; then all ranks search alike, because
 * they see the same values. A loss or slope that is not finite is taken as a wall. */
typedef dpt_status (*dpt_trough_fn)(void *ctx, double at, double *loss, double *slope);

typedef struct dpt_trough_options {
    double least;     /**< lower end of the line, at most 0 */
    double most;      /**< upper end, at least 0 */
    double step;      /**< first step away from 0, above 0 */
    double tolerance; /**< width of the bracket at which the search ends */
    double flat;      /**< share of the slope at 0 below which a place counts as the trough */
    int evaluations;  /**< most calls of the function, at least 1, at most DPT_TROUGH_POINTS */
    const dpt_trough_point *start; /**< what is known at 0, or NULL: it is evaluated */
} dpt_trough_options;

typedef struct dpt_trough {
    double at;   /**< place of the lowest loss that was seen; 0 when nothing is lower than there */
    double loss; /**< there */
    bool bracketed;  /**< a trough was enclosed; otherwise the loss falls up to the last place */
    bool border;     /**< the search ended at the end of the line */
    int points;      /**< places, the start included */
    int evaluations; /**< calls of the function */
    dpt_trough_point point[DPT_TROUGH_POINTS + 1]; /**< (points) in order; the first is at 0 */
} dpt_trough;

/** Reach of 1, first step 0.1, 8 evaluations, a bracket of 0.01 and a hundredth of the slope. Local. */
dpt_trough_options dpt_trough_defaults(void);

/** Find the trough of a loss on a line that 0 leads down to.
 *
 * Collective when fn is (same: options; callers check it). Computes: from 0 downhill in growing steps until the slope
 * turns or the loss rises; then the minimum of the cubic through both ends of the bracket, kept a
 * tenth of its width away from its ends, bisection whenever two steps have not halved it.
 * The result is the lowest loss seen, hence never above the loss at 0.
 * Errors: those of fn; out undefined.
 * Determinism: depends on the values of fn alone.
 */
dpt_status dpt_trough_find(dpt_trough_fn fn, void *ctx, const dpt_trough_options *options,
                           dpt_trough *out);

#endif
