#ifndef DELTAPATH_PATH_INTERVAL_H
#define DELTAPATH_PATH_INTERVAL_H

#include <stdint.h>

/** Mean of samples with its confidence interval. */
typedef struct dpt_interval {
    int64_t n;
    double mean;
    double se;   /**< standard error of the mean; NaN for n < 2 */
    double low;  /**< lower end of the interval, Student's or of resamples; NaN for n < 2 */
    double high; /**< its upper end */
} dpt_interval;

/** Degrees of freedom of a variance over n samples that repeats, weights and clusters leave `effective` of; NaN:
 * all. Local. */
double dpt_interval_freedom(int64_t n, double effective);

/** Skewness of a - b, sample by sample: third moment over the standard deviation cubed; NaN without spread.
 * Local. @param[in] a (n). @param[in] b (n), or NULL: zeros. */
double dpt_interval_skew(int64_t n, const double *a, const double *b);

/** Student's interval of the mean of a - b, sample by sample.
 *
 * Local. Computes: mean +- t_{(1 + confidence) / 2, n - 1} s / sqrt(n).
 * @param[in] a          (n). @param[in] b (n), or NULL: zeros.
 * @param[in] confidence e.g. 0.95.
 * A sample that is not finite makes mean NaN or infinite and the rest NaN. Equal samples give an
 * interval of no width.
 * Determinism: two passes over the samples in order, in double.
 */
dpt_interval dpt_interval_student(int64_t n, const double *a, const double *b, double confidence);

#endif
