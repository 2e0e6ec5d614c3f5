#include "deltapath/path/verdict.h"

#include "deltapath/base/mem.h"
#include "margin.h"

#include <math.h>
#include <stdlib.h>

const char *dpt_verdict_name(dpt_verdict_class verdict) {
    static const char *const names[] = {"undecided", "competitive", "decreased", "improved"};
    return (unsigned)verdict < 4 ? names[verdict] : "unknown";
}

dpt_verdict_options dpt_verdict_defaults(void) {
    return (dpt_verdict_options){
        .confidence = 0.95,
        .alpha = 0.05,
        .margins = {.share = 0.05, .absolute = NAN, .accuracy = 0.02, .guess = NAN},
        .paired = {.effective = NAN, .rule = DPT_PAIRED_T}};
}

static dpt_status verdict_check_margins(const dpt_verdict_margins *margins) {
    bool replaced = margins->absolute > 0.0;
    if (!replaced && (!(margins->share > 0.0) || !isfinite(margins->share)))
        return dpt_error(DPT_ERR_USAGE,
                         "margin.share is %g of the gain, within which nothing is equivalent: give "
                         "a share above 0, or `margin: {absolute: NATS}`",
                         margins->share);
    if (margins->absolute <= 0.0 || isinf(margins->absolute))
        return dpt_error(DPT_ERR_USAGE,
                         "absolute margin is %g nats, within which nothing is equivalent: give a "
                         "finite one above 0",
                         margins->absolute);
    if (!(margins->accuracy >= 0.0 && margins->accuracy < 1.0))
        return dpt_error(DPT_ERR_USAGE,
                         "accuracy margin is %g points: give one from 0, which leaves the accuracy "
                         "out, to below 100",
                         100.0 * margins->accuracy);
    return DPT_OK;
}

dpt_status dpt_verdict_check(const dpt_verdict_options *options) {
    if (!(options->confidence > 0.0 && options->confidence < 1.0))
        return dpt_error(DPT_ERR_USAGE, "confidence is %g: it must lie between 0 and 1",
                         options->confidence);
    if (!(options->alpha > 0.0 && options->alpha < 0.5))
        return dpt_error(DPT_ERR_USAGE, "alpha is %g: it must lie between 0 and 0.5",
                         options->alpha);
    return verdict_check_margins(&options->margins);
}

static bool excludes_zero(dpt_interval x) {
    return x.low > 0.0 || x.high < 0.0;
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
    "repeats, clusters and weights leave one sample in effect, which has no interval: add samples";
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

/* Why several samples tell no more than one of a - b; NULL: they do, or it is zero on all. */
static const char *why_one(int64_t n, const double *a, const double *b, double effective) {
    bool changes = false;
    for (int64_t s = 0; s < n; s++)
        changes = changes || a[s] != b[s];
    if (n < 2 || !changes)
        return NULL;
    if (dpt_verdict_is_one(effective))
        return ONE_REPEATED;
    return lacks_spread(n, a, b) ? ALL_ALIKE : NULL;
}

bool dpt_verdict_has_spread(int64_t n, const double *a, const double *b, double effective) {
    return why_one(n, a, b, effective) == NULL;
}

static const char ROOM_UNCLEAR[] =
    "the post-trained loss is not clearly below that of one that knows nothing: give an absolute "
    "margin";

static bool verdict_is_same(const dpt_verdict *v) {
    return v->change.se == 0.0 && v->change.mean == 0.0;
}

/* Whether samples tell more than one is asked of the gain by itself: it is the same for every edit. */
static dpt_status judge_gain(const dpt_verdict_samples *s, const dpt_verdict_options *options,
                             dpt_verdict *v) {
    if (s->pre == NULL)
        return DPT_OK;
    bool spread = dpt_verdict_has_spread(s->n, s->pre, s->post, options->paired.effective);
    dpt_paired gain;
    dpt_status st = dpt_paired_create(s->n, s->pre, s->post, &options->paired, &gain);
    if (st != DPT_OK)
        return st;
    v->gain = dpt_paired_interval(&gain, options->confidence);
    dpt_paired_destroy(&gain);
    if (!spread)
        forget_spread(&v->gain);
    if (!isfinite(v->gain.mean))
        return DPT_OK; /* nothing is known of it, also not that it is near zero */
    v->gain_clear = excludes_zero(v->gain);
    if (!(v->gain.low > 0.0) && s->n > 1 && spread)
        v->doubt = v->gain_clear ? GAIN_NEGATIVE : GAIN_UNCLEAR;
    return DPT_OK;
}

/* The change as a share of the gain. Without `spread` the samples tell no more than one of the change. */
static dpt_status judge_share(const dpt_verdict_samples *s, bool spread,
                              const dpt_verdict_options *options, dpt_verdict *v) {
    if (!(v->gain.low > 0.0))
        return DPT_OK;
    v->share = v->change.mean / v->gain.mean;
    if (!spread)
        return DPT_OK;
    double *both = dpt_mem_alloc(2 * s->n, sizeof *both, "changes and gains");
    if (both == NULL)
        return DPT_ERR_OUTPUT;
    for (int64_t i = 0; i < s->n; i++) {
        both[i] = s->edit[i] - s->post[i];
        both[s->n + i] = s->pre[i] - s->post[i];
    }
    dpt_paired_ratio(s->n, both, both + s->n, &options->paired, options->confidence, &v->share_low,
                     &v->share_high);
    dpt_mem_free(both);
    return DPT_OK;
}

static dpt_status judge_change(const dpt_verdict_samples *s, bool spread,
                               const dpt_verdict_options *options, dpt_verdict *v) {
    dpt_paired change;
    dpt_status st = dpt_paired_create(s->n, s->edit, s->post, &options->paired, &change);
    if (st != DPT_OK)
        return st;
    v->change = dpt_paired_interval(&change, options->confidence);
    v->equivalence = dpt_paired_interval(&change, 1.0 - 2.0 * options->alpha);
    v->skew = change.skew;
    v->resampled = change.resampled;
    v->few = change.few;
    v->enough = change.enough;
    if (!spread) {
        forget_spread(&v->change);
        forget_spread(&v->equivalence);
    } else if (!isnan(change.se)) {
        double above = dpt_paired_p_above(&change, 0.0);
        double below = dpt_paired_p_below(&change, 0.0);
        v->p_change = verdict_is_same(v) ? 1.0 : fmin(1.0, 2.0 * fmin(above, below));
    }
    dpt_paired_destroy(&change);
    return DPT_OK;
}

/* One of the two one-sided tests: of the change less (sign 1) or plus (-1) each sample's part of the margin.
 * @param[out] end of its interval, counted from the change. @param[in,out] plain whether the test would hold were the
 * samples not few for their skewness. */
static dpt_status judge_side(const dpt_verdict_samples *s, const dpt_margin *margin, double sign,
                             const dpt_verdict_options *options, double *moved, double *p,
                             double *end, bool *plain) {
    for (int64_t i = 0; i < s->n; i++)
        moved[i] = s->edit[i] - s->post[i] - sign * margin->each[i];
    dpt_paired side;
    dpt_status st = dpt_paired_create(s->n, moved, NULL, &options->paired, &side);
    if (st != DPT_OK)
        return st;
    double level = sign > 0.0 ? 1.0 - options->alpha : options->alpha;
    *p = sign > 0.0 ? dpt_paired_safe_p_below(&side, 0.0) : dpt_paired_safe_p_above(&side, 0.0);
    *end = sign * margin->value + dpt_paired_safe_end(&side, level);
    *plain = *plain && sign * dpt_paired_end(&side, level) < 0.0;
    dpt_paired_destroy(&side);
    return DPT_OK;
}

static bool verdict_is_within(const dpt_verdict *v) {
    return v->equivalence.low > -v->margin && v->equivalence.high < v->margin;
}

static dpt_status judge_equivalence(const dpt_verdict_samples *s,
                                    const dpt_verdict_options *options, dpt_verdict *v) {
    dpt_margin margin;
    dpt_status st = dpt_margin_create(s, options, v->gain.low > 0.0, &margin);
    if (st != DPT_OK)
        return st;
    v->margin = margin.value;
    v->margin_accuracy = margin.accuracy;
    if (v->gain.low > 0.0 && v->margin >= v->gain.mean)
        v->doubt = GAIN_WITHIN;
    double *moved = NULL;
    double p[2];
    bool plain = true;
    if (isnan(v->margin) || isnan(v->change.se))
        goto done;
    moved = dpt_mem_alloc(s->n, sizeof *moved, "changes and margins");
    st = moved != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    if (st == DPT_OK)
        st = judge_side(s, &margin, 1.0, options, moved, &p[0], &v->equivalence.high, &plain);
    if (st == DPT_OK)
        st = judge_side(s, &margin, -1.0, options, moved, &p[1], &v->equivalence.low, &plain);
    if (st == DPT_OK) {
        v->p_equivalent = fmax(p[0], p[1]);
        v->tail = plain && !verdict_is_within(v);
    }
    dpt_mem_free(moved);
done:
    dpt_margin_destroy(&margin);
    return st;
}

static dpt_status judge_estimate(const dpt_verdict_samples *s, bool spread,
                                 const dpt_verdict_options *options, dpt_verdict *v) {
    if (s->terms == NULL)
        return DPT_OK;
    dpt_paired estimate;
    dpt_status st = dpt_paired_create(s->n, s->terms, NULL, &options->paired, &estimate);
    if (st != DPT_OK)
        return st;
    if (!isnan(estimate.mean))
        v->estimate = dpt_paired_interval(&estimate, options->confidence);
    if (!spread)
        forget_spread(&v->estimate);
    dpt_paired_destroy(&estimate);
    return DPT_OK;
}

static void judge_accuracy(const dpt_verdict_samples *s, bool spread,
                           const dpt_verdict_options *options, dpt_verdict *v) {
    if (s->pairs == NULL)
        return;
    double margin = options->margins.accuracy;
    v->accuracy = dpt_accuracy_judge(s->pairs, margin > 0.0 ? margin : NAN, options->confidence,
                                     options->alpha);
    if (!spread || s->n < 2)
        v->accuracy.low = v->accuracy.high = v->accuracy.p = NAN;
    if (!(margin > 0.0))
        return;
    v->accuracy_is = v->accuracy.p < options->alpha ? DPT_ACCURACY_HOLDS
                     : v->accuracy.high < 0.0       ? DPT_ACCURACY_FALLS
                                                    : DPT_ACCURACY_UNSURE;
}

/* The verdict where both intervals exist. */
static void decide_both(bool within, dpt_verdict *v) {
    bool falls = v->accuracy_is == DPT_ACCURACY_FALLS;
    if (within && v->accuracy_is == DPT_ACCURACY_OUT) {
        v->verdict = DPT_VERDICT_COMPETITIVE;
        v->reason = "equivalent to the post-trained model within the margin";
    } else if (within && v->accuracy_is == DPT_ACCURACY_HOLDS) {
        v->verdict = DPT_VERDICT_COMPETITIVE;
        v->reason = "equivalent to the post-trained model within the margins of loss and accuracy";
    } else if (within && falls) {
        v->verdict = DPT_VERDICT_DECREASED;
        v->reason = "the loss is within its margin, but the accuracy falls";
    } else if (within) {
        v->reason = "the loss is within its margin, but the accuracy is not known to be";
    } else if (v->tail && !falls) {
        v->reason = "too few samples for changes so skewed: they may not have met those that are "
                    "beyond the margin";
    } else if (v->change.low > 0.0) {
        v->verdict = DPT_VERDICT_DECREASED;
        v->reason = "the loss rises";
    } else if (v->change.high < 0.0 && falls) {
        v->reason = "the loss falls, but so does the accuracy";
    } else if (v->change.high < 0.0) {
        v->verdict = DPT_VERDICT_IMPROVED;
        v->reason = "the loss falls";
    } else {
        v->reason = "the interval holds both zero and changes beyond the margin: add samples";
    }
}

static void decide(const char *broken, const char *withheld, const char *one, dpt_verdict *v) {
    const dpt_interval *change = &v->change;
    bool same = verdict_is_same(v);
    bool within = verdict_is_within(v);
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
        v->reason = v->gain.n == 0 ? "the pre-trained loss is not known: give an absolute margin"
                    : !(v->gain.low > 0.0)
                        ? "the post-training gain is not distinguishable from zero: "
                          "give an absolute margin"
                        : ROOM_UNCLEAR;
    } else {
        decide_both(within, v);
    }
}

/* No p value contradicts the verdict: nothing is equivalent to a model that is worse than the pre-trained one, and what
 * changes no sample is, however wide the margin's own error. */
static void verdict_settle_p(dpt_verdict *v) {
    if (v->gain.high < 0.0)
        v->p_equivalent = NAN;
    else if (v->verdict == DPT_VERDICT_COMPETITIVE && verdict_is_same(v))
        v->p_equivalent = 0.0;
}

dpt_status dpt_verdict_judge(const dpt_verdict_samples *s, const dpt_verdict_options *options,
                             dpt_verdict *out) {
    const dpt_interval none = {.n = 0, .mean = NAN, .se = NAN, .low = NAN, .high = NAN};
    *out = (dpt_verdict){.verdict = DPT_VERDICT_UNDECIDED,
                         .reason = "no sample",
                         .change = none,
                         .skew = NAN,
                         .enough = NAN,
                         .equivalence = none,
                         .estimate = none,
                         .gain = none,
                         .share = NAN,
                         .share_low = NAN,
                         .share_high = NAN,
                         .margin = NAN,
                         .margin_accuracy = NAN,
                         .accuracy = {NAN, NAN, NAN, NAN, NAN},
                         .p_change = NAN,
                         .p_equivalent = NAN};
    if (s->n < 1)
        return DPT_OK;
    const char *one = why_one(s->n, s->edit, s->post, options->paired.effective);
    bool spread = one == NULL;
    dpt_status st = judge_change(s, spread, options, out);
    if (st == DPT_OK)
        st = judge_estimate(s, spread, options, out);
    if (st == DPT_OK)
        st = judge_gain(s, options, out);
    if (st == DPT_OK)
        st = judge_share(s, spread, options, out);
    if (st == DPT_OK)
        st = judge_equivalence(s, options, out);
    judge_accuracy(s, spread, options, out);
    decide(why_broken(s->n, s->pre, s->post), options->withheld, one, out);
    verdict_settle_p(out);
    return st;
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
