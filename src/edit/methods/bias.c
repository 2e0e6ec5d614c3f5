#include "../stage.h"

#include "deltapath/base/mem.h"

/* Biased edits: arXiv:2410.13841 Table 1. F(Delta) = k Delta in the scaled set, and
 * (1 - k p) / (1 - p) Delta elsewhere. The set is where Delta < 0, or where Delta times the gradient
 * at W_post is; p defaults to the measured share of the set in the tensor. */

enum { BIAS_K, BIAS_P, BIAS_BY };
enum { BY_SIGN, BY_GRADIENT };

static bool bias_gradient(const dpt_edit_stage_spec *spec) {
    return (int)dpt_edit_value(spec, BIAS_BY) == BY_GRADIENT;
}

/* Whether the product is negative, also where it is too small for a float. */
static bool bias_opposed(float a, float b) {
    return (a < 0.0f && b > 0.0f) || (a > 0.0f && b < 0.0f);
}

static void bias_count_scaled(const dpt_edit_stage *stage, const dpt_edit_strip *strip,
                              const float *delta, double *sums) {
    dpt_range range = {.tensor = strip->tensor, .ig = strip->ig, .n = strip->n};
    const float *g = bias_gradient(stage->spec) ? dpt_edit_gradient(stage->input, range) : NULL;
    int count = 0;
    for (int i = 0; i < (int)range.n; i++)
        count += g != NULL ? bias_opposed(delta[i], g[i]) : delta[i] < 0.0f;
    sums[0] = (double)count;
}

/* The state is the factor (tensors) of what is not in the set. */
static dpt_status bias_prepare(dpt_edit_work *work, dpt_edit_stage *stage) {
    double k = dpt_edit_value(stage->spec, BIAS_K);
    double *factors = dpt_mem_zalloc(stage->catalog->count, sizeof *factors, "bias factors");
    double *counts = NULL;
    stage->state = factors;
    dpt_status st = dpt_agree(stage->input->comm, factors != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    if (st == DPT_OK && !stage->spec->given[BIAS_P])
        st = dpt_edit_sums(work, stage, DPT_EDIT_OVER_TENSORS, 1, bias_count_scaled, &counts);
    for (int t = 0; st == DPT_OK && t < stage->catalog->count; t++) {
        double p = dpt_edit_value(stage->spec, BIAS_P);
        if (counts != NULL && stage->covers[t])
            p = counts[t] / (double)dpt_edit_numel(stage->input, t);
        factors[t] = p < 1.0 ? (1.0 - k * p) / (1.0 - p) : 1.0; /* p = 1: there is no other */
    }
    dpt_mem_free(counts);
    return st;
}

static double bias_scale(const dpt_edit_stage *stage, int tensor) {
    return ((const double *)stage->state)[tensor];
}

static void bias_apply(const dpt_edit_stage *stage, dpt_range range, float *delta) {
    float k = (float)dpt_edit_value(stage->spec, BIAS_K);
    float other = (float)bias_scale(stage, range.tensor);
    if (bias_gradient(stage->spec)) {
        const float *g = dpt_edit_gradient(stage->input, range);
        for (int64_t i = 0; i < range.n; i++)
            delta[i] *= bias_opposed(delta[i], g[i]) ? k : other;
        return;
    }
    for (int64_t i = 0; i < range.n; i++)
        delta[i] *= delta[i] < 0.0f ? k : other;
}

/* E is k - 1 times Delta in the set, and (1 - k) p / (1 - p) times it elsewhere. */
static bool bias_unit(dpt_edit_stage_spec *spec, double *factor) {
    *factor = 1.0 - dpt_edit_value(spec, BIAS_K);
    spec->values[BIAS_K] = 0.0;
    return true;
}

static bool bias_fused(const dpt_edit_stage *stage, dpt_range cell, dpt_edit_fused *rule) {
    *rule = (dpt_edit_fused){.rule = DPT_EDIT_RULE_SPLIT,
                             .kept = (float)bias_scale(stage, cell.tensor),
                             .dropped = (float)dpt_edit_value(stage->spec, BIAS_K)};
    return !bias_gradient(stage->spec);
}

static double bias_reads(const dpt_edit_stage_spec *spec) {
    return spec->given[BIAS_P] ? 0.0 : 1.0;
}

const dpt_edit_method dpt_edit_method_bias = {
    .name = "bias",
    .help = "scale by k the deltas that are negative, or whose product with the gradient is, and "
            "the others so that the mean of the factors is 1",
    .nparams = 3,
    .params = {{.name = "k",
                .kind = DPT_PARAM_REAL,
                .required = true,
                .lower = -1e6,
                .upper = 1e6,
                .help = "factor of the scaled set"},
               {.name = "p",
                .optional = true,
                .kind = DPT_PARAM_REAL,
                .default_value = 0.0,
                .lower = 0.0,
                .upper = 1.0,
                .upper_open = true,
                .measured = true,
                .help = "share that the rescaling assumes; left out: the measured one"},
               {.name = "by",
                .kind = DPT_PARAM_CHOICE,
                .choices = "sign|gradient",
                .help = "what splits the deltas: their sign, or that of their product with the "
                        "gradient at W_post"}},
    .gradient = bias_gradient,
    .unit = bias_unit,
    .reads = bias_reads,
    .prepare = bias_prepare,
    .apply = bias_apply,
    .fused = bias_fused,
    .scale = bias_scale};
