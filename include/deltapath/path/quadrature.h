#ifndef DELTAPATH_PATH_QUADRATURE_H
#define DELTAPATH_PATH_QUADRATURE_H

#include "deltapath/base/status.h"

#include <stdbool.h>

enum {
    DPT_QUADRATURE_MAX = 1024,     /**< most points of a rule */
    DPT_QUADRATURE_GAUSS_MAX = 64, /**< most points of the Gauss rules */
    DPT_QUADRATURE_AUTO_MAX = 5,   /**< most points of auto */
    DPT_QUADRATURE_POLYNOMIAL_MAX =
        10 /**< most evenly spaced points that a polynomial goes through: with 10 its weights, of both
               signs, add up to 30 in magnitude, and errors of the slopes grow by as much */
};

/** How the integral over t in [0, 1] is sampled: X(constant, name in a job file).
 *   left       t = c / C, the rule of arXiv:2410.13841; order 1
 *   midpoint   t = (c + 1/2) / C; order 2
 *   trapezoid  t = c / (C - 1), C >= 2; order 2
 *   simpson    t = c / (C - 1), C odd and >= 3; order 4
 *   gauss      Gauss-Legendre, C <= 64; exact to degree 2 C - 1
 *   radau      Gauss-Radau with a node at t = 0, C <= 64; exact to degree 2 C - 2
 *   polynomial t = c / C, the nodes of left, and the integral of the polynomial through the values there,
 *              C <= 10; exact to degree C - 1
 *   auto       nested rules with a node at t = 0: 2 points are those of radau, exact to degree 2; 5 are these
 *              and three more, exact to degree 7. At most C points, C <= 5: the larger rule only where the
 *              smaller one misses (dpt_riemann_run) */
#define DPT_RULE_LIST(X)                                                                           \
    X(LEFT, left)                                                                                  \
    X(MIDPOINT, midpoint)                                                                          \
    X(TRAPEZOID, trapezoid)                                                                        \
    X(SIMPSON, simpson)                                                                            \
    X(GAUSS, gauss) X(RADAU, radau) X(POLYNOMIAL, polynomial) X(AUTO, auto)

#define DPT_RULE_CONSTANT(constant, name) DPT_RULE_##constant,
typedef enum dpt_rule { DPT_RULE_LIST(DPT_RULE_CONSTANT) DPT_RULE_COUNT } dpt_rule;

/** "left|midpoint|...", in the order of the constants. */
#define DPT_RULE_CHOICE(constant, name) "|" #name
#define DPT_RULE_NAMES                  (&(DPT_RULE_LIST(DPT_RULE_CHOICE))[1])

/** Points of the nested rules of auto, in rising order: `step` from 0 on. Local. @return 0 where there is no such
 * rule of at most `most` points. */
int dpt_quadrature_refined(int step, int most);

/** Nodes in rising order and their weights, whose sum is 1; negative ones only of polynomial and auto. */
typedef struct dpt_quadrature {
    dpt_rule rule;
    int points;
    double node[DPT_QUADRATURE_MAX];
    double weight[DPT_QUADRATURE_MAX];
    double tolerance; /**< of auto: relative error at which no points are added; of others unused */
} dpt_quadrature;

/** Name of a rule as in a job file. Local. */
const char *dpt_quadrature_name(dpt_rule rule);

/** Whether a rule can have that many points. Local.
 * Errors: DPT_ERR_USAGE saying which counts the rule takes. */
dpt_status dpt_quadrature_check(dpt_rule rule, int points);

/** Nodes and weights of a rule on [0, 1].
 *
 * Local. Computes: Gauss nodes as the roots of Legendre polynomials (P_C; for Radau P_C + P_{C-1}) by
 * Newton's method from Chebyshev-like starts; weights of polynomial as integrals of Lagrange's polynomials;
 * the others in closed form.   Source: Abramowitz and Stegun, 25.4.29 to 25.4.31.
 * @param[in] points  function evaluations.
 * Errors: DPT_ERR_USAGE as dpt_quadrature_check; out undefined.
 * Determinism: depends on its arguments alone.
 */
dpt_status dpt_quadrature_create(dpt_rule rule, int points, dpt_quadrature *out);

/** Weights that give, from the values at the nodes, by how much the rule differs from another of them.
 *
 * Local. Computes: weights of the rule less those of the polynomial through all its nodes, or, where the rule
 * is that already, through all but the first (of auto with 5 points all but 2/3). The magnitude of the sum is of the size of the rule's error
 * where the function is smooth: close for the rules of low order, several times too large for the Gauss rules,
 * which are of twice the order.
 * @param[out] out (points); NaN with one point, and with more than 10 of evenly spaced ones. */
void dpt_quadrature_error_weights(const dpt_quadrature *q, double *out);

/** Whether the rule evaluates t = 0 (left, radau, polynomial, trapezoid, simpson), or t = 1 (the latter two).
 * Local. */
bool dpt_quadrature_has_start(dpt_rule rule);
bool dpt_quadrature_has_end(dpt_rule rule);

#endif
