#include "deltapath/path/accuracy.h"

#include "deltapath/base/mem.h"
#include "deltapath/base/student.h"
#include "deltapath/path/interval.h"

#include <math.h>
#include <stddef.h>

static double accuracy_share(const dpt_weighted *w, int64_t i) {
    return w->shares != NULL ? w->shares[i] : 1.0 / (double)w->n;
}

/* Variance of the mean over clusters, by the jackknife. @param[out] values (n) room. */
static double accuracy_clustered(const dpt_weighted *w, const double *difference, double *values) {
    dpt_weighted_apply(w, difference, values);
    double se = dpt_interval_student(w->count, values, NULL, 0.95).se;
    return isnan(se) ? 0.0 : se * se;
}

dpt_status dpt_accuracy_count(const dpt_weighted *w, double effective, const double *first,
                              const double *second, dpt_accuracy_pairs *out) {
    double *difference = dpt_mem_alloc(2 * w->n, sizeof *difference, "changes of correctness");
    *out = (dpt_accuracy_pairs){.df = INFINITY};
    if (difference == NULL)
        return DPT_ERR_OUTPUT;
    double squares = 0.0;
    for (int64_t i = 0; i < w->n; i++) {
        double share = accuracy_share(w, i);
        difference[i] = second[i] - first[i];
        out->lost += difference[i] < 0.0 ? share : 0.0;
        out->won += difference[i] > 0.0 ? share : 0.0;
        squares += share * share;
    }
    out->samples = fmin(1.0 / squares, effective);
    if (w->value_of != NULL) {
        double change = out->won - out->lost;
        double alone = 0.0;
        for (int64_t i = 0; i < w->n; i++) {
            double off = accuracy_share(w, i) * (difference[i] - change);
            alone += off * off;
        }
        double together = accuracy_clustered(w, difference, difference + w->n);
        double known = together > 0.0 ? out->samples * alone / together : 0.0;
        out->samples = fmin(out->samples, fmax(known, w->effective));
        out->df = dpt_interval_freedom(w->count, w->effective);
    }
    dpt_mem_free(difference);
    return DPT_OK;
}

/* Tango's statistic: the change less `value` over its standard error where the true change is `value`. */
static double accuracy_score(const dpt_accuracy_pairs *p, double value) {
    double change = p->won - p->lost;
    double b = -p->won - p->lost + (2.0 - change) * value;
    double c = -p->lost * value * (1.0 - value);
    double lost = (sqrt(fmax(b * b - 8.0 * c, 0.0)) - b) / 4.0;
    double variance = 2.0 * lost + value * (1.0 - value);
    double off = change - value;
    if (!(variance > 0.0))
        return off == 0.0 ? 0.0 : copysign(INFINITY, off);
    return off * sqrt(p->samples / variance);
}

/* The value between that of the change and an outermost one at which the statistic is `t`. */
static double accuracy_end(const dpt_accuracy_pairs *p, double outer, double t) {
    double inner = p->won - p->lost;
    for (int i = 0; i < 200; i++) {
        double middle = 0.5 * (inner + outer);
        if (middle == inner || middle == outer)
            break;
        if (fabs(accuracy_score(p, middle)) < t)
            inner = middle;
        else
            outer = middle;
    }
    return inner;
}

static double accuracy_quantile(double p, double df) {
    return dpt_student_quantile(p, isinf(df) ? 1e9 : df);
}

/* The score test alone errs in up to 7 % where few samples differ; with the
 * exact test of those that are only lost it does in no more than 5.2 (100 to 1000 samples, margins of 2 and 5
 * points). */
static double accuracy_p(const dpt_accuracy_pairs *p, double margin) {
    double score = dpt_student_upper(accuracy_score(p, -margin), isinf(p->df) ? 1e9 : p->df);
    double fall = fmax(p->lost - p->won, 0.0) * p->samples;
    return fmax(score, dpt_student_binomial(fall, p->samples, margin));
}

/* How many times the samples it takes, with the same shares. */
static double accuracy_enough(const dpt_accuracy_pairs *p, double margin, double alpha) {
    double score = accuracy_score(p, -margin) / accuracy_quantile(1.0 - alpha, p->df);
    if (!(score > 0.0))
        return INFINITY;
    dpt_accuracy_pairs more = *p;
    double times = 1.0 / (score * score);
    for (int i = 0; i < 3000; i++, times *= 1.001) {
        more.samples = times * p->samples;
        if (accuracy_p(&more, margin) < alpha)
            break;
    }
    return times;
}

dpt_accuracy dpt_accuracy_judge(const dpt_accuracy_pairs *pairs, double margin, double confidence,
                                double alpha) {
    double t = accuracy_quantile(0.5 * (1.0 + confidence), pairs->df);
    dpt_accuracy out = {.change = pairs->won - pairs->lost,
                        .low = accuracy_end(pairs, -1.0, t),
                        .high = accuracy_end(pairs, 1.0, t),
                        .p = NAN,
                        .enough = NAN};
    if (!(margin > 0.0))
        return out;
    out.p = accuracy_p(pairs, margin);
    out.enough = accuracy_enough(pairs, margin, alpha);
    return out;
}
