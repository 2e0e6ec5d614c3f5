#include "resources.h"

#include "deltapath/base/assert.h"
#include "auto_alpha.h"
#include "hessian.h"
#include "leave_out.h"
#include "logit_probes.h"
#include "loss_kinds.h"
#include "path_correlation.h"
#include "plane.h"
#include "significance.h"
#include "spectrum.h"

/* How many passes over its data a study takes, and of which kind. */

/* Arithmetic of one pass over all data that judge: forward takes two flops a weight; slopes four times that in the layers
 * (forward, again, the gradient of the input, the term or the gradient of the weight), of the head three times. */
static double passes_flops(const dpt_resources *res, bool slopes) {
    const dpt_model_cost *cost = &res->cost;
    double attention = 4.0 * (double)cost->heads * (double)cost->head_dim * cost->keys;
    double layers = 2.0 * cost->linear * (double)res->tokens, head = 2.0 * cost->head * res->scored;
    return slopes ? 4.0 * layers + 3.0 * head + 4.5 * attention : layers + head + attention;
}

/* Add passes over so many tokens. @param[in] least, most  of them: rule auto and searches decide on the way. */
static void passes_add(dpt_resources *res, bool slopes, double tokens, double expected,
                       double most) {
    double share = res->tokens > 0 ? tokens / (double)res->tokens : 0.0;
    res->flops += passes_flops(res, slopes) * share * most;
    res->saved_flops += passes_flops(res, slopes) * share * (most - expected);
    *(slopes ? &res->slope_passes : &res->loss_passes) += share * expected;
}

/* Slopes that an edit takes at most, and how many rule auto takes of them on average: that share of the edits
 * of jobs/paper/fig3.yaml is refined on the shipped pairs (tools/rule_error.py). */
static int count_slopes(const dpt_inputs *in, const dpt_resources *res, double *expected) {
    const double refined = 0.7;
    int most = in->job->points, least = most;
    for (int step = 0; in->job->rule == DPT_RULE_AUTO; step++) {
        int points = dpt_quadrature_refined(step, in->job->points);
        if (points == 0)
            break;
        least = step == 0 ? points : least;
        most = points;
    }
    int shared = res->shared_gradient && dpt_quadrature_has_start(in->job->rule);
    *expected = least + refined * (most - least) - shared;
    return most - shared;
}

static double passes_choosing_tokens(const dpt_inputs *in, const dpt_resources *res, int data) {
    const dpt_job *job = in->job;
    int parts = job->ndata - job->njudged;
    return job->data[data].chooses ? (double)res->choosing_tokens / parts
                                   : (double)res->tokens / job->njudged;
}

/* What is found before an edit is made: alpha along the delta, slopes of samples. */
static void count_searches(const dpt_inputs *in, dpt_resources *res) {
    const dpt_job *job = in->job;
    for (int e = 0; e < job->nedits; e++) {
        const dpt_job_edit *edit = &job->edits[e];
        if (dpt_significance_is_wanted(&edit->spec)) {
            passes_add(res, true, passes_choosing_tokens(in, res, edit->gradient_data), 1.0, 1.0);
            res->evaluations++;
            res->extra_binds++;
        }
        if (edit->auto_data < 0 || dpt_job_is_allocated(edit))
            continue;
        dpt_auto_passes passes = dpt_auto_alpha_passes(&edit->spec);
        passes_add(res, true, passes_choosing_tokens(in, res, edit->auto_data), passes.expected,
                   passes.most);
        res->evaluations += passes.most;
        res->saved_evaluations += passes.most - passes.expected;
        res->extra_edits += passes.binds;
        res->extra_binds += passes.binds;
    }
}

/* Second derivatives, logits, a plane, groups left out. */
static void count_measures(const dpt_inputs *in, dpt_resources *res, bool kept) {
    double tokens = (double)res->tokens;
    int edits = in->job->nedits;
    /* The squares of the gradient are of one that is kept, or take a pass of their own. */
    res->hessian = (int64_t)edits * dpt_hessian_edit_passes(in) + dpt_hessian_passes(in->job) +
                   dpt_spectrum_passes(in->job) + (in->job->hessian.probes > 0 && !kept);
    passes_add(res, true, tokens, (double)res->hessian, (double)res->hessian);
    int64_t logits = dpt_logit_probes_passes(in->job), places = dpt_plane_passes(in->job);
    int64_t left_out = dpt_leave_out_passes(in);
    res->hessian = (res->hessian + logits) * in->job->njudged;
    double losses = (double)(logits + left_out) + (double)places / in->job->njudged;
    passes_add(res, false, tokens, losses, losses);
    res->evaluations += places + in->job->njudged * left_out;
    res->extra_binds += places / in->job->njudged;
}

void dpt_resources_count(const dpt_inputs *in, dpt_resources *res) {
    const dpt_job *job = in->job;
    double tokens = (double)res->tokens, expected;
    int edits = job->nedits, parts = job->ndata - job->njudged;
    int slopes = count_slopes(in, res, &expected);
    bool kept = dpt_resources_keeps_gradient(res);
    double ends = dpt_quadrature_has_end(job->rule) ? 0.0 : 1.0;
    res->flops = res->saved_flops = res->slope_passes = res->loss_passes = 0.0;
    res->saved_evaluations = 0.0;
    res->extra_binds = res->extra_edits = 0;
    /* Both ends of post-training; the gradient at W_post comes with its losses. */
    passes_add(res, kept, tokens, 1.0, 1.0);
    passes_add(res, false, tokens, 1.0, 1.0);
    passes_add(res, true, tokens, edits * expected, (double)edits * slopes);
    passes_add(res, false, tokens, edits * ends, edits * ends);
    res->saved_evaluations = (double)job->ndata * edits * (slopes - expected);
    /* The reference of dpo, and the slopes of its loss before the gradient that edits share. */
    passes_add(res, false, (double)res->reference_tokens, kept ? 2.0 : 1.0, kept ? 2.0 : 1.0);
    passes_add(res, true, tokens, (double)res->law, (double)res->law);
    passes_add(res, false, (double)res->choosing_tokens, 1.0 + edits, 1.0 + edits);
    int correlated = dpt_resources_count_correlated(in);
    int nodes = job->points - dpt_quadrature_has_start(job->rule);
    passes_add(res, true, tokens, (double)nodes * correlated, (double)nodes * correlated);
    res->edit_passes = slopes + (ends > 0.0);
    res->evaluations = (int64_t)job->njudged *
                           (2 + res->law + edits * res->edit_passes + (int64_t)nodes * correlated) +
                       (int64_t)parts * (1 + edits);
    for (int d = job->njudged; d < job->ndata; d++)
        res->evaluations += dpt_job_law_draws(job, d) > 0 ? res->law : 0;
    count_measures(in, res, kept);
    count_searches(in, res);
}
