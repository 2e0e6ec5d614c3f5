#ifndef DELTAPATH_PATH_ACCURACY_H
#define DELTAPATH_PATH_ACCURACY_H

#include "deltapath/path/weighted.h"

/** How two models differ on the same samples. */
typedef struct dpt_accuracy_pairs {
    double lost;    /**< share of samples that only the first model has right */
    double won;     /**< share that only the second has right */
    double samples; /**< independent samples that would know as much as these */
    double df;      /**< degrees of freedom of that number; infinite where it is known */
} dpt_accuracy_pairs;

/** A change of the accuracy. */
typedef struct dpt_accuracy {
    double change;    /**< accuracy of the second model less that of the first [share] */
    double low, high; /**< its interval */
    double p;         /**< one-sided: of a fall by the margin or more; NaN without a margin */
    double
        enough; /**< times as many samples with the same shares would show that the fall is less than the
                           margin; at most 1 where these do, infinite where none would */
} dpt_accuracy;

/** Count.
 *
 * Local. Weights count as known numbers: samples are (sum w)^2 / sum w^2, `effective`. Clusters take as many
 * as their design effect says, the variance of the mean over clusters over that of independent samples, and never
 * more than the samples or fewer than the clusters in effect; where nothing differs there is no variance, and each
 * cluster counts as one sample.   Source: Rao and Scott, Biometrics 48 (1992) 577.
 * @param[in] first, second (samples of weighted) 1 where that model is right, else 0.
 * @param[in] effective     of the samples with weight and repeats but without clusters; NaN: all of them.
 * Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_accuracy_count(const dpt_weighted *weighted, double effective, const double *first,
                              const double *second, dpt_accuracy_pairs *out);

/** Judge a change of the accuracy.
 *
 * Local. Computes: Tango's score interval of the difference of paired proportions, and the score test that the
 * second model's accuracy is lower by `margin` or more: it needs no sample on which the models differ. Its p is not
 * below the binomial one of a fall without any gain, which is exact.
 *   Source: Tango, Statistics in Medicine 17 (1998) 891.
 * @param[in] margin     share above 0; NaN: no test.
 * @param[in] confidence of the interval. @param[in] alpha level of the test, for `enough`. */
dpt_accuracy dpt_accuracy_judge(const dpt_accuracy_pairs *pairs, double margin, double confidence,
                                double alpha);

#endif
