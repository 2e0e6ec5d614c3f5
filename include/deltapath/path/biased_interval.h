#ifndef DELTAPATH_PATH_BIASED_INTERVAL_H
#define DELTAPATH_PATH_BIASED_INTERVAL_H

#include "deltapath/path/interval.h"

/** An interval of samples with what else is not known of their mean, which may be biased.
 *
 * Local. Computes: the standard error sqrt(se^2 + error^2); each side grows with it, so that an interval that was corrected
 * for skewness stays lopsided, and by what a bias adds to the half length c with P(|T se + bias| <= c) = confidence, T of
 * Student's distribution: the shortest interval of fixed length that covers at its confidence whatever the bias is between
 * -bias and bias; little more than bias + a one-sided t se where it is large. Without spread among the samples both sides
 * are c.   Source: Armstrong and Kolesar, Econometrica 86 (2018), Sec. 2; the sides: this project.
 * @param[in] sampled  at the same confidence. @param[in] error  a standard error besides, independent of the samples.
 * @param[in] bias  its size. @param[in] df  degrees of freedom. @return its ends NaN for what is NaN. */
dpt_interval dpt_biased_interval(const dpt_interval *sampled, double error, double bias, double df,
                                 double confidence);

#endif
