#include "deltapath/path/bootstrap.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/rng.h"

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

static void bootstrap_resample(int64_t n, const double *x, const dpt_bootstrap *options,
                               uint32_t *words, double *means) {
    dpt_rng rng = dpt_rng_make(options->seed, options->stream, DPT_RNG_BOOTSTRAP);
    for (int r = 0; r < options->resamples; r++) {
        double sum = 0.0;
        dpt_rng_words(rng, (int64_t)r * n, n, words);
        for (int64_t i = 0; i < n; i++)
            sum += x[(int64_t)(((uint64_t)words[i] * (uint64_t)n) >> 32)];
        means[r] = sum / (double)n;
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

dpt_status dpt_bootstrap_paired(int64_t n, const double *a, const double *b, int levels,
                                const double *confidence, const dpt_bootstrap *options,
                                dpt_interval *out) {
    bool finite = true;
    for (int k = 0; k < levels; k++) {
        out[k] = dpt_verdict_paired(n, a, b, confidence[k]);
        finite = finite && !isnan(out[k].se);
    }
    if (levels == 0 || !finite || out[0].se == 0.0)
        return DPT_OK;
    double *x = dpt_mem_alloc(n, sizeof *x, "differences");
    double *means = dpt_mem_alloc(options->resamples, sizeof *means, "resampled means");
    uint32_t *words = dpt_mem_alloc(n, sizeof *words, "random words");
    bool complete = x != NULL && means != NULL && words != NULL;
    if (complete) {
        for (int64_t i = 0; i < n; i++)
            x[i] = b != NULL ? a[i] - b[i] : a[i];
        bootstrap_resample(n, x, options, words, means);
        double se = spread(options->resamples, means);
        correction c = correct(n, x, out[0].mean, options->resamples, means, se);
        qsort(means, (size_t)options->resamples, sizeof *means, by_value);
        for (int k = 0; k < levels; k++) {
            double tail = 0.5 * (1.0 - confidence[k]);
            out[k].se = se;
            out[k].low = quantile(means, options->resamples, corrected_level(c, tail));
            out[k].high = quantile(means, options->resamples, corrected_level(c, 1.0 - tail));
        }
    }
    dpt_mem_free(words);
    dpt_mem_free(means);
    dpt_mem_free(x);
    return complete ? DPT_OK : DPT_ERR_OUTPUT;
}
