#include "../stage.h"

#include <math.h>
#include <stddef.h>

/* EXPO: arXiv:2410.13841 Eq. (13)-(15), F(Delta) = (1 + alpha) Delta. */

enum { EXPO_ALPHA, EXPO_GROUPS, EXPO_REACH };

static double expo_scale(const dpt_edit_stage *stage, int tensor) {
    return 1.0 + dpt_edit_value_of(stage->spec, EXPO_ALPHA, tensor);
}

static void expo_apply(const dpt_edit_stage *stage, dpt_range range, float *delta) {
    float factor = (float)expo_scale(stage, range.tensor);
    for (int64_t i = 0; i < range.n; i++)
        delta[i] *= factor;
}

static bool expo_fused(const dpt_edit_stage *stage, dpt_range cell, dpt_edit_fused *rule) {
    *rule = (dpt_edit_fused){.rule = DPT_EDIT_RULE_SCALE,
                             .kept = (float)expo_scale(stage, cell.tensor)};
    return true;
}

static bool expo_unit(dpt_edit_stage_spec *spec, double *factor) {
    *factor = dpt_edit_value(spec, EXPO_ALPHA);
    spec->values[EXPO_ALPHA] = 1.0;
    return true;
}

static dpt_status expo_check(const dpt_edit_stage_spec *spec) {
    if (!isnan(spec->values[EXPO_ALPHA]) && (spec->given[EXPO_GROUPS] || spec->given[EXPO_REACH]))
        return dpt_error(DPT_ERR_USAGE,
                         "expo: groups and reach say how alpha is found: they go with "
                         "alpha: auto only");
    return DPT_OK;
}

const dpt_edit_method dpt_edit_method_expo = {
    .name = "expo",
    .help = "scale every delta by 1 + alpha: extrapolate (alpha > 0) or interpolate (alpha < 0)",
    .multiple = true,
    .nparams = 3,
    .params = {{.name = "alpha",
                .kind = DPT_PARAM_REAL,
                .required = true,
                .automatic = true,
                .lower = -1e6,
                .upper = 1e6,
                .help =
                    "relative step beyond the post-trained weights; auto: to the minimum of the "
                    "loss"},
               {.name = "groups",
                .kind = DPT_PARAM_CHOICE,
                .choices = "model|layers",
                .help = "with alpha: auto, one alpha for the model or one for each layer"},
               {.name = "reach",
                .kind = DPT_PARAM_REAL,
                .default_value = 1,
                .lower = 0,
                .upper = 100,
                .help = "with alpha: auto, the largest alpha; the smallest is -1"}},
    .check = expo_check,
    .unit = expo_unit,
    .apply = expo_apply,
    .fused = expo_fused,
    .scale = expo_scale};
