#include "deltapath/path/weighted.h"

#include <string.h>

double dpt_weighted_mean(const double *shares, int64_t n, const double *x) {
    double sum = 0.0;
    for (int64_t s = 0; s < n; s++)
        sum += shares != NULL ? shares[s] * x[s] : x[s];
    return shares != NULL ? sum : sum / (double)n;
}

void dpt_weighted_linearise(const double *shares, int64_t n, const double *x, double *out) {
    if (shares == NULL) {
        memmove(out, x, (size_t)n * sizeof *out);
        return;
    }
    double mean = dpt_weighted_mean(shares, n, x);
    for (int64_t s = 0; s < n; s++)
        out[s] = mean + (double)n * shares[s] * (x[s] - mean);
}
