#include "group.h"

#include <math.h>

/* How many triplets low rank keeps, and of which decomposition: edits of a sweep share the one that keeps the most. */

/* The one of rank, sparsity and energy that is given. */
static int lowrank_kind(const dpt_edit_stage_spec *spec) {
    int kind = DPT_LOWRANK_RANK;
    while (kind < DPT_LOWRANK_ENERGY && !spec->given[kind])
        kind++;
    return kind;
}

static int64_t lowrank_rank_by(int kind, double value, int64_t rows, int64_t cols) {
    double minimum = (double)(rows < cols ? rows : cols);
    if (kind == DPT_LOWRANK_RANK)
        return (int64_t)value;
    /* 1 - 0.9 is a little less than 0.1: without the allowance 64 of 640 would become 63. */
    return kind == DPT_LOWRANK_SPARSITY ? (int64_t)floor((1.0 - value) * minimum + 1e-9) : 0;
}

int64_t dpt_edit_lowrank_rank(const dpt_edit_stage_spec *spec, int64_t rows, int64_t cols) {
    int kind = lowrank_kind(spec);
    return lowrank_rank_by(kind, dpt_edit_value(spec, kind), rows, cols);
}

int64_t dpt_edit_lowrank_decomposed(const dpt_edit_stage_spec *spec, int64_t rows, int64_t cols) {
    if (!spec->cut)
        return dpt_edit_lowrank_rank(spec, rows, cols);
    int64_t rank = lowrank_rank_by(lowrank_kind(spec), spec->cut_from, rows, cols);
    int64_t limit = rows < cols ? rows : cols; /* the edit that has that value is refused */
    return rank < limit ? rank : limit;
}

/* The stage of an edit whose decomposition others can share: its one low rank, after stages that take no gradient, which
 * may be that of other data. -1: there is none. */
static int lowrank_shared_stage(const dpt_edit_spec *spec) {
    int found = -1;
    bool gradient = false;
    for (int s = 0; s < spec->nstages; s++) {
        const dpt_edit_method *method = dpt_edit_method_get(spec->stages[s].method);
        if (method == &dpt_edit_method_lowrank) {
            if (found >= 0)
                return -1;
            found = s;
        } else if (found < 0 && method->gradient != NULL) {
            gradient = gradient || method->gradient(&spec->stages[s]);
        }
    }
    return gradient ? -1 : found;
}

void dpt_edit_share_decompositions(int count, dpt_edit_spec *const *specs) {
    double low = INFINITY, high = -INFINITY;
    int kind = DPT_LOWRANK_RANK;
    for (int i = 0; i < count; i++) {
        int s = lowrank_shared_stage(specs[i]);
        if (s < 0)
            continue;
        kind = lowrank_kind(&specs[i]->stages[s]);
        low = fmin(low, dpt_edit_value(&specs[i]->stages[s], kind));
        high = fmax(high, dpt_edit_value(&specs[i]->stages[s], kind));
    }
    for (int i = 0; i < count && low < high; i++) {
        int s = lowrank_shared_stage(specs[i]);
        if (s < 0)
            continue;
        specs[i]->stages[s].cut = true;
        specs[i]->stages[s].cut_from = kind == DPT_LOWRANK_SPARSITY ? low : high;
    }
}

double dpt_edit_cut_from(const dpt_edit_spec *spec) {
    for (int s = 0; s < spec->nstages; s++) {
        const dpt_edit_stage_spec *stage = &spec->stages[s];
        if (stage->cut && dpt_edit_value(stage, lowrank_kind(stage)) != stage->cut_from)
            return stage->cut_from;
    }
    return NAN;
}

dpt_svd_method dpt_edit_lowrank_svd(const dpt_edit_stage_spec *spec) {
    return (dpt_svd_method)(int)dpt_edit_value(spec, DPT_LOWRANK_SVD);
}
