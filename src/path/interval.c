#include "deltapath/path/interval.h"

#include "deltapath/base/student.h"

#include <math.h>
#include <stddef.h>

double dpt_interval_freedom(int64_t n, double effective) {
    return effective < (double)n - 0.5 ? fmax(effective - 1.0, 0.1) : (double)(n - 1);
}

static double interval_difference(const double *a, const double *b, int64_t i) {
    return b != NULL ? a[i] - b[i] : a[i];
}

/* Mean and standard error; two passes. */
static void interval_moments(int64_t n, const double *a, const double *b, double *mean,
                             double *se) {
    double sum = 0.0;
    *mean = *se = NAN;
    for (int64_t i = 0; i < n; i++)
        sum += interval_difference(a, b, i);
    if (n > 0)
        *mean = sum / (double)n;
    if (n < 2 || !isfinite(*mean))
        return;
    double squares = 0.0;
    for (int64_t i = 0; i < n; i++) {
        double x = interval_difference(a, b, i) - *mean;
        squares += x * x;
    }
    *se = sqrt(squares / (double)(n - 1) / (double)n);
}

double dpt_interval_skew(int64_t n, const double *a, const double *b) {
    double mean, se;
    interval_moments(n, a, b, &mean, &se);
    double squares = 0.0;
    double cubes = 0.0;
    for (int64_t i = 0; i < n; i++) {
        double x = interval_difference(a, b, i) - mean;
        squares += x * x;
        cubes += x * x * x;
    }
    return squares > 0.0 ? sqrt((double)n) * cubes / (squares * sqrt(squares)) : NAN;
}

dpt_interval dpt_interval_student(int64_t n, const double *a, const double *b, double confidence) {
    dpt_interval out = {.n = n, .low = NAN, .high = NAN};
    interval_moments(n, a, b, &out.mean, &out.se);
    if (isnan(out.se))
        return out;
    double reach = dpt_student_quantile(0.5 * (1.0 + confidence), (double)(n - 1)) * out.se;
    out.low = out.mean - reach;
    out.high = out.mean + reach;
    return out;
}
