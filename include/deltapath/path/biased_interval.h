#ifndef DELTAPATH_PATH_BIASED_INTERVAL_H
#define DELTAPATH_PATH_BIASED_INTERVAL_H

#include "deltapath/path/interval.h"

/** Half of the length of an interval around a mean that may be biased.
 *
 * Local. Computes: c with P(|T se + bias| <= c) = confidence, T of Student's distribution: the shortest interval of
 * fixed length that covers at its confidence whatever the bias is between -bias and bias; t se without one, and
 * little more than bias + a one-sided t se where it is large.   Source: Armstrong and Kolesar,
 * Econometrica 86 (2018), Sec. 2.
 * @param[in] se    standard error, at least 0. @param[in] bias  its size. @param[in] df  degrees of freedom.
 * @return NaN for what is NaN. */
double dpt_biased_reach(double se, double bias, double df, double confidence);

/** An interval of samples with what else is not known of their mean.
 *
 * Local. Computes: the standard error sqrt(se^2 + error^2); each side grows with it, so that an interval that was corrected
 * for skewness stays lopsided, and by what a bias adds to dpt_biased_reach; without spread among the samples both sides are
 * that reach.   Source: this project.
 * @param[in] sampled  with its standard error. @param[in] error  a standard error besides, independent of the samples.
 * @param[in] bias, df, confidence  as above. @return its ends NaN for what is NaN. */
dpt_interval dpt_biased_interval(const dpt_interval *sampled, double error, double bias, double df,
                                 double confidence);

#endif
