#include "deltapath/path/weighted.h"

#include <float.h>
#include <math.h>
#include <string.h>

double dpt_weighted_mean(const double *shares, int64_t n, const double *x) {
    double sum = 0.0;
    for (int64_t s = 0; s < n; s++)
        sum += shares != NULL ? shares[s] * x[s] : x[s];
    return shares != NULL ? sum : sum / (double)n;
}

int64_t dpt_weighted_values(const double *shares, int64_t n, const double *x, double *out) {
    if (shares == NULL) {
        memmove(out, x, (size_t)n * sizeof *out);
        return n;
    }
    int64_t count = 0;
    for (int64_t s = 0; s < n; s++)
        count += shares[s] > 0.0;
    double mean = dpt_weighted_mean(shares, n, x);
    double off = 0.0;
    int64_t k = 0;
    for (int64_t s = 0; s < n; s++) {
        if (!(shares[s] > 0.0))
            continue;
        double rest = fmax(1.0 - shares[s], DBL_EPSILON);
        out[k] = count > 1 ? (double)(count - 1) * shares[s] / rest * (x[s] - mean) : 0.0;
        off += out[k++] / (double)count;
    }
    for (k = 0; k < count; k++)
        out[k] += mean - off;
    return count;
}
