#include "signs.h"

#include "deltapath/base/log.h"

#include <math.h>
#include <stdio.h>

void dpt_signs_destroy(dpt_signs *signs) {
    dpt_law_destroy(&signs->law);
    *signs = (dpt_signs){.variance = NAN};
}

void dpt_signs_finish(dpt_signs *signs, const bool *selected) {
    dpt_law *law = &signs->law;
    dpt_law_finish(law, selected);
    double n = law->repeats, second = 0.0, fourth = 0.0;
    for (int r = 0; r < law->repeats; r++) {
        double d = law->totals[r] - law->total, square = d * d;
        second += square;
        fourth += square * square;
    }
    signs->variance = n > 1 ? second / (n - 1) : NAN;
    signs->variance_se = NAN;
    if (n > 3) {
        double v = signs->variance, of_mean = (fourth / n - v * v * (n - 3) / (n - 1)) / n;
        signs->variance_se = sqrt(fmax(of_mean, 0.0));
    }
}

double dpt_signs_spread(const dpt_signs *signs, double s, double *se) {
    *se = NAN;
    if (signs->law.mean == NULL)
        return NAN;
    double sd = sqrt(s * signs->squares + s * s * signs->variance);
    if (sd > 0.0)
        *se = s * s * signs->variance_se / (2.0 * sd);
    return sd;
}

const dpt_law *dpt_signs_choose(const dpt_law *law, const dpt_signs *signs) {
    return law->mean != NULL ? law : &signs->law;
}

bool dpt_signs_is_spread(const dpt_signs *signs, const dpt_edit_spec *spec, double *s) {
    dpt_law_prediction predicted;
    bool known = dpt_law_predict(&signs->law, spec, &predicted);
    *s = predicted.s;
    return known && spec->stages[0].tensor_values == NULL;
}

void dpt_signs_log_spread(const char *edit, const char *data, const dpt_signs *signs,
                          const dpt_edit_spec *spec) {
    double s, se, spread;
    if (!dpt_signs_is_spread(signs, spec, &s))
        return;
    spread = dpt_signs_spread(signs, s, &se);
    if (isnan(spread))
        dpt_log(DPT_LOG_INFO,
                "%s on %s: the spread over masks is not predicted: it takes `hessian.probes: 2` or "
                "more",
                edit, data);
    else
        dpt_log(DPT_LOG_INFO, "%s on %s: predicted spread over masks %.4g [nats]", edit, data,
                spread);
}

void dpt_signs_log(const char *data, const dpt_signs *signs) {
    const dpt_law *law = &signs->law;
    char text[64], from[64] = "one draw of random signs, which shows no error of it";
    if (law->mean == NULL)
        return;
    if (law->repeats > 1)
        snprintf(from, sizeof from, "%d random signs", law->repeats);
    dpt_log(DPT_LOG_INFO,
            "%s: curvature along the delta %s [nats] by the Hessian, from %s; differences at t = "
            "%g, numerical error of one %.2g",
            data, dpt_law_number(law->total, law->total_se, text), from, signs->step, signs->error);
}
