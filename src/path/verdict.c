#include "deltapath/path/verdict.h"

#include "deltapath/base/mem.h"
#include "student.h"

#include <math.h>
#include <stdlib.h>

/* Degrees of freedom of a variance over n samples that weights and repeats leave `effective` of; NaN: all. */
static double verdict_freedom(int64_t n, double effective) {
    return effective < (double)n - 0.5 ? fmax(effective - 1.0, 0.1) : (double)(n - 1);
}

static dpt_interval verdict_interval(int64_t n, const double *a, const double *b, double effective,
                                     double confidence) {
    dpt_interval out = {.n = n, .mean = NAN, .se = NAN, .low = NAN, .high = NAN};
    if (n < 1)
        return out;
    double sum = 0.0;
    for (int64_t s = 0; s < n; s++)
        sum += b != NULL ? a[s] - b[s] : a[s];
    out.mean = sum / (double)n;
    if (n < 2 || !isfinite(out.mean))
        return out;
    double squares = 0.0;
    for (int64_t s = 0; s < n; s++) {
        double x = (b != NULL ? a[s] - b[s] : a[s]) - out.mean;
        squares += x * x;
    }
    out.se = sqrt(squares / (double)(n - 1) / (double)n);
    double df = verdict_freedom(n, effective);
    double reach = dpt_student_quantile(0.5 * (1.0 + confidence), df) * out.se;
    out.low = out.mean - reach;
    out.high = out.mean + reach;
    return out;
}

dpt_interval dpt_verdict_paired(int64_t n, const double *a, const double *b, double confidence) {
    return verdict_interval(n, a, b, NAN, confidence);
}

const char *dpt_verdict_name(dpt_verdict_class verdict) {
    static const char *const names[] = {"undecided", "competitive", "decreased", "improved"};
    return (unsigned)verdict < 4 ? names[verdict] : "unknown";
}

dpt_verdict_options dpt_verdict_defaults(void) {
    return (dpt_verdict_options){.confidence = 0.95,
                                 .alpha = 0.05,
                                 .share_margin = 0.05,
                                 .absolute_margin = NAN,
                                 .effective = NAN};
}

dpt_status dpt_verdict_check(const dpt_verdict_options *options) {
    if (!(options->confidence > 0.0 && options->confidence < 1.0))
        return dpt_error(DPT_ERR_USAGE, "confidence is %g: it must lie between 0 and 1",
                         options->confidence);
    if (!(options->alpha > 0.0 && options->alpha < 0.5))
        return dpt_error(DPT_ERR_USAGE, "alpha is %g: it must lie between 0 and 0.5",
                         options->alpha);
    if (!(options->share_margin > 0.0) || !isfinite(options->share_margin))
        return dpt_error(
            DPT_ERR_USAGE,
            "margin is %g of the gain, within which nothing is equivalent: give a share above 0",
            options->share_margin);
    if (options->absolute_margin <= 0.0 || isinf(options->absolute_margin))
        return dpt_error(DPT_ERR_USAGE,
                         "absolute margin is %g nats, within which nothing is equivalent: give a "
                         "finite one above 0",
                         options->absolute_margin);
    return DPT_OK;
}

static bool excludes_zero(dpt_interval x) {
    return x.low > 0.0 || x.high < 0.0;
}

/* Without spread among the samples t is +-infinity, or 0 / 0 when there is no difference either:
 * then the hypothesis on the border holds exactly and its p is 1. */
static double upper_p(double difference, double se, double df) {
    double t = se > 0.0 ? difference / se : difference > 0.0 ? INFINITY : -INFINITY;
    return dpt_student_upper(t, df);
}

/* p values of Student's tests, or of the curve: the levels at which its intervals leave the value out. */
static void verdict_set_p(int64_t n, const double *edit, const double *post,
                          const dpt_verdict_curve *curve, double effective, dpt_verdict *v) {
    double df = verdict_freedom(n, effective);
    double se = dpt_verdict_paired(n, edit, post, 0.95).se;
    double mean = v->change.mean;
    bool same = se == 0.0 && mean == 0.0;
    if (curve != NULL) {
        double zero = curve->level(curve->ctx, 0.0);
        v->p_change = fmin(1.0, 2.0 * fmin(zero, 1.0 - zero));
        if (!isnan(v->margin))
            v->p_equivalent = fmax(curve->level(curve->ctx, -v->margin),
                                   1.0 - curve->level(curve->ctx, v->margin));
        return;
    }
    v->p_change = same ? 1.0 : 2.0 * upper_p(fabs(mean), se, df);
    if (!isnan(v->margin))
        v->p_equivalent =
            fmax(upper_p(v->margin + mean, se, df), upper_p(v->margin - mean, se, df));
}

static dpt_interval verdict_change(int64_t n, const double *edit, const double *post,
                                   const dpt_verdict_curve *curve, double effective,
                                   double confidence) {
    dpt_interval out = verdict_interval(n, edit, post, effective, confidence);
    if (curve == NULL)
        return out;
    out.se = curve->se;
    out.low = curve->end(curve->ctx, 0.5 * (1.0 - confidence));
    out.high = curve->end(curve->ctx, 0.5 * (1.0 + confidence));
    return out;
}

double dpt_verdict_skew(int64_t n, const double *a, const double *b) {
    double mean = dpt_verdict_paired(n, a, b, 0.95).mean;
    double squares = 0.0;
    double cubes = 0.0;
    for (int64_t s = 0; s < n; s++) {
        double x = a[s] - b[s] - mean;
        squares += x * x;
        cubes += x * x * x;
    }
    return squares > 0.0 ? sqrt((double)n) * cubes / (squares * sqrt(squares)) : NAN;
}

bool dpt_verdict_is_one(double effective) {
    return effective < 1.5;
}

/* Equal changes have no variance to judge from, as those of one sample that is repeated. Losses are sums
 * in double: their differences are equal to within its rounding. */
static bool lacks_spread(int64_t n, const double *a, const double *b) {
    double low = INFINITY, high = -INFINITY, largest = 0.0;
    for (int64_t s = 0; s < n; s++) {
        low = fmin(low, a[s] - b[s]);
        high = fmax(high, a[s] - b[s]);
        largest = fmax(largest, fmax(fabs(a[s]), fabs(b[s])));
    }
    double rounding = 1e-12 * largest;
    return high - low <= rounding && fmax(fabs(low), fabs(high)) > rounding;
}

/* What is known of the mean of one sample. */
static void forget_spread(dpt_interval *x) {
    x->se = x->low = x->high = NAN;
}

static const char ONE_REPEATED[] =
    "repeats and weights leave one sample in effect, which has no interval: add samples";
static const char ALL_ALIKE[] =
    "the change is the same on every sample, which gives no interval: are they copies of one?";

static const char GAIN_NEGATIVE[] = "the post-trained model is worse than the pre-trained one on "
                                    "this data: are pre and post swapped?";
static const char GAIN_UNCLEAR[] = "the post-training gain is not distinguishable from zero";

static const char GAIN_WITHIN[] = "the margin is at least the post-training gain: the pre-trained "
                                  "model itself counts as equivalent";

static const char PRE_BROKEN[] = "a loss of the pre-trained model is not finite";
static const char POST_BROKEN[] = "a loss of the post-trained model is not finite";

/* Why there is nothing to compare an edit with; NULL: nothing is wrong. */
static const char *why_broken(int64_t n, const double *pre, const double *post) {
    for (int64_t s = 0; s < n; s++)
        if (!isfinite(post[s]))
            return POST_BROKEN;
    for (int64_t s = 0; s < n && pre != NULL; s++)
        if (!isfinite(pre[s]))
            return PRE_BROKEN;
    return NULL;
}

/* Why several samples tell no more than one; NULL: they do, or none of them changes. */
static const char *why_one(int64_t n, const double *post, const double *edit, double effective) {
    bool changes = false;
    for (int64_t s = 0; s < n; s++)
        changes = changes || edit[s] != post[s];
    if (n < 2 || !changes)
        return NULL;
    if (dpt_verdict_is_one(effective))
        return ONE_REPEATED;
    return lacks_spread(n, edit, post) ? ALL_ALIKE : NULL;
}

/* Without `spread` the samples tell no more than one. */
static void judge_gain(int64_t n, const double *pre, const double *post, bool spread,
                       const dpt_verdict_options *options, dpt_verdict *v) {
    if (pre == NULL)
        return;
    v->gain = verdict_interval(n, pre, post, options->effective, options->confidence);
    if (!spread)
        forget_spread(&v->gain);
    if (!isfinite(v->gain.mean))
        return; /* nothing is known of it, also not that it is near zero */
    v->gain_clear = excludes_zero(v->gain);
    if (!(v->gain.low > 0.0)) {
        if (n > 1 && spread)
            v->doubt = v->gain_clear ? GAIN_NEGATIVE : GAIN_UNCLEAR;
        return;
    }
    v->share = v->change.mean / v->gain.mean;
    v->share_low = v->change.low / v->gain.mean;
    v->share_high = v->change.high / v->gain.mean;
}

static void decide(const char *broken, const char *withheld, const char *one, dpt_verdict *v) {
    const dpt_interval *change = &v->change;
    bool same = change->se == 0.0 && change->mean == 0.0;
    bool within = v->equivalence.low > -v->margin && v->equivalence.high < v->margin;
    bool worse = v->gain.high < 0.0;
    if (broken != NULL) {
        v->reason = broken;
    } else if (isnan(change->mean)) {
        v->reason = "a loss is not a number";
    } else if (isinf(change->mean)) {
        v->verdict = change->mean > 0.0 ? DPT_VERDICT_DECREASED : DPT_VERDICT_IMPROVED;
        v->reason = "a loss is infinite";
    } else if (change->n < 2) {
        v->reason = "one sample has no interval";
    } else if (withheld != NULL) {
        v->reason = withheld;
    } else if (one != NULL) {
        v->reason = one;
    } else if (worse && (same || within || isnan(v->margin))) {
        v->reason = GAIN_NEGATIVE;
    } else if (same) {
        v->verdict = DPT_VERDICT_COMPETITIVE;
        v->reason = "the loss is the same on every sample";
    } else if (isnan(v->margin)) {
        v->reason = v->gain.n > 0 ? "the post-training gain is not distinguishable from zero: "
                                    "give an absolute margin"
                                  : "the pre-trained loss is not known: give an absolute margin";
    } else if (within) {
        v->verdict = DPT_VERDICT_COMPETITIVE;
        v->reason = "equivalent to the post-trained model within the margin";
    } else if (change->low > 0.0) {
        v->verdict = DPT_VERDICT_DECREASED;
        v->reason = "the loss rises";
    } else if (change->high < 0.0) {
        v->verdict = DPT_VERDICT_IMPROVED;
        v->reason = "the loss falls";
    } else {
        v->reason = "the interval holds both zero and changes beyond the margin: add samples";
    }
}

dpt_verdict dpt_verdict_judge(int64_t n, const double *pre, const double *post, const double *edit,
                              const double *sample_terms, const dpt_verdict_options *options) {
    const dpt_interval none = {.n = 0, .mean = NAN, .se = NAN, .low = NAN, .high = NAN};
    dpt_verdict v = {.verdict = DPT_VERDICT_UNDECIDED,
                     .reason = "no sample",
                     .change = none,
                     .equivalence = none,
                     .estimate = none,
                     .gain = none,
                     .share = NAN,
                     .share_low = NAN,
                     .share_high = NAN,
                     .margin = NAN,
                     .p_change = NAN,
                     .p_equivalent = NAN};
    if (n < 1)
        return v;
    /* Resamples of many samples do not know that few of them have the weight. */
    double effective = options->effective;
    const dpt_verdict_curve *curve = effective < 0.5 * (double)n ? NULL : options->curve;
    v.change = verdict_change(n, edit, post, curve, effective, options->confidence);
    v.equivalence = verdict_change(n, edit, post, curve, effective, 1.0 - 2.0 * options->alpha);
    if (sample_terms != NULL)
        v.estimate = verdict_interval(n, sample_terms, NULL, effective, options->confidence);
    if (isnan(v.estimate.mean))
        v.estimate = none;
    const char *one = why_one(n, post, edit, options->effective);
    if (one != NULL) {
        forget_spread(&v.change);
        forget_spread(&v.equivalence);
        forget_spread(&v.estimate);
    }
    judge_gain(n, pre, post, one == NULL, options, &v);
    if (options->absolute_margin > 0.0)
        v.margin = options->absolute_margin;
    else if (v.gain.low > 0.0)
        v.margin = options->share_margin * v.gain.mean;
    if (v.gain.low > 0.0 && v.margin >= v.gain.mean)
        v.doubt = GAIN_WITHIN;
    if (!isnan(v.change.se))
        verdict_set_p(n, edit, post, curve, effective, &v);
    decide(why_broken(n, pre, post), options->withheld, one, &v);
    return v;
}

typedef struct ranked {
    double p;
    int64_t at;
} ranked;

static int by_p(const void *a, const void *b) {
    const ranked *x = a;
    const ranked *y = b;
    if (x->p != y->p)
        return x->p < y->p ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

dpt_status dpt_verdict_holm(int64_t n, const double *p, double *adjusted) {
    ranked *order = dpt_mem_alloc(n, sizeof *order, "p values to correct");
    if (order == NULL)
        return DPT_ERR_OUTPUT;
    int64_t m = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isnan(p[i]))
            order[m++] = (ranked){.p = p[i], .at = i};
        adjusted[i] = p[i];
    }
    if (m > 0)
        qsort(order, (size_t)m, sizeof *order, by_p);
    double worst = 0.0;
    for (int64_t k = 0; k < m; k++) {
        worst = fmax(worst, fmin(1.0, (double)(m - k) * order[k].p));
        adjusted[order[k].at] = worst;
    }
    dpt_mem_free(order);
    return DPT_OK;
}
