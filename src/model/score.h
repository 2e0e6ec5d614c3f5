#ifndef DELTAPATH_SRC_MODEL_SCORE_H
#define DELTAPATH_SRC_MODEL_SCORE_H

#include "deltapath/base/rng.h"
#include "deltapath/comm/comm.h"

#include <stdint.h>

/** Predictions whose logits are spread over a group: this rank has the columns [begin, begin + v). */
typedef struct dpt_score_rows {
    int64_t n, v, begin;
    const float *logits;    /**< (n, v) */
    const int32_t *targets; /**< (n) */
    float *max;             /**< out (n): greatest logit of a row */
    double *sums;           /**< out (n): sums of exp(logit - max); after them n of scratch */
    float *top;             /**< scratch (n) where `hits` is given */
    int64_t *hits; /**< out (n): 1 where the target has the greatest logit, the lowest of equal
                                 ones counting alone, else 0; or NULL */
} dpt_score_rows;

/** Score every row. Collective over the group.
 * @param[out] nll (n) [nats], the same on all ranks; may be the scratch after the sums.
 * Errors: those of the all-reduces, on the ranks that see them. */
dpt_status dpt_score(const dpt_comm *group, const dpt_score_rows *rows, double *nll);

/** Draw the target of every row from its softmax: @p first (n) is the element of the stream that belongs to
 * column 0 of the whole row, and is used up. Leaves rows->max. Collective over the group.
 * @param[out] targets (n) the same on all ranks.
 * Errors: those of the all-reduces, on the ranks that see them.
 * Determinism: depends on the group only through the rounding of the logits. */
dpt_status dpt_score_draw(const dpt_comm *group, const dpt_score_rows *rows, dpt_rng rng,
                          int64_t *first, int32_t *targets);

#endif
