#include "score.h"

#include "deltapath/nn/cross_entropy.h"

#include <stddef.h>

/* The lowest index that reaches the maximum of all ranks, as a maximum of negatives. */
static dpt_status score_find_hits(const dpt_comm *group, const dpt_score_rows *rows) {
    int64_t *best = rows->hits;
    dpt_nn_ce_argmax(rows->n, rows->v, rows->begin, rows->logits, rows->v, rows->top, best);
    for (int64_t r = 0; r < rows->n; r++)
        best[r] = best[r] >= 0 && rows->top[r] == rows->max[r] ? -best[r] : INT64_MIN;
    dpt_status st = dpt_comm_max_i64(group, best, rows->n);
    for (int64_t r = 0; r < rows->n; r++)
        rows->hits[r] = best[r] == -(int64_t)rows->targets[r];
    return st;
}

/* Times go through the all-reduce as a maximum of negatives, and so do ids. */
dpt_status dpt_score_draw(const dpt_comm *group, const dpt_score_rows *rows, dpt_rng rng,
                          int64_t *first, int32_t *targets) {
    int64_t n = rows->n, v = rows->v, *best = first;
    double *own = rows->sums, *all = rows->sums + n;
    dpt_nn_ce_row_max(n, v, rows->logits, v, rows->max);
    dpt_status st = dpt_comm_max_f32(group, rows->max, n);
    dpt_nn_ce_draw(n, v, rows->begin, rows->logits, v, rows->max, rng, first, own, best);
    for (int64_t r = 0; r < n; r++)
        all[r] = -own[r];
    st = dpt_status_worse(st, dpt_comm_max_f64(group, all, n));
    for (int64_t r = 0; r < n; r++)
        best[r] = best[r] >= 0 && own[r] == -all[r] ? -best[r] : INT64_MIN;
    st = dpt_status_worse(st, dpt_comm_max_i64(group, best, n));
    for (int64_t r = 0; r < n; r++) /* of a row of NaN, whose loss is none either, the first */
        targets[r] = best[r] != INT64_MIN ? (int32_t)-best[r] : 0;
    return st;
}

dpt_status dpt_score(const dpt_comm *group, const dpt_score_rows *rows, double *nll) {
    int64_t n = rows->n, v = rows->v;
    double *target = rows->sums + n;
    dpt_nn_ce_row_max(n, v, rows->logits, v, rows->max);
    dpt_status st = dpt_comm_max_f32(group, rows->max, n);
    dpt_nn_ce_sums(n, v, rows->begin, rows->logits, v, rows->targets, rows->max, rows->sums,
                   target);
    st = dpt_status_worse(st, dpt_comm_sum_f64(group, rows->sums, 2 * n));
    if (rows->hits != NULL)
        st = dpt_status_worse(st, score_find_hits(group, rows));
    dpt_nn_ce_loss(n, rows->max, rows->sums, target, nll);
    return st;
}
