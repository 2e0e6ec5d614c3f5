#ifndef DELTAPATH_BASE_STUDENT_H
#define DELTAPATH_BASE_STUDENT_H

/** P(T <= t) for Student's t with df > 0 degrees of freedom; NaN for a NaN or df <= 0. Local.
 * Computes: the regularised incomplete beta function by its continued fraction (modified Lentz). */
double dpt_student_cdf(double t, double df);

/** P(T > t), without the cancellation of 1 - cdf. Local. */
double dpt_student_upper(double t, double df);

/** t with P(T <= t) = p; -inf at 0 and inf at 1; NaN outside [0, 1] or for df <= 0. Local.
 * Computes: bisection on the distribution function to the last bits. */
double dpt_student_quantile(double p, double df);

/** P(X <= k) of the binomial distribution of n trials with probability p, by the incomplete beta function: k from 0,
 * and n, need not be integers. Local. */
double dpt_student_binomial(double k, double n, double p);

#endif
