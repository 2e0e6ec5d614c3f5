#ifndef DELTAPATH_PATH_CROSSED_H
#define DELTAPATH_PATH_CROSSED_H

#include <stdint.h>

/** Seeds from which their effects show a shape: fewer have an interval that may cover less than it says. */
#define DPT_CROSSED_SEEDS 3

/** Mean over seeds and samples that are crossed: every seed has met every sample. */
typedef struct dpt_crossed {
    double mean;
    double se; /**< standard error of the mean as that of other seeds and other samples */
    double
        df; /**< degrees of freedom for which Student's quantile gives the interval of effects without skewness */
    double low;  /**< that, mean - t_df se, corrected for skewness */
    double high; /**< likewise mean + t_df se */
} dpt_crossed;

/** Interval of the mean over a population of seeds and one of samples.
 *
 * Local. Computes: mean squares of the two-way layout with random effects and one value a cell, with S
 * seeds and n samples: seed, sample, residual (their interaction). Var(mean) is
 *   V = (MS_seed + max(MS_sample - MS_residual, 0)) / (S n),
 * unbiased but for the bound: MS_sample below MS_residual is chance, an effect of the samples of negative
 * variance. V is never below that of the seeds alone, MS_seed / (S n). The interval is Howe's:
 *   half^2 = t_{S-1}^2 MS_seed / (S n) + t_{n-1}^2 max(MS_sample - MS_residual, 0) / (S n),
 * exact where one of the parts is all there is, less 1.6 / S times the product of their roots, without which two seeds cover
 * too much, but never less than either part. Of two seeds, in place of t_1 it is confidence / (1 - confidence), which holds
 * for every symmetric distribution with one peak, and half is the longer of the two parts. Satterthwaite's degrees of
 * freedom are too many wherever few seeds come out alike by chance.
 * Each side has the quantiles that Hall's transform gives for the skewness of the means of seeds and of samples.
 * How often it covers: doc/equations.md, Coverage.
 *   Source: Howe, J. Am. Stat. Assoc. 69 (1974) 789; Searle et al., Variance Components (1992), chapter 4.
 * @param[in] effective  samples that weights, repeats and clusters leave in effect (dpt_paired_options); NaN: all.
 * @param[in] x          (seeds, samples) row-major.
 * @param[in] confidence e.g. 0.95.
 * @return all NaN with less than two seeds or samples, or a value that is not finite. Values that are all
 *   alike give an interval of no width, with df NaN.
 * Determinism: sums in index order, in double.
 */
dpt_crossed dpt_crossed_interval(int64_t seeds, int64_t samples, double effective, const double *x,
                                 double confidence);

#endif
