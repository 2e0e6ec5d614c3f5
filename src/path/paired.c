#include "deltapath/path/paired.h"

#include "student.h"

#include <math.h>
#include <stddef.h>

static bool paired_is_skewed(double skew) {
    return fabs(skew) > DPT_PAIRED_SKEW;
}

/* Resamples where the rule wants them; `resampled` says whether they give the intervals. */
static dpt_status paired_resample(int64_t n, const double *a, const double *b,
                                  const dpt_paired_options *options, dpt_paired *out) {
    bool skewed = paired_is_skewed(out->skew);
    if (options->source == NULL || options->rule == DPT_PAIRED_T || isnan(out->se) ||
        (options->rule == DPT_PAIRED_AUTO && !skewed))
        return DPT_OK;
    bool thin = options->effective < 0.5 * (double)n;
    bool few = thin || n < DPT_PAIRED_SKEW_SAMPLES;
    out->few = options->rule == DPT_PAIRED_AUTO &&
               (few || out->skew * out->skew > (double)n / DPT_PAIRED_TAIL);
    if (thin || (few && options->rule == DPT_PAIRED_AUTO))
        return DPT_OK;
    dpt_status st = dpt_bootstrap_draw(n, a, b, options->source, &out->draws);
    if (st != DPT_OK || out->draws.resamples == 0)
        return st;
    if (options->rule == DPT_PAIRED_AUTO) {
        out->draws.kind = DPT_BOOTSTRAP_T;
        /* Where resamples without spread reach the levels of the intervals, these would be infinite. */
        out->resampled = out->draws.flat <= out->draws.resamples / 1000;
        out->few = out->few || !out->resampled;
    } else {
        out->resampled = true;
    }
    if (out->resampled && out->draws.kind == DPT_BOOTSTRAP_BCA)
        out->se = out->draws.spread;
    return DPT_OK;
}

dpt_status dpt_paired_create(int64_t n, const double *a, const double *b,
                             const dpt_paired_options *options, dpt_paired *out) {
    *out = (dpt_paired){.n = n, .df = dpt_interval_freedom(n, options->effective)};
    dpt_interval plain = dpt_interval_student(n, a, b, 0.95);
    out->mean = plain.mean;
    out->se = plain.se;
    out->skew = dpt_interval_skew(n, a, b);
    return paired_resample(n, a, b, options, out);
}

void dpt_paired_destroy(dpt_paired *paired) {
    dpt_bootstrap_destroy(&paired->draws);
    *paired = (dpt_paired){.n = 0};
}

double dpt_paired_end(const dpt_paired *p, double level) {
    if (p->resampled && !isnan(p->se))
        return dpt_bootstrap_end(&p->draws, level);
    return p->se == 0.0 ? p->mean : p->mean + dpt_student_quantile(level, p->df) * p->se;
}

/* P(T > difference / se). */
static double paired_upper(double difference, double se, double df) {
    double t = se > 0.0 ? difference / se : difference > 0.0 ? INFINITY : -INFINITY;
    return isnan(se) ? NAN : dpt_student_upper(t, df);
}

double dpt_paired_p_above(const dpt_paired *p, double value) {
    if (p->resampled && !isnan(p->se))
        return dpt_bootstrap_level(&p->draws, value);
    return paired_upper(p->mean - value, p->se, p->df);
}

double dpt_paired_p_below(const dpt_paired *p, double value) {
    if (p->resampled && !isnan(p->se))
        return 1.0 - dpt_bootstrap_level(&p->draws, value);
    return paired_upper(value - p->mean, p->se, p->df);
}

dpt_interval dpt_paired_interval(const dpt_paired *p, double confidence) {
    dpt_interval out = {.n = p->n, .mean = p->mean, .se = p->se, .low = NAN, .high = NAN};
    if (isnan(p->se))
        return out;
    out.low = dpt_paired_end(p, 0.5 * (1.0 - confidence));
    out.high = dpt_paired_end(p, 0.5 * (1.0 + confidence));
    return out;
}

/* Sums of squares and products of d and g around their means. */
typedef struct paired_products {
    double d, g, dd, dg, gg;
} paired_products;

static paired_products paired_products_of(int64_t n, const double *d, const double *g) {
    paired_products out = {.d = 0.0};
    for (int64_t i = 0; i < n; i++) {
        out.d += d[i] / (double)n;
        out.g += g[i] / (double)n;
    }
    for (int64_t i = 0; i < n; i++) {
        out.dd += (d[i] - out.d) * (d[i] - out.d);
        out.dg += (d[i] - out.d) * (g[i] - out.g);
        out.gg += (g[i] - out.g) * (g[i] - out.g);
    }
    return out;
}

/* The roots of (d - rho g)^2 = t^2 Var(d - rho g), around the ratio where g is beyond t of its own errors. */
static void paired_fieller(int64_t n, const paired_products *p, double t, double *low,
                           double *high) {
    double scale = t * t / ((double)(n - 1) * (double)n);
    double a = p->g * p->g - scale * p->gg;
    double b = p->d * p->g - scale * p->dg;
    double c = p->d * p->d - scale * p->dd;
    if (!(a > 0.0))
        return;
    double root = sqrt(fmax(b * b - a * c, 0.0));
    *low = (b - root) / a;
    *high = (b + root) / a;
}

dpt_status dpt_paired_ratio(int64_t n, const double *d, const double *g,
                            const dpt_paired_options *options, double confidence, double *low,
                            double *high) {
    *low = *high = NAN;
    if (n < 2)
        return DPT_OK;
    paired_products p = paired_products_of(n, d, g);
    if (!isfinite(p.dd) || !isfinite(p.gg))
        return DPT_OK;
    double df = dpt_interval_freedom(n, options->effective);
    paired_fieller(n, &p, dpt_student_quantile(0.5 * (1.0 + confidence), df), low, high);
    bool skewed = paired_is_skewed(dpt_interval_skew(n, d, NULL)) ||
                  paired_is_skewed(dpt_interval_skew(n, g, NULL));
    bool resamples = options->source != NULL && options->rule != DPT_PAIRED_T && skewed &&
                     n >= DPT_PAIRED_SKEW_SAMPLES && !(options->effective < 0.5 * (double)n);
    if (isnan(*low) || !resamples)
        return DPT_OK;
    return dpt_bootstrap_ratio(n, d, g, options->source, confidence, low, high);
}
