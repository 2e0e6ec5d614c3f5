#include "deltapath/path/line_search.h"

#include "deltapath/base/assert.h"

#include <math.h>
#include <stddef.h>

/* Steps grow by this factor until the minimum is bracketed. */
static const double GROWTH = 3.0;
/* A new place stays this share of the bracket away from its ends. */
static const double GUARD = 0.1;

dpt_line_search_options dpt_line_search_defaults(void) {
    return (dpt_line_search_options){.lower = -1.0,
                                     .upper = 1.0,
                                     .step = 0.1,
                                     .tolerance = 0.01,
                                     .flat = 0.01,
                                     .evaluations = 8};
}

typedef struct search {
    dpt_line_search_fn fn;
    void *ctx;
    const dpt_line_search_options *options;
    dpt_line_search *out;
    double sign;             /* of the downhill direction */
    dpt_line_search_point a; /* downhill goes on from here */
    dpt_line_search_point b; /* the slope has turned, the loss has risen, or a wall */
} search;

static bool line_search_is_known(const dpt_line_search_point *p) {
    return isfinite(p->loss) && isfinite(p->slope);
}

static bool may_go_on(const search *s) {
    return s->out->evaluations < s->options->evaluations &&
           s->out->evaluations < DPT_LINE_SEARCH_POINTS;
}

static dpt_status line_search_evaluate(search *s, double at, dpt_line_search_point *p) {
    *p = (dpt_line_search_point){.at = at, .loss = NAN, .slope = NAN};
    dpt_status st = s->fn(s->ctx, at, &p->loss, &p->slope);
    s->out->evaluations++;
    DPT_ASSERT(s->out->points <= DPT_LINE_SEARCH_POINTS);
    s->out->point[s->out->points++] = *p;
    return st;
}

static bool is_flat(const search *s, const dpt_line_search_point *p) {
    return line_search_is_known(p) &&
           fabs(p->slope) <= s->options->flat * fabs(s->out->point[0].slope);
}

/* Whether the way on from p still goes down, seen from a lower end of the bracket. */
static bool descends(const search *s, const dpt_line_search_point *p) {
    return line_search_is_known(p) && p->loss <= s->a.loss && p->slope * s->sign < 0.0;
}

static dpt_status line_search_bracket(search *s, bool *found) {
    double limit = s->sign > 0.0 ? s->options->upper : s->options->lower;
    double reach = fabs(limit);
    double step = fmin(s->options->step, reach);
    dpt_status st = DPT_OK;
    *found = false;
    s->out->border = reach == 0.0;
    while (!*found && !s->out->border && may_go_on(s) && st == DPT_OK) {
        dpt_line_search_point p;
        st = line_search_evaluate(s, step == reach ? limit : s->sign * step, &p);
        if (descends(s, &p)) {
            s->a = p;
            s->out->border = step == reach;
            step = fmin(step * GROWTH, reach);
        } else {
            s->b = p;
            *found = true;
        }
    }
    return st;
}

/* Minimum of the cubic with the losses and slopes of both ends (Nocedal and Wright, Numerical
 * Optimization, 2nd ed., Eq. 3.59); NaN when it has none. */
static double cubic_minimum(const dpt_line_search_point *a, const dpt_line_search_point *b) {
    double width = b->at - a->at;
    double d1 = a->slope + b->slope - 3.0 * (b->loss - a->loss) / width;
    double square = d1 * d1 - a->slope * b->slope;
    if (!(square >= 0.0))
        return NAN;
    double d2 = copysign(sqrt(square), width);
    return b->at - width * (b->slope + d2 - d1) / (b->slope - a->slope + 2.0 * d2);
}

static double next_place(const search *s, bool bisect) {
    double width = s->b.at - s->a.at;
    double middle = s->a.at + 0.5 * width;
    double at = bisect || !line_search_is_known(&s->b) ? middle : cubic_minimum(&s->a, &s->b);
    DPT_ASSERT(width != 0.0 && width * s->sign > 0.0); /* b lies downhill of a */
    double share = (at - s->a.at) / width;
    if (!isfinite(share))
        return middle;
    return s->a.at + fmin(fmax(share, GUARD), 1.0 - GUARD) * width;
}

static dpt_status line_search_narrow(search *s) {
    dpt_status st = DPT_OK;
    double before = INFINITY; /* width two steps ago */
    double last = INFINITY;
    bool flat = is_flat(s, &s->b);
    while (!flat && may_go_on(s) && st == DPT_OK) {
        double width = fabs(s->b.at - s->a.at);
        if (width <= s->options->tolerance)
            break;
        dpt_line_search_point p;
        st = line_search_evaluate(s, next_place(s, width > 0.5 * before), &p);
        if (descends(s, &p))
            s->a = p;
        else
            s->b = p;
        flat = is_flat(s, &p);
        before = last;
        last = width;
    }
    return st;
}

static void choose(dpt_line_search *out) {
    out->at = out->point[0].at;
    out->loss = out->point[0].loss;
    for (int i = 1; i < out->points; i++)
        if (isfinite(out->point[i].loss) && out->point[i].loss < out->loss) {
            out->at = out->point[i].at;
            out->loss = out->point[i].loss;
        }
}

dpt_status dpt_line_search_run(dpt_line_search_fn fn, void *ctx,
                               const dpt_line_search_options *options, dpt_line_search *out) {
    search s = {.fn = fn, .ctx = ctx, .options = options, .out = out};
    *out = (dpt_line_search){.points = 0};
    dpt_status st = DPT_OK;
    if (options->start != NULL) {
        s.a = *options->start;
        out->point[out->points++] = s.a;
    } else {
        st = line_search_evaluate(&s, 0.0, &s.a);
    }
    if (st != DPT_OK)
        return st;
    s.sign = s.a.slope < 0.0 ? 1.0 : -1.0;
    if (line_search_is_known(&s.a) && s.a.slope != 0.0) {
        st = line_search_bracket(&s, &out->bracketed);
        if (st == DPT_OK && out->bracketed)
            st = line_search_narrow(&s);
    }
    choose(out);
    return st;
}
