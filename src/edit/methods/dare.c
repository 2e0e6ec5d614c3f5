#include "../random_drop.h"

#include "deltapath/base/mem.h"

#include <math.h>

/* Random dropping with rescaling: arXiv:2410.13841 Eq. (2)-(3), and section 4.2 (DARE with k). */

enum { DARE_P, DARE_K, DARE_RESCALE };
enum { RESCALE_EXACT, RESCALE_L1, RESCALE_NONE };

/* Sums of |delta| over all and over the kept deltas of a piece. */
static void dare_kept_sums(const dpt_edit_stage *stage, const dpt_edit_strip *strip,
                           const float *delta, double *sums) {
    const dpt_random_drop *f = stage->state;
    dpt_range range = {.tensor = strip->tensor, .ig = strip->ig, .n = strip->n};
    dpt_random_drop_piece mask;
    dpt_random_drop_draw(stage, range, f->threshold[range.tensor], &mask);
    sums[0] = sums[1] = 0.0;
    for (int64_t i = 0; i < range.n; i++) {
        double size = fabs((double)delta[i]);
        sums[0] += size;
        sums[1] += dpt_rng_mask_bit(mask.bits, i) ? 0.0 : size;
    }
}

static dpt_status dare_prepare(dpt_edit_work *work, dpt_edit_stage *stage) {
    double k = dpt_edit_value(stage->spec, DARE_K);
    int rescale = (int)dpt_edit_value(stage->spec, DARE_RESCALE);
    dpt_random_drop *f = dpt_random_drop_create(stage, DARE_P);
    dpt_status st = dpt_agree(stage->input->comm, f != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    if (st != DPT_OK)
        return st;
    f->dropped = (float)k;
    double *totals = NULL;
    if (rescale == RESCALE_L1) {
        st = dpt_edit_sums(work, stage, DPT_EDIT_OVER_TENSORS, 2, dare_kept_sums, &totals);
        if (st != DPT_OK)
            return st;
    }
    for (int t = 0; t < stage->catalog->count; t++) {
        double p = stage->covers[t] ? dpt_edit_value_of(stage->spec, DARE_P, t) : 0.0;
        f->scale[t] = rescale == RESCALE_EXACT ? (1.0 - k * p) / (1.0 - p) : 1.0;
        if (rescale == RESCALE_L1 && totals[2 * t + 1] > 0.0)
            f->scale[t] = totals[2 * t] / totals[2 * t + 1];
        f->kept[t] = (float)f->scale[t];
    }
    dpt_mem_free(totals);
    return DPT_OK;
}

static dpt_status dare_check(const dpt_edit_stage_spec *spec) {
    if ((int)dpt_edit_value(spec, DARE_RESCALE) == RESCALE_L1 &&
        dpt_edit_value(spec, DARE_K) != 0.0)
        return dpt_error(DPT_ERR_USAGE, "dare: k: rescale l1 is defined for k = 0 only: set k to 0 "
                                        "or rescale to exact");
    return dpt_random_drop_check("dare", dpt_edit_value(spec, DARE_P));
}

/* With k = 1 the dropped set is kept, and the others are not rescaled. */
static bool dare_draws(const dpt_edit_stage_spec *spec) {
    return dpt_edit_value(spec, DARE_P) > 0.0 && dpt_edit_value(spec, DARE_K) != 1.0;
}

static void dare_rewrite(dpt_edit_stage_spec *spec) {
    if ((int)dpt_edit_value(spec, DARE_RESCALE) == RESCALE_NONE &&
        dpt_edit_value(spec, DARE_K) == 0.0)
        dpt_edit_stage_become(spec, "drop", "p", dpt_edit_value(spec, DARE_P));
}

/* E is k - 1 times Delta where it is dropped, and (1 - k) p / (1 - p) times it, or nothing, elsewhere. */
static bool dare_unit(dpt_edit_stage_spec *spec, double *factor) {
    *factor = 1.0 - dpt_edit_value(spec, DARE_K);
    spec->values[DARE_K] = 0.0;
    return (int)dpt_edit_value(spec, DARE_RESCALE) != RESCALE_L1 &&
           dpt_edit_value(spec, DARE_P) > 0.0;
}

static double dare_bytes(const dpt_edit_stage_spec *spec, const dpt_edit_packed *of) {
    double p = isnan(of->value) ? dpt_edit_value(spec, DARE_P) : of->value;
    if (dpt_edit_value(spec, DARE_K) != 0.0)
        return dpt_edit_dense_bytes(of->info);
    return dpt_edit_sparse_bytes(of->info, floor((1.0 - p) * (double)of->info->numel + 0.5));
}

static double dare_reads(const dpt_edit_stage_spec *spec) {
    return (int)dpt_edit_value(spec, DARE_RESCALE) == RESCALE_L1 ? 1.0 : 0.0;
}

const dpt_edit_method dpt_edit_method_dare = {
    .name = "dare",
    .help = "drop deltas at random, or scale them by k, and rescale the others to keep the mean",
    .random = true,
    .nparams = 3,
    .params = {{.name = "p",
                .kind = DPT_PARAM_REAL,
                .required = true,
                .lower = 0.0,
                .upper = 1.0,
                .upper_open = true,
                .help = "share of the deltas that is dropped; p = 1 would keep none: use a p below "
                        "1, or drop"},
               {.name = "k",
                .kind = DPT_PARAM_REAL,
                .default_value = 0.0,
                .lower = -1e6,
                .upper = 1e6,
                .help = "factor of the dropped set; 0 is DARE, 1 the identity"},
               {.name = "rescale",
                .kind = DPT_PARAM_CHOICE,
                .choices = "exact|l1|none",
                .default_value = RESCALE_EXACT,
                .help = "kept deltas times (1 - k p) / (1 - p), by the ratio of L1 norms, or as "
                        "they are"}},
    .check = dare_check,
    .draws = dare_draws,
    .rewrite = dare_rewrite,
    .unit = dare_unit,
    .reads = dare_reads,
    .prepare = dare_prepare,
    .apply = dpt_random_drop_apply,
    .fused = dpt_random_drop_fused,
    .mask = dpt_random_drop_mask,
    .bytes = dare_bytes,
    .scale = dpt_random_drop_scale,
    .destroy = dpt_random_drop_destroy};
