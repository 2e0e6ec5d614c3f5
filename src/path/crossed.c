#include "deltapath/path/crossed.h"

#include "deltapath/path/interval.h"
#include "student.h"

#include <math.h>

/* Degrees of freedom, between two, at which Student's quantile with that upper tail is t. */
static double crossed_df_of(double t, double tail, double few, double many) {
    double low = fmin(few, many);
    double high = fmax(few, many);
    for (int i = 0; i < 100; i++) {
        double middle = 0.5 * (low + high);
        if (middle == low || middle == high)
            break;
        if (dpt_student_upper(t, middle) > tail)
            low = middle;
        else
            high = middle;
    }
    return 0.5 * (low + high);
}

typedef struct crossed_squares {
    double mean, seed, sample, residual; /* mean, and mean squares */
} crossed_squares;

static crossed_squares crossed_squares_of(int64_t seeds, int64_t samples, const double *x) {
    double s = (double)seeds;
    double n = (double)samples;
    crossed_squares out = {.mean = 0.0};
    for (int64_t k = 0; k < seeds * samples; k++)
        out.mean += x[k] / (s * n);
    for (int64_t i = 0; i < seeds; i++) {
        double row = 0.0;
        for (int64_t j = 0; j < samples; j++)
            row += x[i * samples + j] - out.mean;
        out.seed += row * row / n;
    }
    double within = 0.0;
    for (int64_t j = 0; j < samples; j++) {
        double column = 0.0;
        for (int64_t i = 0; i < seeds; i++)
            column += x[i * samples + j] - out.mean;
        out.sample += column * column / s;
        for (int64_t i = 0; i < seeds; i++) {
            double off = x[i * samples + j] - out.mean - column / s;
            within += off * off;
        }
    }
    /* Seeds and residual share what is within samples. */
    out.residual = fmax(within - out.seed, 0.0) / ((s - 1.0) * (n - 1.0));
    out.seed /= s - 1.0;
    out.sample /= n - 1.0;
    return out;
}

dpt_crossed dpt_crossed_interval(int64_t seeds, int64_t samples, double effective, const double *x,
                                 double confidence) {
    dpt_crossed out = {.mean = NAN, .se = NAN, .df = NAN, .low = NAN, .high = NAN};
    if (seeds < 2 || samples < 2)
        return out;
    crossed_squares squares = crossed_squares_of(seeds, samples, x);
    double cells = (double)seeds * (double)samples;
    double from_seeds = squares.seed / cells;
    double from_samples = fmax(squares.sample - squares.residual, 0.0) / cells;
    if (!isfinite(squares.mean) || !isfinite(from_seeds + from_samples))
        return out;
    double p = 0.5 * (1.0 + confidence);
    double few = dpt_student_quantile(p, (double)(seeds - 1));
    double freedom = dpt_interval_freedom(samples, effective);
    double many = dpt_student_quantile(p, freedom);
    double half = sqrt(few * few * from_seeds + many * many * from_samples);
    out.mean = squares.mean;
    out.se = sqrt(from_seeds + from_samples);
    out.low = out.mean - half;
    out.high = out.mean + half;
    if (out.se > 0.0)
        out.df = crossed_df_of(half / out.se, 1.0 - p, (double)(seeds - 1), freedom);
    return out;
}
