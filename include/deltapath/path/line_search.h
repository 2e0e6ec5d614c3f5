#ifndef DELTAPATH_PATH_LINE_SEARCH_H
#define DELTAPATH_PATH_LINE_SEARCH_H

#include "deltapath/base/status.h"

#include <stdbool.h>

enum { DPT_LINE_SEARCH_POINTS = 64 /**< most evaluations of a search */ };

/** One evaluation on a line. */
typedef struct dpt_line_search_point {
    double at;
    double loss;
    double slope; /**< derivative of the loss along the line */
} dpt_line_search_point;

/** Loss and slope at a place of the line. May be collective; then all ranks search alike, because
 * they see the same values. A loss or slope that is not finite is taken as a wall. */
typedef dpt_status (*dpt_line_search_fn)(void *ctx, double at, double *loss, double *slope);

typedef struct dpt_line_search_options {
    double lower;     /**< lower end of the line, at most 0 */
    double upper;     /**< upper end, at least 0 */
    double step;      /**< first step away from 0, above 0 */
    double tolerance; /**< width of the bracket at which the search ends */
    double flat;      /**< share of the slope at 0 below which a place counts as the minimum */
    int evaluations;  /**< most calls of the function, at least 1, at most DPT_LINE_SEARCH_POINTS */
    const dpt_line_search_point *start; /**< what is known at 0, or NULL: it is evaluated */
} dpt_line_search_options;

typedef struct dpt_line_search {
    double at;   /**< place of the lowest loss that was seen; 0 when nothing is lower than there */
    double loss; /**< there */
    bool bracketed;  /**< a minimum was bracketed; otherwise the loss falls up to the last place */
    bool border;     /**< the search ended at the end of the line */
    int points;      /**< places, the start included */
    int evaluations; /**< calls of the function */
    dpt_line_search_point
        point[DPT_LINE_SEARCH_POINTS + 1]; /**< (points) in order; the first is at 0 */
} dpt_line_search;

/** Reach of 1, first step 0.1, 8 evaluations, a bracket of 0.01 and a hundredth of the slope. Local. */
dpt_line_search_options dpt_line_search_defaults(void);

/** Find the minimum of a loss on a line that 0 leads down to.
 *
 * Collective when fn is (same: options; callers check it). Computes: from 0 downhill in growing steps until the slope
 * turns or the loss rises; then the minimum of the cubic through both ends of the bracket, kept a
 * tenth of its width away from its ends, bisection whenever two steps have not halved it.
 * The result is the lowest loss seen, hence never above the loss at 0.
 * Errors: those of fn; out undefined.
 * Determinism: depends on the values of fn alone.
 */
dpt_status dpt_line_search_run(dpt_line_search_fn fn, void *ctx,
                               const dpt_line_search_options *options, dpt_line_search *out);

#endif
