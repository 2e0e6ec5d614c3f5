#ifndef DELTAPATH_PATH_QUADRATURE_H
#define DELTAPATH_PATH_QUADRATURE_H

#include "deltapath/base/status.h"

#include <stdbool.h>

enum {
    DPT_QUADRATURE_MAX = 1024,    /**< most points of a rule */
    DPT_QUADRATURE_GAUSS_MAX = 64 /**< most points of the Gauss-Legendre rule */
};

/** How the integral over t in [0, 1] is sampled: X(constant, name in a job file).
 *   left       t = c / C, the rule of arXiv:2410.13841; order 1
 *   midpoint   t = (c + 1/2) / C; order 2
 *   trapezoid  t = c / (C - 1), C >= 2; order 2
 *   simpson    t = c / (C - 1), C odd and >= 3; order 4
 *   gauss      Gauss-Legendre, C <= 64; exact to degree 2 C - 1 */
#define DPT_RULE_LIST(X)                                                                           \
    X(LEFT, left) X(MIDPOINT, midpoint) X(TRAPEZOID, trapezoid) X(SIMPSON, simpson) X(GAUSS, gauss)

#define DPT_RULE_CONSTANT(constant, name) DPT_RULE_##constant,
typedef enum dpt_rule { DPT_RULE_LIST(DPT_RULE_CONSTANT) DPT_RULE_COUNT } dpt_rule;

/** "left|midpoint|...", in the order of the constants. */
#define DPT_RULE_CHOICE(constant, name) "|" #name
#define DPT_RULE_NAMES                  (&(DPT_RULE_LIST(DPT_RULE_CHOICE))[1])

/** Nodes in rising order and their weights, whose sum is 1. */
typedef struct dpt_quadrature {
    dpt_rule rule;
    int points;
    double node[DPT_QUADRATURE_MAX];
    double weight[DPT_QUADRATURE_MAX];
} dpt_quadrature;

/** Name of a rule as in a job file. Local. */
const char *dpt_quadrature_name(dpt_rule rule);

/** Whether a rule can have that many points. Local.
 * Errors: DPT_ERR_USAGE saying which counts the rule takes. */
dpt_status dpt_quadrature_check(dpt_rule rule, int points);

/** Nodes and weights of a rule on [0, 1].
 *
 * Local. Computes: Gauss-Legendre nodes as the roots of the Legendre polynomial by Newton's method
 * from Chebyshev-like starts; the others in closed form.
 * @param[in] points  function evaluations.
 * Errors: DPT_ERR_USAGE as dpt_quadrature_check; out undefined.
 * Determinism: depends on its arguments alone.
 */
dpt_status dpt_quadrature_create(dpt_rule rule, int points, dpt_quadrature *out);

/** Whether the rule evaluates t = 0 (left, trapezoid, simpson), or t = 1 (the latter two). Local. */
bool dpt_quadrature_has_start(dpt_rule rule);
bool dpt_quadrature_has_end(dpt_rule rule);

#endif
