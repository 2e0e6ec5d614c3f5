#include "deltapath/path/quadrature.h"

#include "deltapath/base/assert.h"

#include <math.h>

enum { NEWTON_STEPS = 100 };

#define RULE_NAME(constant, name) #name,
static const char *const names[DPT_RULE_COUNT] = {DPT_RULE_LIST(RULE_NAME)};

const char *dpt_quadrature_name(dpt_rule rule) {
    return (unsigned)rule < DPT_RULE_COUNT ? names[rule] : "unknown";
}

dpt_status dpt_quadrature_check(dpt_rule rule, int points) {
    const char *name = dpt_quadrature_name(rule);
    int upper = rule == DPT_RULE_GAUSS ? DPT_QUADRATURE_GAUSS_MAX : DPT_QUADRATURE_MAX;
    int lower = rule == DPT_RULE_TRAPEZOID ? 2 : rule == DPT_RULE_SIMPSON ? 3 : 1;
    if ((unsigned)rule >= DPT_RULE_COUNT)
        return dpt_error(DPT_ERR_USAGE, "rule number %d is not known", (int)rule);
    if (rule == DPT_RULE_SIMPSON && points % 2 == 0)
        return dpt_error(DPT_ERR_USAGE,
                         "points: rule simpson takes an odd number of points from 3, not %d: use "
                         "%d or %d",
                         points, points < 4 ? 3 : points - 1, points < 3 ? 5 : points + 1);
    if (points < lower || points > upper)
        return dpt_error(DPT_ERR_USAGE, "points: rule %s takes %d to %d points, not %d", name,
                         lower, upper, points);
    return DPT_OK;
}

/* Legendre polynomial of degree n at x and its derivative, by the three-term recurrence. */
static void legendre(int n, double x, double *value, double *derivative) {
    double before = 0.0;
    double now = 1.0;
    for (int k = 0; k < n; k++) {
        double next = ((2.0 * k + 1.0) * x * now - k * before) / (k + 1.0);
        before = now;
        now = next;
    }
    *value = now;
    *derivative = n * (x * now - before) / (x * x - 1.0);
}

/* Root i of the Legendre polynomial, counted from the largest, is near cos(pi (i + 3/4) / (n + 1/2))
 * (Abramowitz and Stegun 22.16.6), from where Newton's method converges to the last bit. */
static void gauss(dpt_quadrature *q) {
    int n = q->points;
    for (int i = 0; i < (n + 1) / 2; i++) {
        double x = cos(M_PI * (i + 0.75) / (n + 0.5));
        double value, derivative;
        if (2 * i + 1 == n)
            x = 0.0;
        for (int step = 0; step < NEWTON_STEPS; step++) {
            legendre(n, x, &value, &derivative);
            double moved = x - value / derivative;
            if (fabs(moved - x) <= 1e-16)
                break;
            x = moved;
        }
        legendre(n, x, &value, &derivative);
        double weight = 1.0 / ((1.0 - x * x) * derivative * derivative);
        q->node[i] = 0.5 * (1.0 - x);
        q->node[n - 1 - i] = 0.5 * (1.0 + x);
        q->weight[i] = q->weight[n - 1 - i] = weight;
    }
}

/* Nodes rise within [0, 1] and the weights sum to its length. */
static bool quadrature_is_rule(const dpt_quadrature *q) {
    double sum = 0.0;
    bool rises = q->node[0] >= 0.0 && q->node[q->points - 1] <= 1.0;
    for (int c = 0; c < q->points; c++) {
        sum += q->weight[c];
        rises = rises && (c == 0 || q->node[c] > q->node[c - 1]);
    }
    return rises && fabs(sum - 1.0) < 1e-12;
}

dpt_status dpt_quadrature_create(dpt_rule rule, int points, dpt_quadrature *out) {
    dpt_status st = dpt_quadrature_check(rule, points);
    if (st != DPT_OK)
        return st;
    out->rule = rule;
    out->points = points;
    double step = 1.0 / (points - 1.0);
    for (int c = 0; c < points && rule != DPT_RULE_GAUSS; c++) {
        bool end = c == 0 || c == points - 1;
        bool closed = dpt_quadrature_has_end(rule);
        out->node[c] = closed                      ? (double)c / (points - 1)
                       : rule == DPT_RULE_MIDPOINT ? (c + 0.5) / points
                                                   : (double)c / points;
        out->weight[c] = rule == DPT_RULE_TRAPEZOID ? (end ? 0.5 : 1.0) * step
                         : rule == DPT_RULE_SIMPSON ? (end          ? 1.0
                                                       : c % 2 == 1 ? 4.0
                                                                    : 2.0) *
                                                          step / 3.0
                                                    : 1.0 / points;
    }
    if (rule == DPT_RULE_GAUSS)
        gauss(out);
    DPT_ASSERT(quadrature_is_rule(out));
    return DPT_OK;
}

bool dpt_quadrature_has_start(dpt_rule rule) {
    return rule == DPT_RULE_LEFT || dpt_quadrature_has_end(rule);
}

bool dpt_quadrature_has_end(dpt_rule rule) {
    return rule == DPT_RULE_TRAPEZOID || rule == DPT_RULE_SIMPSON;
}
