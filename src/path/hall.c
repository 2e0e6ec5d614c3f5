#include "hall.h"

#include <math.h>

static const double NOISE = 1.5; /* square of a skewness that is half noise */
static const double BEND = 4.5;  /* abs(u t) from which y is t / 4: there y(t) is just that */

dpt_hall dpt_hall_make(double skew, int64_t n) {
    if (isnan(skew) || n < 3)
        return (dpt_hall){.near = 0.0};
    double u = skew / sqrt((double)n);
    double share = skew * skew / (skew * skew + NOISE);
    double unmet = n < 9 ? 20.0 : n < 12 ? 5.0 : 1.5;
    return (dpt_hall){
        .near = u * share, .far = u * (1.0 + unmet * fabs(u)), .shift = u * share / 6.0};
}

double dpt_hall_apply(const dpt_hall *hall, double t) {
    double u = t * hall->far < 0.0 ? hall->far : hall->near;
    if (u * t < -BEND)
        return 0.25 * t + hall->shift;
    return t * (1.0 + u * t / 3.0 + u * t * u * t / 27.0) + hall->shift;
}

double dpt_hall_invert(const dpt_hall *hall, double y) {
    double off = y - hall->shift;
    double u = off * hall->far < 0.0 ? hall->far : hall->near;
    double root = cbrt(1.0 + fmax(u * off, -0.25 * BEND));
    return 3.0 * off / (root * root + root + 1.0);
}
