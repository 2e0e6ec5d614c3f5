#include "deltapath/path/bootstrap.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/rng.h"
#include "deltapath/base/student.h"
#include "deltapath/path/interval.h"

#include <math.h>
#include <stdlib.h>

static double normal_cdf(double z) {
    return 0.5 * erfc(-z * M_SQRT1_2);
}

/* Bisection to the last bits: called a handful of times. */
static double normal_quantile(double p) {
    double low = -40.0;
    double high = 40.0;
    for (int i = 0; i < 200; i++) {
        double middle = 0.5 * (low + high);
        if (middle == low || middle == high)
            break;
        if (normal_cdf(middle) < p)
            low = middle;
        else
            high = middle;
    }
    return 0.5 * (low + high);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Quantile of sorted values at the place (count + 1) p, as resampling theory has it. */
static double quantile(const double *sorted, int count, double p) {
    double place = (count + 1) * p - 1.0;
    if (!(place > 0.0))
        return sorted[0];
    if (place >= count - 1)
        return sorted[count - 1];
    DPT_ASSERT(sorted[0] <= sorted[count - 1]);
    int below = (int)place;
    return sorted[below] + (place - below) * (sorted[below + 1] - sorted[below]);
}

static void bootstrap_resample(const double *x, const dpt_bootstrap *options, uint32_t *words,
                               dpt_bootstrap_draws *out) {
    int64_t n = out->n;
    dpt_rng rng = dpt_rng_make(options->seed, options->stream, DPT_RNG_BOOTSTRAP);
    for (int r = 0; r < options->resamples; r++) {
        double sum = 0.0;
        dpt_rng_words(rng, (int64_t)r * n, n, words);
        for (int64_t i = 0; i < n; i++)
            sum += x[(int64_t)(((uint64_t)words[i] * (uint64_t)n) >> 32)];
        out->means[r] = sum / (double)n;
    }
}

/* A resampled mean counts as below the mean in part when it is within this share of their spread of
 * it. A count in whole steps would jump where rounding of the losses, which differs between meshes,
 * carries a resample across: with few samples many resamples have that very mean. The ramp is
 * symmetric and so narrow that the count is otherwise the same. */
static const double RAMP = 0.01;

/* What BCa needs besides the resampled means: bias z0 and acceleration. */
typedef struct correction {
    double bias;
    double acceleration;
} correction;

static correction correct(int64_t n, const double *x, double mean, int resamples,
                          const double *means, double se) {
    double below = 0.0;
    for (int r = 0; r < resamples; r++)
        below += fmin(fmax(0.5 + (mean - means[r]) / (2.0 * RAMP * se), 0.0), 1.0);
    below = fmin(fmax(below, 0.5), resamples - 0.5);
    double squares = 0.0;
    double cubes = 0.0;
    for (int64_t i = 0; i < n; i++) {
        double d = x[i] - mean;
        squares += d * d;
        cubes += d * d * d;
    }
    double scale = 6.0 * squares * sqrt(squares);
    return (correction){.bias = normal_quantile(below / resamples),
                        .acceleration = scale > 0.0 ? cubes / scale : 0.0};
}

static double corrected_level(correction c, double p) {
    double z = c.bias + normal_quantile(p);
    double rest = 1.0 - c.acceleration * z;
    /* Beyond its pole the correction has no meaning: the outermost resample stands for it. */
    return rest > 0.0 ? normal_cdf(c.bias + z / rest) : p < 0.5 ? 0.0 : 1.0;
}

static double spread(int count, const double *means) {
    double mean = 0.0;
    double squares = 0.0;
    for (int r = 0; r < count; r++)
        mean += means[r] / count;
    for (int r = 0; r < count; r++)
        squares += (means[r] - mean) * (means[r] - mean);
    return sqrt(squares / (count - 1));
}

static double bootstrap_end_of(const dpt_bootstrap_draws *d, double level) {
    correction c = {.bias = d->bias, .acceleration = d->acceleration};
    return quantile(d->means, d->resamples, corrected_level(c, level));
}

/* From here outwards there are too few resamples to tell levels apart. */
static double bootstrap_edge(const dpt_bootstrap_draws *d) {
    return fmin(0.005, 10.0 / (d->resamples + 1.0));
}

double dpt_bootstrap_end(const void *draws, double level) {
    const dpt_bootstrap_draws *d = draws;
    double edge = level < 0.5 ? bootstrap_edge(d) : 1.0 - bootstrap_edge(d);
    bool beyond = level < 0.5 ? level < edge : level > edge;
    if (!beyond)
        return bootstrap_end_of(d, level);
    double df = (double)(d->n - 1);
    double reach = dpt_student_quantile(level, df) / dpt_student_quantile(edge, df);
    return d->mean + (bootstrap_end_of(d, edge) - d->mean) * reach;
}

double dpt_bootstrap_level(const void *draws, double value) {
    const dpt_bootstrap_draws *d = draws;
    double low = bootstrap_edge(d);
    double high = 1.0 - low;
    double low_end = bootstrap_end_of(d, low) - d->mean;
    double high_end = bootstrap_end_of(d, high) - d->mean;
    double df = (double)(d->n - 1);
    double off = value - d->mean;
    /* An end on the other side of the mean, as of a strong correction, is scaled to nowhere. */
    if (off <= low_end)
        return low_end < 0.0 ? dpt_student_cdf(dpt_student_quantile(low, df) * (off / low_end), df)
                             : low;
    if (off >= high_end)
        return high_end > 0.0
                   ? dpt_student_cdf(dpt_student_quantile(high, df) * (off / high_end), df)
                   : high;
    for (int i = 0; i < 200; i++) {
        double middle = 0.5 * (low + high);
        if (middle == low || middle == high)
            break;
        if (bootstrap_end_of(d, middle) < value)
            low = middle;
        else
            high = middle;
    }
    return 0.5 * (low + high);
}

void dpt_bootstrap_destroy(dpt_bootstrap_draws *draws) {
    dpt_mem_free(draws->means);
    *draws = (dpt_bootstrap_draws){.n = 0};
}

dpt_status dpt_bootstrap_draw(int64_t n, const double *a, const double *b,
                              const dpt_bootstrap *options, dpt_bootstrap_draws *out) {
    dpt_interval plain = dpt_interval_student(n, a, b, 0.95);
    *out = (dpt_bootstrap_draws){.n = n, .mean = plain.mean, .spread = plain.se};
    if (isnan(plain.se) || plain.se == 0.0)
        return DPT_OK;
    double *x = dpt_mem_alloc(n, sizeof *x, "differences");
    uint32_t *words = dpt_mem_alloc(n, sizeof *words, "random words");
    out->means = dpt_mem_alloc(options->resamples, sizeof *out->means, "resampled means");
    bool complete = x != NULL && words != NULL && out->means != NULL;
    if (complete) {
        for (int64_t i = 0; i < n; i++)
            x[i] = b != NULL ? a[i] - b[i] : a[i];
        bootstrap_resample(x, options, words, out);
        out->resamples = options->resamples;
        out->spread = spread(options->resamples, out->means);
        correction c = correct(n, x, out->mean, options->resamples, out->means, out->spread);
        out->bias = c.bias;
        out->acceleration = c.acceleration;
        qsort(out->means, (size_t)options->resamples, sizeof *out->means, by_value);
    }
    dpt_mem_free(words);
    dpt_mem_free(x);
    if (!complete)
        dpt_bootstrap_destroy(out);
    return complete ? DPT_OK : DPT_ERR_OUTPUT;
}
