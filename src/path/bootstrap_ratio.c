#include "deltapath/base/mem.h"
#include "deltapath/base/rng.h"
#include "deltapath/path/bootstrap.h"

#include <math.h>

/* Of a resample: means less those of the samples, and mean squares and product around the resample's own. */
typedef struct ratio_moments {
    double d, g, dd, dg, gg;
} ratio_moments;

typedef struct ratio_draws {
    int64_t n;
    int resamples;
    ratio_moments own;   /* of the samples themselves: d and g are their means */
    ratio_moments *each; /* (resamples) */
} ratio_draws;

static void ratio_add(ratio_moments *m, double d, double g) {
    m->d += d;
    m->g += g;
    m->dd += d * d;
    m->dg += d * g;
    m->gg += g * g;
}

static ratio_moments ratio_center(ratio_moments m, double n) {
    m.d /= n;
    m.g /= n;
    m.dd = m.dd / n - m.d * m.d;
    m.dg = m.dg / n - m.d * m.g;
    m.gg = m.gg / n - m.g * m.g;
    return m;
}

static void ratio_resample(int64_t n, const double *d, const double *g,
                           const dpt_bootstrap *options, uint32_t *words, ratio_draws *out) {
    double mean_d = 0.0;
    double mean_g = 0.0;
    for (int64_t i = 0; i < n; i++) {
        mean_d += d[i] / (double)n;
        mean_g += g[i] / (double)n;
    }
    ratio_moments own = {.d = 0.0};
    for (int64_t i = 0; i < n; i++)
        ratio_add(&own, d[i] - mean_d, g[i] - mean_g);
    out->own = ratio_center(own, (double)n);
    out->own.d = mean_d;
    out->own.g = mean_g;
    dpt_rng rng = dpt_rng_make(options->seed, options->stream, DPT_RNG_BOOTSTRAP);
    for (int r = 0; r < options->resamples; r++) {
        ratio_moments sum = {.d = 0.0};
        dpt_rng_words(rng, (int64_t)r * n, n, words);
        for (int64_t i = 0; i < n; i++) {
            int64_t at = (int64_t)(((uint64_t)words[i] * (uint64_t)n) >> 32);
            ratio_add(&sum, d[at] - mean_d, g[at] - mean_g);
        }
        out->each[r] = ratio_center(sum, (double)n);
    }
}

/* The mean of d - rho g over its standard error. */
static double ratio_statistic(const ratio_moments *m, double rho, int64_t n) {
    double mean = m->d - rho * m->g;
    double variance = m->dd - 2.0 * rho * m->dg + rho * rho * m->gg;
    double size = m->dd + rho * rho * m->gg;
    return variance > 1e-12 * size ? mean / sqrt(variance / (double)(n - 1))
                                   : copysign(INFINITY, mean);
}

/* How many more resamples than `level` asks for have no larger statistic at rho than the samples. It falls as rho
 * rises. */
static double ratio_excess(const ratio_draws *draws, double rho, double level) {
    double own = ratio_statistic(&draws->own, rho, draws->n);
    int below = 0;
    for (int r = 0; r < draws->resamples; r++)
        below += ratio_statistic(&draws->each[r], rho, draws->n) <= own;
    return below - level * (draws->resamples + 1);
}

/* The end whose resamples lie at `level`, from a first guess on one side of the ratio; NaN: none is found. */
static double ratio_end(const ratio_draws *draws, double guess, double level) {
    double ratio = draws->own.d / draws->own.g;
    if (guess == ratio)
        return guess;
    double near = ratio;
    double far = guess;
    bool below = guess < ratio;
    for (int i = 0; i < 40; i++) {
        double excess = ratio_excess(draws, far, level);
        if (below ? excess >= 0.0 : excess <= 0.0)
            break;
        near = far;
        far = ratio + 2.0 * (far - ratio);
        if (i == 39)
            return NAN;
    }
    for (int i = 0; i < 40; i++) {
        double middle = 0.5 * (near + far);
        double excess = ratio_excess(draws, middle, level);
        if (below ? excess >= 0.0 : excess <= 0.0)
            far = middle;
        else
            near = middle;
    }
    return far;
}

dpt_status dpt_bootstrap_ratio(int64_t n, const double *d, const double *g,
                               const dpt_bootstrap *options, double confidence, double *low,
                               double *high) {
    ratio_draws draws = {.n = n, .resamples = options->resamples};
    uint32_t *words = dpt_mem_alloc(n, sizeof *words, "random words");
    draws.each = dpt_mem_alloc(options->resamples, sizeof *draws.each, "resampled moments");
    bool complete = words != NULL && draws.each != NULL;
    if (complete) {
        ratio_resample(n, d, g, options, words, &draws);
        double ends[2] = {ratio_end(&draws, *low, 0.5 * (1.0 + confidence)),
                          ratio_end(&draws, *high, 0.5 * (1.0 - confidence))};
        *low = isnan(ends[0]) ? *low : ends[0];
        *high = isnan(ends[1]) ? *high : ends[1];
    }
    dpt_mem_free(draws.each);
    dpt_mem_free(words);
    return complete ? DPT_OK : DPT_ERR_OUTPUT;
}
