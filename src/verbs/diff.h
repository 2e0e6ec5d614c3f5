#ifndef DELTAPATH_SRC_VERBS_DIFF_H
#define DELTAPATH_SRC_VERBS_DIFF_H

/* What the computing and the printing half of `diff` share. */

#include "deltapath/base/log.h"
#include "deltapath/store/store.h"
#include "deltapath/tensor/pair.h"
#include "deltapath/tensor/part.h"
#include "deltapath/verbs/diff.h"

enum { DPT_DIFF_SUMS = 6 };

typedef struct dpt_diff {
    const dpt_comm *comm;
    dpt_store *pre;
    dpt_store *post;
    const dpt_catalog *catalog; /**< of post */
    dpt_shard shard;
    dpt_pair pair;
    dpt_parts parts;
    char *report;
    int compared;
    void *stored;                   /**< one cell as stored */
    float *a, *b;                   /**< (DPT_CELL) */
    int *group_of;                  /**< (tensors) */
    double *partial[DPT_DIFF_SUMS]; /**< (cells) */
    double *totals[DPT_DIFF_SUMS];  /**< (tensors) */
    dpt_diff_row *rows;             /**< (tensors) */
} dpt_diff;

/** Whether a table may be written to `path`: nothing is there, or a table of an earlier diff. Local.
 * Errors: DPT_ERR_OUTPUT naming the file. */
dpt_status dpt_diff_check_csv(const dpt_diff_options *options);

/** Table on the stream, and as a whole CSV file. Local (rank 0). */
dpt_status dpt_diff_print(const dpt_diff *d, const dpt_diff_options *options);

#endif
