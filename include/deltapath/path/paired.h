#ifndef DELTAPATH_PATH_PAIRED_H
#define DELTAPATH_PATH_PAIRED_H

#include "deltapath/path/bootstrap.h"
#include "deltapath/path/interval.h"

#include <stdbool.h>
#include <stdint.h>

/** Which intervals of a mean are taken. */
typedef enum dpt_paired_rule {
    DPT_PAIRED_AUTO,     /**< Student's of Hall's transform, which corrects for skewness */
    DPT_PAIRED_T,        /**< Student's */
    DPT_PAIRED_BOOTSTRAP /**< BCa */
} dpt_paired_rule;

/* Samples are few for their skewness below DPT_PAIRED_TAIL times its square, and below DPT_PAIRED_SMALL samples below
 * twice that: some sets of so few have not met the tail, and nothing in them shows it. Then an end on its side is taken
 * DPT_PAIRED_REACH times as far away where a verdict rests on that end alone. */
enum { DPT_PAIRED_TAIL = 16, DPT_PAIRED_SMALL = 24, DPT_PAIRED_REACH = 3 };

/* Samples of which an interval may cover less than it says: fewer, in effect, than DPT_PAIRED_LEAST plus DPT_PAIRED_SLOPE
 * times the square of their skewness. */
enum { DPT_PAIRED_LEAST = 28, DPT_PAIRED_SLOPE = 25 };

/** How intervals of a mean are made. */
typedef struct dpt_paired_options {
    double
        effective; /**< number of independent samples that repeats, weights and clusters leave in effect; NaN: n
                           of them. Intervals and tests have one degree of freedom less, and below n / 2 no
                           resamples judge: those of many samples do not know that few have the weight */
    dpt_paired_rule rule;
    const dpt_bootstrap *source; /**< of resamples; NULL: there are none. Borrowed. */
} dpt_paired_options;

/** The mean of a - b with all its intervals at once: one distribution gives ends and p values. Owned. */
typedef struct dpt_paired {
    int64_t n;
    double mean;
    double se;   /**< standard error of the mean; NaN for n < 2 or where a sample is not finite */
    double df;   /**< degrees of freedom of Student's distribution */
    double skew; /**< of the samples; NaN without spread */
    bool corrected; /**< Student's distribution is that of Hall's transform of the statistic */
    bool resampled; /**< `draws` give the intervals */
    bool few;       /**< few samples for their skewness, by DPT_PAIRED_AUTO */
    double
        enough; /**< samples in effect, at this skewness, from which the interval is known to cover as it
                         says; NaN without spread. Source: Sugden, Smith and Jones, J. R. Stat. Soc. B 62 (2000) 787 */
    dpt_bootstrap_draws draws;
} dpt_paired;

/** Take the differences of paired samples. Local.
 * @param[in] a (n). @param[in] b (n), or NULL: zeros.
 * Errors: DPT_ERR_OUTPUT without memory; out is empty.
 * Determinism: samples in order, in double; resamples by their source alone. */
dpt_status dpt_paired_create(int64_t n, const double *a, const double *b,
                             const dpt_paired_options *options, dpt_paired *out);
void dpt_paired_destroy(dpt_paired *paired); /**< Local; an empty one is allowed. */

/** The end of the one-sided interval that errs with probability `level` from below; it rises with the level.
 * NaN without a standard error. Local. */
double dpt_paired_end(const dpt_paired *paired, double level);

/** p of the one-sided tests that the mean is at most, and at least, `value`. Without spread among the samples
 * the statistic is infinite, or 0 / 0 on the border, where the hypothesis holds exactly and its p is 1. Local. */
double dpt_paired_p_above(const dpt_paired *paired, double value);
double dpt_paired_p_below(const dpt_paired *paired, double value);

/** The same one-sided tests and ends where a verdict rests on that end alone: on the side of the long tail of samples
 * that are few for it DPT_PAIRED_REACH times as far from the mean. Local. */
double dpt_paired_safe_end(const dpt_paired *paired, double level);
double dpt_paired_safe_p_above(const dpt_paired *paired, double value);
double dpt_paired_safe_p_below(const dpt_paired *paired, double value);

/** Both ends at a confidence, e.g. 0.95. Local. */
dpt_interval dpt_paired_interval(const dpt_paired *paired, double confidence);

/** Interval of a ratio of paired means, mean(d) / mean(g), where both are measured on the same samples.
 *
 * Local. Computes: the ratios rho at which the mean of d - rho g is not told from 0. With Student's
 * distribution that is Fieller's interval, with Hall's transform the same by bisection.
 *   Source: Fieller, J. R. Stat. Soc. B 16 (1954) 175.
 * @param[out] low, high NaN where there is none: the mean of g cannot be told from 0, or no spread is known. */
void dpt_paired_ratio(int64_t n, const double *d, const double *g,
                      const dpt_paired_options *options, double confidence, double *low,
                      double *high);

#endif
