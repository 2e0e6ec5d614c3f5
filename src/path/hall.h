#ifndef DELTAPATH_SRC_PATH_HALL_H
#define DELTAPATH_SRC_PATH_HALL_H

#include <stdint.h>

/** Hall's transform of the t statistic of skewed samples. */
typedef struct dpt_hall {
    double near; /**< skewness over sqrt(n), where t has its sign */
    double far;  /**< where it has not: on the side of the long tail */
    double shift;
} dpt_hall;

/** Transform of the t statistic of n values with that skewness (NaN: none known). Local.
 *
 * Computes: y(t) = t + u t^2 / 3 + u^2 t^3 / 27 + u / 6, whose distribution is Student's to the next order, with
 * u = skewness / sqrt(n). Three changes are this project's. The skewness of samples is too small where few have met the
 * tail: on its side u is 1 + 1.5 abs(u), below 12 values 1 + 5 abs(u), below 9 1 + 20 abs(u), times as large, and beyond
 * t = -4.5 / u, where y hardly moves, y is t / 4. And it
 * is noise where small: on the other side, and in the last term, u counts in the share skew^2 / (skew^2 + 1.5).
 *   Source: Hall, J. R. Stat. Soc. B 54 (1992) 221.
 */
dpt_hall dpt_hall_make(double skew, int64_t n);

/** y(t), rising, and the t where it has a value. Local; finite arguments. */
double dpt_hall_apply(const dpt_hall *hall, double t);
double dpt_hall_invert(const dpt_hall *hall, double y);

#endif
