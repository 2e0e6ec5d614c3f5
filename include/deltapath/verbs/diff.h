#ifndef DELTAPATH_VERBS_DIFF_H
#define DELTAPATH_VERBS_DIFF_H

#include "deltapath/comm/comm.h"

#include <stdbool.h>
#include <stdio.h>

typedef struct dpt_diff_options {
    const char *pre;
    const char *post;
    const char *csv; /**< file for the table with all digits, or NULL */
    bool overwrite;  /**< replace a table of this kind that is there */
    int iterations;  /**< Lanczos steps of the spectral norm; 0: 20; negative: leave it out */
    FILE *out;       /**< NULL: standard output */
} dpt_diff_options;

enum { DPT_DIFF_QUANTILES = 5 }; /**< of |delta|: 10, 50, 90, 99, 100 % */

/** What two models differ by in one tensor; delta = post - pre in fp32. */
typedef struct dpt_diff_row {
    double pre, post, delta; /**< Frobenius norms */
    double mean;             /**< mean of |delta| */
    double zeros;            /**< share of entries with delta == 0 */
    double cosine;           /**< of pre and post; NaN when one is zero */
    double
        spectral; /**< largest singular value of delta, of several matrices the largest; NaN: left out */
    double quantiles[DPT_DIFF_QUANTILES]; /**< nearest rank */
} dpt_diff_row;

/** Compare two models tensor by tensor: a table on standard output, and a CSV file.
 *
 * Tensors that are in one model only, differ in shape or are of a type that deltapath does not
 * compute with are listed and left out. Rank 0 prints.
 * Collective over comm (same: options).
 * Errors: DPT_ERR_INPUT naming tensor and index of a NaN or an infinity; those of dpt_store_open;
 * DPT_ERR_OUTPUT for the CSV file.
 * Determinism: all columns but the spectral norm have the same bits at any number of ranks.
 */
dpt_status dpt_diff_run(const dpt_comm *comm, const dpt_diff_options *options);

#endif
