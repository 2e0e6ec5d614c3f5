#include "stage.h"

#include <math.h>
#include <stddef.h>

static dpt_status check_stage(const dpt_edit_stage_spec *spec, const dpt_edit_input *input) {
    const dpt_edit_method *method = dpt_edit_method_get(spec->method);
    const dpt_catalog *post = input->post.catalog;
    dpt_status st = DPT_OK;
    for (int t = 0; method->fits != NULL && t < post->count && st == DPT_OK; t++) {
        if (dpt_edit_covers(spec, input, t))
            st = method->fits(spec, input, t);
    }
    return st;
}

bool dpt_edit_covers_any(const dpt_edit_spec *spec, const dpt_edit_input *input) {
    for (int s = 0; s < spec->nstages; s++)
        for (int t = 0; t < input->post.catalog->count; t++)
            if (dpt_edit_covers(&spec->stages[s], input, t))
                return true;
    return false;
}

dpt_status dpt_edit_check(const dpt_edit_spec *spec, const dpt_edit_input *input) {
    dpt_status st = DPT_OK;
    for (int s = 0; s < spec->nstages && st == DPT_OK; s++)
        st = check_stage(&spec->stages[s], input);
    return st;
}

static bool stage_is_random(const dpt_edit_stage_spec *spec) {
    const dpt_edit_method *method = dpt_edit_method_get(spec->method);
    return method->random && (method->draws == NULL || method->draws(spec));
}

/* Random SVDs draw too. */
static bool stage_draws(const dpt_edit_stage_spec *spec) {
    return dpt_edit_method_get(spec->method)->whole || stage_is_random(spec);
}

/* The one way in which a stage is compared. */
static dpt_edit_stage_spec stage_rewritten(const dpt_edit_stage_spec *spec) {
    dpt_edit_stage_spec out = *spec;
    if (dpt_edit_method_get(spec->method)->rewrite != NULL)
        dpt_edit_method_get(spec->method)->rewrite(&out);
    return out;
}

bool dpt_edit_is_random(const dpt_edit_spec *spec) {
    bool is_random = false;
    for (int s = 0; s < spec->nstages; s++) {
        dpt_edit_stage_spec stage = stage_rewritten(&spec->stages[s]);
        is_random = is_random || stage_is_random(&stage);
    }
    return is_random;
}

/* NaN, which is a value that is sought, comes first. */
static int compare_values(double a, double b) {
    if (isnan(a) || isnan(b))
        return (int)isnan(b) - (int)isnan(a);
    return (a > b) - (a < b);
}

static int compare_stages(const dpt_edit_stage_spec *a, const dpt_edit_stage_spec *b) {
    const dpt_edit_param *params;
    int count = dpt_edit_method_params(a->method, &params);
    int order = (a->method > b->method) - (a->method < b->method);
    for (int i = 0; i < count && order == 0; i++) {
        order = compare_values(a->values[i], b->values[i]);
        if (order == 0 && params[i].measured)
            order = (int)a->given[i] - (int)b->given[i];
    }
    return order;
}

int dpt_edit_spec_compare(const dpt_edit_spec *a, const dpt_edit_spec *b) {
    bool draws = false;
    int order = a->nstages - b->nstages;
    if (order == 0)
        order = (int)a->calibrate - (int)b->calibrate;
    for (int s = 0; s < a->nstages && order == 0; s++) {
        dpt_edit_stage_spec x = stage_rewritten(&a->stages[s]);
        dpt_edit_stage_spec y = stage_rewritten(&b->stages[s]);
        order = compare_stages(&x, &y);
        draws = draws || stage_draws(&x);
    }
    if (order == 0 && draws)
        order = (a->seed > b->seed) - (a->seed < b->seed);
    return order;
}

bool dpt_edit_unit(const dpt_edit_spec *spec, dpt_edit_spec *unit, double *factor) {
    *unit = *spec;
    *factor = 1.0;
    if (spec->nstages != 1 || spec->calibrate != DPT_CALIBRATE_NONE ||
        spec->stages[0].tensor_values != NULL || dpt_edit_needs_gradient(spec) ||
        dpt_edit_stage_is_auto(&spec->stages[0]))
        return false;
    const dpt_edit_method *method = dpt_edit_method_get(spec->stages[0].method);
    return method->unit != NULL && method->unit(&unit->stages[0], factor) && *factor != 0.0;
}
