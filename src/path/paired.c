#include "deltapath/path/paired.h"

#include "deltapath/base/student.h"
#include "hall.h"

#include <math.h>
#include <stddef.h>

/* Few for their skewness; n in effect. */
static bool paired_is_few(double n, double skew) {
    double tail = n < DPT_PAIRED_SMALL ? 2.0 * DPT_PAIRED_TAIL : DPT_PAIRED_TAIL;
    return n < tail * skew * skew;
}

static dpt_status paired_resample(int64_t n, const double *a, const double *b,
                                  const dpt_paired_options *options, dpt_paired *out) {
    bool thin = options->effective < 0.5 * (double)n;
    if (options->source == NULL || options->rule != DPT_PAIRED_BOOTSTRAP || isnan(out->se) || thin)
        return DPT_OK;
    dpt_status st = dpt_bootstrap_draw(n, a, b, options->source, &out->draws);
    if (st != DPT_OK || out->draws.resamples == 0)
        return st;
    out->resampled = true;
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
    out->corrected = options->rule == DPT_PAIRED_AUTO && !isnan(out->skew);
    out->enough = DPT_PAIRED_LEAST + DPT_PAIRED_SLOPE * out->skew * out->skew;
    out->few = out->corrected && paired_is_few(fmin((double)n, options->effective), out->skew);
    return paired_resample(n, a, b, options, out);
}

void dpt_paired_destroy(dpt_paired *paired) {
    dpt_bootstrap_destroy(&paired->draws);
    *paired = (dpt_paired){.n = 0};
}

static dpt_hall paired_hall(const dpt_paired *p) {
    return dpt_hall_make(p->corrected ? p->skew : NAN, p->n);
}

double dpt_paired_end(const dpt_paired *p, double level) {
    if (p->resampled && !isnan(p->se))
        return dpt_bootstrap_end(&p->draws, level);
    if (!(p->se > 0.0))
        return p->se == 0.0 ? p->mean : NAN;
    dpt_hall hall = paired_hall(p); /* the lower end is where the statistic is high */
    return p->mean - dpt_hall_invert(&hall, -dpt_student_quantile(level, p->df)) * p->se;
}

/* P(T > t), or P(T < t) with sign -1, where the mean is `value`. */
static double paired_tail(const dpt_paired *p, double value, double sign) {
    double difference = p->mean - value;
    if (isnan(p->se) || isnan(difference))
        return NAN;
    if (!(p->se > 0.0) || isinf(difference))
        return dpt_student_upper(sign * difference > 0.0 ? INFINITY : -INFINITY, p->df);
    dpt_hall hall = paired_hall(p);
    return dpt_student_upper(sign * dpt_hall_apply(&hall, difference / p->se), p->df);
}

double dpt_paired_p_above(const dpt_paired *p, double value) {
    if (p->resampled && !isnan(p->se))
        return dpt_bootstrap_level(&p->draws, value);
    return paired_tail(p, value, 1.0);
}

double dpt_paired_p_below(const dpt_paired *p, double value) {
    if (p->resampled && !isnan(p->se))
        return 1.0 - dpt_bootstrap_level(&p->draws, value);
    return paired_tail(p, value, -1.0);
}

/* How many times as far a value on that side counts. */
static double paired_reach(const dpt_paired *p, double off) {
    return p->few && off * p->skew > 0.0 ? DPT_PAIRED_REACH : 1.0;
}

double dpt_paired_safe_end(const dpt_paired *p, double level) {
    double off = dpt_paired_end(p, level) - p->mean;
    return p->mean + paired_reach(p, off) * off;
}

double dpt_paired_safe_p_above(const dpt_paired *p, double value) {
    double off = value - p->mean;
    return dpt_paired_p_above(p, p->mean + off / paired_reach(p, off));
}

double dpt_paired_safe_p_below(const dpt_paired *p, double value) {
    double off = value - p->mean;
    return dpt_paired_p_below(p, p->mean + off / paired_reach(p, off));
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
    double third[4]; /* of d^(3 - k) g^k */
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
        double x = d[i] - out.d;
        double y = g[i] - out.g;
        out.third[0] += x * x * x;
        out.third[1] += x * x * y;
        out.third[2] += x * y * y;
        out.third[3] += y * y * y;
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

/* Hall's transform of the statistic of d - rho g. */
static double paired_ratio_statistic(int64_t n, const paired_products *p, double rho) {
    const double *c = p->third;
    double squares = p->dd - 2.0 * rho * p->dg + rho * rho * p->gg;
    double off = p->d - rho * p->g;
    if (!(squares > 0.0))
        return copysign(INFINITY, off);
    double cubes = c[0] - 3.0 * rho * c[1] + 3.0 * rho * rho * c[2] - rho * rho * rho * c[3];
    dpt_hall hall = dpt_hall_make(sqrt((double)n) * cubes / (squares * sqrt(squares)), n);
    return dpt_hall_apply(&hall, off / sqrt(squares / (double)(n - 1) / (double)n));
}

/* Where that is `value`, from a first guess on one side of the ratio; the guess where none is found. */
static double paired_ratio_end(int64_t n, const paired_products *p, double guess, double value) {
    double near = p->d / p->g;
    double far = guess;
    double sign = guess < near ? 1.0 : -1.0; /* it falls as rho rises */
    for (int i = 0; sign * (value - paired_ratio_statistic(n, p, far)) > 0.0; i++) {
        if (i == 40)
            return guess;
        near = far;
        far = p->d / p->g + 2.0 * (far - p->d / p->g);
    }
    for (int i = 0; i < 60; i++) {
        double middle = 0.5 * (near + far);
        if (sign * (value - paired_ratio_statistic(n, p, middle)) > 0.0)
            near = middle;
        else
            far = middle;
    }
    return far;
}

void dpt_paired_ratio(int64_t n, const double *d, const double *g,
                      const dpt_paired_options *options, double confidence, double *low,
                      double *high) {
    *low = *high = NAN;
    if (n < 2)
        return;
    paired_products p = paired_products_of(n, d, g);
    if (!isfinite(p.dd) || !isfinite(p.gg))
        return;
    double df = dpt_interval_freedom(n, options->effective);
    double t = dpt_student_quantile(0.5 * (1.0 + confidence), df);
    paired_fieller(n, &p, t, low, high);
    if (isnan(*low) || !(*low < *high) || options->rule == DPT_PAIRED_T)
        return;
    *low = paired_ratio_end(n, &p, *low, t);
    *high = paired_ratio_end(n, &p, *high, -t);
}
