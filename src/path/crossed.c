#include "deltapath/path/crossed.h"

#include "deltapath/base/student.h"
#include "deltapath/path/interval.h"
#include "hall.h"

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
    double seed_skew, sample_skew;       /* of the means of seeds, of samples; NaN without spread */
} crossed_squares;

static double crossed_skew(double count, double squares, double cubes) {
    return squares > 0.0 ? sqrt(count) * cubes / (squares * sqrt(squares)) : NAN;
}

static crossed_squares crossed_squares_of(int64_t seeds, int64_t samples, const double *x) {
    double s = (double)seeds;
    double n = (double)samples;
    crossed_squares out = {.mean = 0.0};
    double cubes = 0.0;
    for (int64_t k = 0; k < seeds * samples; k++)
        out.mean += x[k] / (s * n);
    for (int64_t i = 0; i < seeds; i++) {
        double row = 0.0;
        for (int64_t j = 0; j < samples; j++)
            row += x[i * samples + j] - out.mean;
        out.seed += row * row / n;
        cubes += row * row * row / (n * sqrt(n));
    }
    out.seed_skew = crossed_skew(s, out.seed, cubes);
    cubes = 0.0;
    double within = 0.0;
    for (int64_t j = 0; j < samples; j++) {
        double column = 0.0;
        for (int64_t i = 0; i < seeds; i++)
            column += x[i * samples + j] - out.mean;
        out.sample += column * column / s;
        cubes += column * column * column / (s * sqrt(s));
        for (int64_t i = 0; i < seeds; i++) {
            double off = x[i * samples + j] - out.mean - column / s;
            within += off * off;
        }
    }
    out.sample_skew = crossed_skew(n, out.sample, cubes);
    /* Seeds and residual share what is within samples. */
    out.residual = fmax(within - out.seed, 0.0) / ((s - 1.0) * (n - 1.0));
    out.seed /= s - 1.0;
    out.sample /= n - 1.0;
    return out;
}

/* Both parts of the error, one at its end and none at the other: they seldom are there at once, the less often
 * the fewer degrees of freedom the seeds have. But never less than one of them alone: that there is a second one is no
 * reason to know more of the first. @param[in] both  product of the two that is left out; from 1 on the longer one is what
 * is left. */
static double crossed_half(double from_seeds, double from_samples, double both) {
    double joined = sqrt(from_seeds * from_seeds + from_samples * from_samples -
                         both * from_seeds * from_samples);
    return fmax(joined, fmax(from_seeds, from_samples));
}

/* Two values cannot show the shape of what they were drawn from, and Student's quantile takes it for normal. That of two
 * uniform values is the largest of all symmetric distributions with one peak: doc/science.md has the proof. */
static double crossed_of_two(double confidence) {
    return confidence / (1.0 - confidence);
}

dpt_crossed dpt_crossed_interval(int64_t seeds, int64_t samples, double effective, const double *x,
                                 double confidence) {
    dpt_crossed out = {.mean = NAN, .se = NAN, .df = NAN, .low = NAN, .high = NAN};
    if (seeds < 2 || samples < 2)
        return out;
    crossed_squares squares = crossed_squares_of(seeds, samples, x);
    double cells = (double)seeds * (double)samples;
    double from_seeds = sqrt(squares.seed / cells);
    double from_samples = sqrt(fmax(squares.sample - squares.residual, 0.0) / cells);
    if (!isfinite(squares.mean) || !isfinite(from_seeds + from_samples))
        return out;
    double p = 0.5 * (1.0 + confidence);
    double student = dpt_student_quantile(p, (double)(seeds - 1));
    double few = seeds == 2 ? crossed_of_two(confidence) : student;
    double usual = 1.6 / (double)seeds, both = seeds == 2 ? 1.0 : usual;
    double freedom = dpt_interval_freedom(samples, effective);
    double many = dpt_student_quantile(p, freedom);
    dpt_hall seed = dpt_hall_make(squares.seed_skew, seeds);
    dpt_hall sample = dpt_hall_make(squares.sample_skew, samples);
    out.mean = squares.mean;
    out.se = sqrt(from_seeds * from_seeds + from_samples * from_samples);
    out.low = out.mean - crossed_half(dpt_hall_invert(&seed, few) * from_seeds,
                                      dpt_hall_invert(&sample, many) * from_samples, both);
    out.high = out.mean + crossed_half(-dpt_hall_invert(&seed, -few) * from_seeds,
                                       -dpt_hall_invert(&sample, -many) * from_samples, both);
    if (out.se > 0.0)
        out.df =
            crossed_df_of(crossed_half(student * from_seeds, many * from_samples, usual) / out.se,
                          1.0 - p, (double)(seeds - 1), freedom);
    return out;
}
