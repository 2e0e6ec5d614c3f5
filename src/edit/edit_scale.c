#include "stage.h"

/* EXPO: arXiv:2410.13841 Eq. (13)-(15), F(Delta) = (1 + alpha) Delta. */

enum { EXPO_ALPHA };

static double expo_scale(const dpt_edit_stage *stage, int tensor) {
    (void)tensor;
    return 1.0 + dpt_edit_value(stage->spec, EXPO_ALPHA);
}

static void expo_apply(const dpt_edit_stage *stage, dpt_range range, float *delta) {
    float factor = (float)expo_scale(stage, range.tensor);
    for (int64_t i = 0; i < range.n; i++)
        delta[i] *= factor;
}

const dpt_edit_method dpt_edit_method_expo = {
    .name = "expo",
    .class_name = "improved",
    .help = "scale every delta by 1 + alpha: extrapolate (alpha > 0) or interpolate (alpha < 0)",
    .nparams = 1,
    .params = {{.name = "alpha",
                .kind = DPT_PARAM_REAL,
                .required = true,
                .least = -1e6,
                .most = 1e6,
                .help = "relative step beyond the post-trained weights"}},
    .apply = expo_apply,
    .scale = expo_scale};
