#include "deltapath/base/student.h"

#include <math.h>

enum { LENTZ_STEPS = 20000, BISECTIONS = 400 };

/* Continued fraction of the incomplete beta function by the modified Lentz method (DLMF 8.17.22). */
static double beta_fraction(double a, double b, double x) {
    const double tiny = 1e-300;
    double c = 1.0;
    double d = 1.0 - (a + b) * x / (a + 1.0);
    d = 1.0 / (fabs(d) < tiny ? tiny : d);
    double f = d;
    for (int m = 1; m <= LENTZ_STEPS; m++) {
        double even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        double odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        double factor = 1.0;
        for (int half = 0; half < 2; half++) {
            double coefficient = half == 0 ? even : odd;
            d = 1.0 + coefficient * d;
            c = 1.0 + coefficient / c;
            d = 1.0 / (fabs(d) < tiny ? tiny : d);
            c = fabs(c) < tiny ? tiny : c;
            factor = c * d;
            f *= factor;
        }
        if (fabs(factor - 1.0) < 1e-16)
            break;
    }
    return f;
}

/* I_x(a, b) with y = 1 - x given apart, so that neither end loses digits. */
static double beta_regularised(double a, double b, double x, double y) {
    if (x <= 0.0)
        return 0.0;
    if (y <= 0.0)
        return 1.0;
    double front = exp(a * log(x) + b * log(y) + lgamma(a + b) - lgamma(a) - lgamma(b));
    if (x < (a + 1.0) / (a + b + 2.0))
        return front * beta_fraction(a, b, x) / a;
    return 1.0 - front * beta_fraction(b, a, y) / b;
}

double dpt_student_binomial(double k, double n, double p) {
    return k >= n ? 1.0 : beta_regularised(n - k, k + 1.0, 1.0 - p, p);
}

double dpt_student_upper(double t, double df) {
    if (isnan(t) || !(df > 0.0))
        return NAN;
    if (isinf(t))
        return t > 0.0 ? 0.0 : 1.0;
    double square = t * t;
    double tail = isinf(square) ? 0.0
                                : 0.5 * beta_regularised(0.5 * df, 0.5, df / (df + square),
                                                         square / (df + square));
    return t >= 0.0 ? tail : 1.0 - tail;
}

double dpt_student_cdf(double t, double df) {
    return dpt_student_upper(-t, df);
}

double dpt_student_quantile(double p, double df) {
    if (!(p >= 0.0 && p <= 1.0) || !(df > 0.0))
        return NAN;
    double tail = p < 0.5 ? p : 1.0 - p;
    double sign = p < 0.5 ? -1.0 : 1.0;
    if (tail == 0.5)
        return 0.0;
    if (tail == 0.0)
        return sign * INFINITY;
    double low = 0.0;
    double high = 1.0;
    while (dpt_student_upper(high, df) > tail && high < 1e300) {
        low = high;
        high *= 2.0;
    }
    for (int i = 0; i < BISECTIONS; i++) {
        double middle = 0.5 * (low + high);
        if (middle == low || middle == high)
            break;
        if (dpt_student_upper(middle, df) > tail)
            low = middle;
        else
            high = middle;
    }
    return sign * 0.5 * (low + high);
}
