#include "deltapath/path/quadrature.h"

#include "deltapath/base/assert.h"

#include <limits.h>
#include <math.h>

/* Place of 2/3 among the nodes of auto once they are refined. */
enum { NEWTON_STEPS = 100, NESTED_KEPT = 3 };

#define RULE_NAME(constant, name) #name,
static const char *const names[DPT_RULE_COUNT] = {DPT_RULE_LIST(RULE_NAME)};

const char *dpt_quadrature_name(dpt_rule rule) {
    return (unsigned)rule < DPT_RULE_COUNT ? names[rule] : "unknown";
}

static bool quadrature_is_gauss(dpt_rule rule) {
    return rule == DPT_RULE_GAUSS || rule == DPT_RULE_RADAU;
}

dpt_status dpt_quadrature_check(dpt_rule rule, int points) {
    const char *name = dpt_quadrature_name(rule);
    int upper = quadrature_is_gauss(rule)     ? DPT_QUADRATURE_GAUSS_MAX
                : rule == DPT_RULE_POLYNOMIAL ? DPT_QUADRATURE_POLYNOMIAL_MAX
                : rule == DPT_RULE_AUTO       ? DPT_QUADRATURE_AUTO_MAX
                                              : DPT_QUADRATURE_MAX;
    int lower = rule == DPT_RULE_TRAPEZOID ? 2
                : rule == DPT_RULE_SIMPSON ? 3
                : rule == DPT_RULE_AUTO    ? dpt_quadrature_refined(0, INT_MAX)
                                           : 1;
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

/* The nodes besides -1 are roots of P_n + P_{n-1}, near those of Chebyshev-Gauss-Radau; the root at -1 is
 * divided out, so that Newton's method does not go there. */
static void quadrature_radau(dpt_quadrature *q) {
    int n = q->points;
    q->node[0] = 0.0;
    q->weight[0] = 1.0 / ((double)n * n);
    for (int i = 1; i < n; i++) {
        double x = -cos(2.0 * M_PI * i / (2.0 * n - 1.0));
        double lower, lower_slope, upper, upper_slope;
        for (int step = 0; step < NEWTON_STEPS; step++) {
            legendre(n - 1, x, &lower, &lower_slope);
            legendre(n, x, &upper, &upper_slope);
            double sum = lower + upper;
            double moved = x - sum / (lower_slope + upper_slope - sum / (1.0 + x));
            if (fabs(moved - x) <= 1e-16)
                break;
            x = moved;
        }
        legendre(n - 1, x, &lower, &lower_slope);
        q->node[i] = 0.5 * (1.0 + x);
        q->weight[i] = 0.5 * (1.0 - x) / ((double)n * n * lower * lower);
    }
}

/* Weights of the integral over [0, 1] of the polynomial through n nodes, each that of its Lagrange
 * polynomial, by a Gauss rule that is exact for it. */
static void quadrature_interpolate(const double *node, int n, double *weight) {
    dpt_quadrature exact = {.rule = DPT_RULE_GAUSS, .points = n / 2 + 1};
    gauss(&exact);
    for (int c = 0; c < n; c++) {
        weight[c] = 0.0;
        for (int g = 0; g < exact.points; g++) {
            double value = exact.weight[g];
            for (int k = 0; k < n; k++)
                value *= k != c ? (exact.node[g] - node[k]) / (node[c] - node[k]) : 1.0;
            weight[c] += value;
        }
    }
}

/* With 2 points those of radau; with 5 also the roots of x^3 - 21/16 x^2 + 3/8 x - 1/56, with which the product
 * of all (x - node) is orthogonal to polynomials of degree 2: the rule is exact to degree 7, and keeps what
 * was taken (Patterson, Math. Comp. 22 (1968), of this pair of nodes). */
static void quadrature_nested(dpt_quadrature *q) {
    double nodes[] = {0.0, 0.06, 0.32, 2.0 / 3.0, 0.93};
    for (int c = 1; c < 5; c++)
        for (int step = 0; c != 3 && step < NEWTON_STEPS; step++) {
            double x = nodes[c];
            double moved = x - (((x - 21.0 / 16.0) * x + 3.0 / 8.0) * x - 1.0 / 56.0) /
                                   ((3.0 * x - 21.0 / 8.0) * x + 3.0 / 8.0);
            if (fabs(moved - x) <= 1e-16)
                break;
            nodes[c] = moved;
        }
    for (int c = 0; c < q->points; c++)
        q->node[c] = q->points == 2 ? nodes[NESTED_KEPT * c] : nodes[c];
    quadrature_interpolate(q->node, q->points, q->weight);
}

int dpt_quadrature_refined(int step, int most) {
    static const int points[] = {2, 5};
    int steps = (int)(sizeof points / sizeof *points);
    return step < steps && points[step] <= most ? points[step] : 0;
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

static void quadrature_space_evenly(dpt_quadrature *q) {
    dpt_rule rule = q->rule;
    int points = q->points;
    double step = 1.0 / (points - 1.0);
    for (int c = 0; c < points; c++) {
        bool end = c == 0 || c == points - 1;
        bool closed = dpt_quadrature_has_end(rule);
        q->node[c] = closed                      ? (double)c / (points - 1)
                     : rule == DPT_RULE_MIDPOINT ? (c + 0.5) / points
                                                 : (double)c / points;
        q->weight[c] = rule == DPT_RULE_TRAPEZOID ? (end ? 0.5 : 1.0) * step
                       : rule == DPT_RULE_SIMPSON ? (end          ? 1.0
                                                     : c % 2 == 1 ? 4.0
                                                                  : 2.0) *
                                                        step / 3.0
                                                  : 1.0 / points;
    }
}

dpt_status dpt_quadrature_create(dpt_rule rule, int points, dpt_quadrature *out) {
    dpt_status st = dpt_quadrature_check(rule, points);
    if (st != DPT_OK)
        return st;
    out->rule = rule;
    out->points = points;
    out->tolerance = 0.0;
    for (int step = 0; rule == DPT_RULE_AUTO && dpt_quadrature_refined(step, points) > 0; step++)
        out->points = dpt_quadrature_refined(step, points);
    if (rule == DPT_RULE_AUTO)
        quadrature_nested(out);
    else if (!quadrature_is_gauss(rule))
        quadrature_space_evenly(out);
    if (rule == DPT_RULE_GAUSS)
        gauss(out);
    else if (rule == DPT_RULE_RADAU)
        quadrature_radau(out);
    else if (rule == DPT_RULE_POLYNOMIAL)
        quadrature_interpolate(out->node, points, out->weight);
    DPT_ASSERT(quadrature_is_rule(out));
    return DPT_OK;
}

void dpt_quadrature_error_weights(const dpt_quadrature *q, double *out) {
    /* Weights of a polynomial that are those of the rule differ by rounding, which its size magnifies. */
    const double rounding = 1e-9;
    int n = q->points;
    bool known = n > 1 && (quadrature_is_gauss(q->rule) || n <= DPT_QUADRATURE_POLYNOMIAL_MAX);
    for (int c = 0; c < n; c++)
        out[c] = NAN;
    if (!known)
        return;
    double other[DPT_QUADRATURE_GAUSS_MAX] = {0.0};
    double largest = 0.0;
    quadrature_interpolate(q->node, n, other);
    for (int c = 0; c < n; c++)
        largest = fmax(largest, fabs(q->weight[c] - other[c]));
    if (q->rule == DPT_RULE_AUTO && n > NESTED_KEPT) {
        /* 0 has so close a neighbour that little is lost without it; without 2/3 the error of tensors is
         * within this size for 94 to 96 % of them (doc/science.md). */
        double nodes[DPT_QUADRATURE_AUTO_MAX], weights[DPT_QUADRATURE_AUTO_MAX];
        for (int c = 0; c < n - 1; c++)
            nodes[c] = q->node[c + (c >= NESTED_KEPT)];
        quadrature_interpolate(nodes, n - 1, weights);
        for (int c = 0; c < n; c++)
            other[c] = c == NESTED_KEPT ? 0.0 : weights[c - (c > NESTED_KEPT)];
    } else if (largest < rounding) {
        /* Without the first node; without the last where the first has no weight, as it has by symmetry in a
         * polynomial of an even number of nodes: leaving it out would change nothing. */
        bool first = fabs(q->weight[0]) > rounding;
        other[first ? 0 : n - 1] = 0.0;
        quadrature_interpolate(q->node + first, n - 1, other + first);
    }
    for (int c = 0; c < n; c++)
        out[c] = q->weight[c] - other[c];
}

bool dpt_quadrature_has_start(dpt_rule rule) {
    return rule == DPT_RULE_LEFT || rule == DPT_RULE_RADAU || rule == DPT_RULE_POLYNOMIAL ||
           rule == DPT_RULE_AUTO || dpt_quadrature_has_end(rule);
}

bool dpt_quadrature_has_end(dpt_rule rule) {
    return rule == DPT_RULE_TRAPEZOID || rule == DPT_RULE_SIMPSON;
}
