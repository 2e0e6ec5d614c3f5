#include "../stage.h"

#include "deltapath/base/mem.h"
#include "deltapath/linalg/quantile.h"

#include <math.h>
#include <string.h>

/* Magnitude pruning (TIES trim): arXiv:2410.13841 Eq. (10)-(12). Keeps exactly
 * floor(keep * numel + 0.5) entries; equal magnitudes are kept in index order. */

enum { PRUNE_KEEP, PRUNE_SCOPE };
enum { SCOPE_TENSOR, SCOPE_MODEL };

typedef struct cuts {
    dpt_cut *cut;  /* (targets) */
    int *group_of; /* (tensors) group, which is also the target; -1: not covered */
} cuts;

static void prune_destroy(dpt_edit_stage *stage) {
    cuts *c = stage->state;
    if (c == NULL)
        return;
    dpt_mem_free(c->cut);
    dpt_mem_free(c->group_of);
    dpt_mem_free(c);
}

/* Groups of the selection and how many entries each keeps; the number of groups. */
static int64_t prune_set_targets(const dpt_edit_stage *stage, cuts *c,
                                 dpt_quantile_target *targets) {
    bool model = (int)dpt_edit_value(stage->spec, PRUNE_SCOPE) == SCOPE_MODEL;
    int groups = 0;
    int64_t total = 0;
    for (int t = 0; t < stage->catalog->count; t++) {
        int64_t numel = dpt_edit_numel(stage->input, t);
        c->group_of[t] = -1;
        if (!stage->covers[t])
            continue;
        total += numel;
        double keep = dpt_edit_value_of(stage->spec, PRUNE_KEEP, t);
        c->group_of[t] = model ? 0 : groups;
        targets[c->group_of[t]].group = c->group_of[t];
        targets[c->group_of[t]].count =
            (int64_t)floor(keep * (double)(model ? total : numel) + 0.5);
        groups = model ? 1 : groups + 1;
    }
    return groups;
}

static dpt_status prune_prepare(dpt_edit_work *work, dpt_edit_stage *stage) {
    int64_t n = stage->catalog->count;
    cuts *c = dpt_mem_zalloc(1, sizeof *c, "pruning cuts");
    dpt_quantile_target *targets = dpt_mem_zalloc(n, sizeof *targets, "pruning cuts");
    stage->state = c;
    if (c != NULL) {
        c->cut = dpt_mem_zalloc(n, sizeof *c->cut, "pruning cuts");
        c->group_of = dpt_mem_zalloc(n, sizeof *c->group_of, "pruning cuts");
    }
    bool made = c != NULL && c->cut != NULL && c->group_of != NULL && targets != NULL;
    dpt_status st = dpt_agree(stage->input->comm, made ? DPT_OK : DPT_ERR_OUTPUT);
    if (st == DPT_OK) {
        int64_t groups = prune_set_targets(stage, c, targets);
        dpt_edit_view view = {.work = work, .upto = stage->index};
        const dpt_quantile_source source = dpt_edit_value_source(&view);
        st = dpt_quantile_select(stage->input->comm, stage->input->shard, NULL, c->group_of, groups,
                                 targets, &source, c->cut);
    }
    dpt_mem_free(targets);
    return st;
}

static void prune_apply(const dpt_edit_stage *stage, dpt_range range, float *delta) {
    const cuts *c = stage->state;
    const dpt_cut *cut = &c->cut[c->group_of[range.tensor]];
    /* Local form of dpt_cut_keeps: entries equal to the cut are kept while i < equal. */
    int64_t equal = range.n;
    if (range.tensor > cut->tensor)
        equal = 0;
    else if (range.tensor == cut->tensor)
        equal = cut->ig - range.ig + 1;
    equal = equal < 0 ? 0 : equal > range.n ? range.n : equal;
    for (int i = 0; i < (int)range.n; i++) {
        uint32_t bits;
        memcpy(&bits, &delta[i], sizeof bits);
        bits &= UINT32_C(0x7fffffff);
        bool keeps = bits > cut->bits || (bits == cut->bits && i < (int)equal);
        delta[i] = keeps ? delta[i] : 0.0f;
    }
}

static bool prune_fused(const dpt_edit_stage *stage, dpt_range cell, dpt_edit_fused *rule) {
    const cuts *c = stage->state;
    const dpt_cut *cut = &c->cut[c->group_of[cell.tensor]];
    int64_t last = cell.tensor < cut->tensor ? INT64_MAX : cell.tensor > cut->tensor ? -1 : cut->ig;
    *rule = (dpt_edit_fused){.rule = DPT_EDIT_RULE_CUT, .cut = cut->bits, .last_equal = last};
    return true;
}

static double prune_scale(const dpt_edit_stage *stage, int tensor) {
    const cuts *c = stage->state;
    float value;
    memcpy(&value, &c->cut[c->group_of[tensor]].bits, sizeof value);
    return (double)value;
}

/* With scope: model a tensor counts with the mean share: where places are bits, the sum is the same. */
static double prune_bytes(const dpt_edit_stage_spec *spec, const dpt_edit_packed *of) {
    double keep = isnan(of->value) ? dpt_edit_value(spec, PRUNE_KEEP) : of->value;
    return dpt_edit_sparse_bytes(of->info, floor(keep * (double)of->info->numel + 0.5));
}

static int prune_cuts(const dpt_edit_stage_spec *spec) {
    (void)spec;
    return 1;
}

static double prune_reads(const dpt_edit_stage_spec *spec) {
    (void)spec;
    return DPT_QUANTILE_READS;
}

const dpt_edit_method dpt_edit_method_prune = {
    .name = "prune",
    .help = "keep the deltas of largest magnitude and drop the others",
    .nparams = 2,
    .params = {{.name = "keep",
                .kind = DPT_PARAM_REAL,
                .required = true,
                .lower = 0.0,
                .upper = 1.0,
                .help = "share of the entries that is kept"},
               {.name = "scope",
                .kind = DPT_PARAM_CHOICE,
                .choices = "tensor|model",
                .default_value = SCOPE_TENSOR,
                .help = "share of each tensor, or of all edited tensors together"}},
    .reads = prune_reads,
    .prepare = prune_prepare,
    .cuts = prune_cuts,
    .apply = prune_apply,
    .fused = prune_fused,
    .bytes = prune_bytes,
    .scale = prune_scale,
    .destroy = prune_destroy};
