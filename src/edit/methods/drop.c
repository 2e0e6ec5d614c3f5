#include "../random_drop.h"

#include <math.h>

/* Random dropping alone: arXiv:2410.13841 Fig. 3. */

enum { DROP_P };

static dpt_status drop_prepare(dpt_edit_work *work, dpt_edit_stage *stage) {
    (void)work;
    dpt_random_drop *f = dpt_random_drop_create(stage, DROP_P);
    dpt_status st = dpt_agree(stage->input->comm, f != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    if (st != DPT_OK)
        return st;
    for (int t = 0; t < stage->catalog->count; t++) {
        f->scale[t] = 1.0;
        f->kept[t] = 1.0f;
    }
    return DPT_OK;
}

static dpt_status drop_check(const dpt_edit_stage_spec *spec) {
    return dpt_random_drop_check("drop", dpt_edit_value(spec, DROP_P));
}

static bool drop_draws(const dpt_edit_stage_spec *spec) {
    double p = dpt_edit_value(spec, DROP_P);
    return p > 0.0 && p < 1.0;
}

/* As dare without rescaling at k = 0. */
static bool drop_unit(dpt_edit_stage_spec *spec, double *factor) {
    *factor = 1.0;
    return dpt_edit_value(spec, DROP_P) > 0.0;
}

static double drop_bytes(const dpt_edit_stage_spec *spec, const dpt_edit_packed *of) {
    double p = isnan(of->value) ? dpt_edit_value(spec, DROP_P) : of->value;
    return dpt_edit_sparse_bytes(of->info, floor((1.0 - p) * (double)of->info->numel + 0.5));
}

const dpt_edit_method dpt_edit_method_drop = {
    .name = "drop",
    .help = "drop deltas at random and leave the others as they are",
    .random = true,
    .nparams = 1,
    .params = {{.name = "p",
                .kind = DPT_PARAM_REAL,
                .required = true,
                .lower = 0.0,
                .upper = 1.0,
                .help = "share of the deltas that is dropped"}},
    .check = drop_check,
    .draws = drop_draws,
    .unit = drop_unit,
    .prepare = drop_prepare,
    .apply = dpt_random_drop_apply,
    .fused = dpt_random_drop_fused,
    .mask = dpt_random_drop_mask,
    .bytes = drop_bytes,
    .scale = dpt_random_drop_scale,
    .destroy = dpt_random_drop_destroy};
