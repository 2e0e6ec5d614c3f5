#include "resources.h"

#include "deltapath/base/assert.h"
#include "auto_alpha.h"
#include "hessian.h"
#include "leave_out.h"
#include "logit_probes.h"
#include "loss_kinds.h"
#include "path_correlation.h"
#include "plane.h"
#include "precision.h"
#include "significance.h"
#include "spectrum.h"

#include <math.h>

/* How many passes over its data a study takes, and of which kind. */

/* Where values are bf16, W(t) is one product at both ends, and two between them, of which the terms come by themselves;
 * else it is the sum of two matrices that are formed. */
dpt_pass_products dpt_resources_products(const dpt_resources *res, dpt_pass_kind kind) {
    bool slopes = dpt_pass_has_slopes(kind);
    bool base = kind == DPT_PASS_START || kind == DPT_PASS_BASE;
    if (!res->bf16 || kind == DPT_PASS_FP32)
        return (dpt_pass_products){
            .forward = 1.0, .again = slopes, .input = slopes, .terms = slopes, .formed = 1.0};
    double stored = base ? res->bf16_post : res->bf16_both, formed = 1.0 - stored;
    double each = base || !slopes ? stored + 2.0 * formed : 2.0;
    return (dpt_pass_products){.forward = each,
                               .again = slopes ? each : 0.0,
                               .input = slopes ? each : 0.0,
                               .terms = slopes ? formed + (base ? stored : 0.0) : 0.0,
                               .formed = formed};
}

double dpt_resources_passes(const dpt_resources *res, bool slopes) {
    double sum = 0.0;
    for (int kind = 0; kind < DPT_PASS_KINDS; kind++)
        if (dpt_pass_has_slopes((dpt_pass_kind)kind) == slopes)
            sum += res->passes[kind];
    return sum;
}

void dpt_resources_spare(dpt_resources *res, double spared) {
    static const dpt_pass_kind kinds[] = {DPT_PASS_SLOPES, DPT_PASS_START};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        double taken = fmin(spared, res->passes[kinds[i]]);
        res->passes[kinds[i]] -= taken;
        spared -= taken;
    }
}

/* Arithmetic of one pass over all data that judge, two flops a product. */
static double passes_flops(const dpt_resources *res, dpt_pass_kind kind) {
    const dpt_model_cost *cost = &res->cost;
    const dpt_pass_products p = dpt_resources_products(res, kind);
    double attention = 4.0 * (double)cost->heads * (double)cost->head_dim * cost->keys;
    double layers = 2.0 * cost->linear * (double)res->tokens, head = 2.0 * cost->head * res->scored;
    return (p.forward + p.again + p.input + p.terms) * layers +
           (p.forward + p.input + p.terms) * head +
           (dpt_pass_has_slopes(kind) ? 4.5 : 1.0) * attention;
}

/* Add passes over so many tokens. @param[in] least, most  of them: rule auto and searches decide on the way. */
static void passes_add(dpt_resources *res, dpt_pass_kind kind, double tokens, double expected,
                       double most) {
    double share = res->tokens > 0 ? tokens / (double)res->tokens : 0.0;
    res->flops += passes_flops(res, kind) * share * most;
    res->saved_flops += passes_flops(res, kind) * share * (most - expected);
    res->passes[kind] += share * expected;
}

/* Shares of weights of matrices that are bf16. */
static void count_types(const dpt_inputs *in, dpt_resources *res) {
    double all = 0.0, post = 0.0, both = 0.0;
    for (int i = 0; i < in->catalog->count; i++) {
        const dpt_tensor_info *own = &in->catalog->tensors[i];
        bool bf16 = own->dtype == DPT_BF16;
        if (own->ndim < 2)
            continue;
        all += (double)own->numel;
        post += bf16 ? (double)own->numel : 0.0;
        bf16 = bf16 && in->out_catalog.tensors[i].dtype == DPT_BF16;
        both += bf16 ? (double)own->numel : 0.0;
    }
    res->bf16 = in->job->precision == (int)DPT_PRECISION_BF16;
    res->bf16_post = all > 0.0 ? post / all : 0.0;
    res->bf16_both = all > 0.0 ? both / all : 0.0;
}

/* What says the error of products in bf16: each edit on a few samples, in both precisions. */
static void count_precision(const dpt_inputs *in, dpt_resources *res) {
    int replicas = res->ranks / res->tensor_parallel;
    for (int d = 0; res->bf16 && d < in->job->njudged; d++) {
        double samples = (double)in->data[d].samples;
        double few = fmin((double)dpt_precision_samples(replicas) * replicas, samples);
        double tokens = (double)res->tokens / in->job->njudged * few / samples;
        int edits = in->job->nedits;
        passes_add(res, DPT_PASS_SLOPES, tokens, edits, edits);
        passes_add(res, DPT_PASS_FP32, tokens, edits, edits);
    }
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
            passes_add(res, DPT_PASS_SLOPES, passes_choosing_tokens(in, res, edit->gradient_data),
                       1.0, 1.0);
            res->evaluations++;
            res->extra_binds++;
        }
        if (edit->auto_data < 0 || dpt_job_is_allocated(edit))
            continue;
        dpt_auto_passes passes = dpt_auto_alpha_passes(&edit->spec);
        passes_add(res, DPT_PASS_SLOPES, passes_choosing_tokens(in, res, edit->auto_data),
                   passes.expected, passes.most);
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
    passes_add(res, DPT_PASS_SLOPES, tokens, (double)res->hessian, (double)res->hessian);
    int64_t logits = dpt_logit_probes_passes(in->job), places = dpt_plane_passes(in->job);
    int64_t left_out = dpt_leave_out_passes(in);
    res->hessian = (res->hessian + logits) * in->job->njudged;
    double losses = (double)(logits + left_out) + (double)places / in->job->njudged;
    passes_add(res, DPT_PASS_LOSSES, tokens, losses, losses);
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
    /* Nodes at t = 0 that are not shared; of bf16 values those at t = 1 take no more. */
    double starts = dpt_quadrature_has_start(job->rule) && !res->shared_gradient;
    count_types(in, res);
    if (dpt_quadrature_has_end(job->rule))
        starts += res->bf16_both;
    res->flops = res->saved_flops = res->saved_evaluations = 0.0;
    for (int kind = 0; kind < DPT_PASS_KINDS; kind++)
        res->passes[kind] = 0.0;
    res->extra_binds = res->extra_edits = 0;
    /* Both ends of post-training; the gradient at W_post comes with its losses. */
    passes_add(res, kept ? DPT_PASS_START : DPT_PASS_BASE, tokens, 1.0, 1.0);
    passes_add(res, DPT_PASS_BASE, tokens, 1.0, 1.0);
    passes_add(res, DPT_PASS_START, tokens, edits * starts, edits * starts);
    passes_add(res, DPT_PASS_SLOPES, tokens, edits * (expected - starts),
               edits * (slopes - starts));
    passes_add(res, DPT_PASS_LOSSES, tokens, edits * ends, edits * ends);
    res->saved_evaluations = (double)job->ndata * edits * (slopes - expected);
    /* The reference of dpo, and the slopes of its loss before the gradient that edits share. */
    passes_add(res, DPT_PASS_BASE, (double)res->reference_tokens, kept ? 2.0 : 1.0,
               kept ? 2.0 : 1.0);
    passes_add(res, DPT_PASS_START, tokens, (double)res->law, (double)res->law);
    passes_add(res, DPT_PASS_BASE, (double)res->choosing_tokens, 1.0, 1.0);
    passes_add(res, DPT_PASS_LOSSES, (double)res->choosing_tokens, edits, edits);
    int correlated = dpt_resources_count_correlated(in);
    int nodes = job->points - dpt_quadrature_has_start(job->rule);
    passes_add(res, DPT_PASS_SLOPES, tokens, (double)nodes * correlated,
               (double)nodes * correlated);
    res->edit_passes = slopes + (ends > 0.0);
    res->evaluations = (int64_t)job->njudged *
                           (2 + res->law + edits * res->edit_passes + (int64_t)nodes * correlated) +
                       (int64_t)parts * (1 + edits);
    for (int d = job->njudged; d < job->ndata; d++)
        res->evaluations += dpt_job_law_draws(job, d) > 0 ? res->law : 0;
    count_measures(in, res, kept);
    count_searches(in, res);
    count_precision(in, res);
}
