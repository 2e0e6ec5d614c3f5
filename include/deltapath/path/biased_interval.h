#ifndef DELTAPATH_PATH_BIASED_INTERVAL_H
#define DELTAPATH_PATH_BIASED_INTERVAL_H

/** Half of the length of an interval around a mean that may be biased.
 *
 * Local. Computes: c with P(|T se + bias| <= c) = confidence, T of Student's distribution: the shortest interval of
 * fixed length that covers at its confidence whatever the bias is between -bias and bias; t se without one, and
 * little more than bias + a one-sided t se where it is large.   Source: Armstrong and Kolesar,
 * Econometrica 86 (2018), Sec. 2.
 * @param[in] se    standard error, at least 0. @param[in] bias  its size. @param[in] df  degrees of freedom.
 * @return NaN for what is NaN. */
double dpt_biased_reach(double se, double bias, double df, double confidence);

#endif
