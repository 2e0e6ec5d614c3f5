#include "start_slopes.h"

#include "deltapath/path/weighted.h"

#include <math.h>
#include <stddef.h>

enum { DATA = 5 };

/* Newton's divided differences; a node that is there twice has a slope. */
typedef struct start_data {
    int n;
    double at[DATA], value[DATA], slope[DATA];
} start_data;

static void start_put(start_data *data, double at, double value, double slope) {
    data->at[data->n] = at;
    data->value[data->n] = value;
    data->slope[data->n++] = slope;
}

/* @param[out] last  size of the term of the highest degree. */
static double start_slope(const start_data *data, double *last) {
    double difference[DATA];
    double slope = 0.0, product = 1.0;
    int n = data->n;
    for (int i = 0; i < n; i++)
        difference[i] = data->value[i];
    for (int k = 1; k < n; k++) {
        for (int i = n - 1; i >= k; i--) {
            double width = data->at[i] - data->at[i - k];
            difference[i] =
                width == 0.0 ? data->slope[i] : (difference[i] - difference[i - 1]) / width;
        }
        *last = difference[k] * product;
        slope += *last;
        product *= data->at[0] - data->at[k];
    }
    return slope;
}

double dpt_start_slopes_add(const dpt_start_known *known, double weight, double *out) {
    double mean = 0.0, squares = 0.0;
    for (int64_t s = 0; s < known->samples; s++) {
        start_data data = {.n = 0};
        double last = NAN;
        start_put(&data, 0.0, known->loss_start[s], NAN);
        for (int i = 0; i < known->points; i++)
            for (int twice = 0; twice < 2; twice++)
                start_put(&data, known->at[i], known->loss[i][s], known->terms[i][s]);
        if (known->points == 1 && known->at[0] < 1.0)
            start_put(&data, 1.0, known->loss_end[s], NAN);
        double share = known->shares != NULL ? known->shares[s] : 1.0 / (double)known->samples;
        double slope = data.n > 1 ? start_slope(&data, &last) : NAN;
        out[s] += weight * slope;
        mean += share * slope;
        squares += share * last * last;
    }
    for (int64_t s = 0; s < known->samples; s++)
        out[s] += weight * (known->mean - mean);
    return weight * sqrt(squares / (double)known->samples);
}
