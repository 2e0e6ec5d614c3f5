#ifndef DELTAPATH_SRC_STUDY_SIGNS_H
#define DELTAPATH_SRC_STUDY_SIGNS_H

#include "law.h"

/** What directions E_i = z_i Delta_i with random signs z say of the Hessian along the delta (doc/science.md): with A = H/2
 * and D = diag(Delta), z^T D A D z has the mean c = 1/2 sum Delta_i^2 H_ii over z, tensor by tensor, and the variance
 * 2 |off-diagonal(D A D)|_F^2, the part of the spread over masks that is of second order. */
typedef struct dpt_signs {
    dpt_law law;                  /**< its draws are z^T D H D z; mean and error those of c */
    double variance, variance_se; /**< of z^T D A D z [nats^2]; NaN of one */
    double squares;               /**< sum (g_i Delta_i)^2 [nats^2] */
    double step, error; /**< of the differences, and numerical error of the first z^T D A D z */
} dpt_signs;

void dpt_signs_destroy(dpt_signs *signs); /**< Local; an empty one is allowed. */

/** Means and variance over the draws. Local. @param[in] selected as dpt_law_finish. */
void dpt_signs_finish(dpt_signs *signs, const bool *selected);

/** Whether an edit has a spread that is known: the signs are measured, and it is one of the law with one p. Local.
 * @param[out] s of it. */
bool dpt_signs_is_spread(const dpt_signs *signs, const dpt_edit_spec *spec, double *s);

/** Standard deviation of the change over masks of the variance s, to second order: the root of
 * s sum (g_i Delta_i)^2 + 2 s^2 |off-diagonal(D A D)|_F^2. Local.
 * @param[out] se its standard error over the signs. @return NaN when it is not measured. */
double dpt_signs_spread(const dpt_signs *signs, double s, double *se);

/** The measurement of c that predictions take: that of drawn labels, else that of signs. Local. */
const dpt_law *dpt_signs_choose(const dpt_law *law, const dpt_signs *signs);

/** Say what was measured, and what spread is predicted; nothing without it. Local. */
void dpt_signs_log(const char *data, const dpt_signs *signs);
void dpt_signs_log_spread(const char *edit, const char *data, const dpt_signs *signs,
                          const dpt_edit_spec *spec);

#endif
