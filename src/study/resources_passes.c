#include "resources.h"

#include "deltapath/base/assert.h"
#include "auto_alpha.h"
#include "hessian.h"
#include "leave_out.h"
#include "lines.h"
#include "logit_probes.h"
#include "loss_kinds.h"
#include "path_correlation.h"
#include "plane.h"
#include "precision.h"
#include "significance.h"
#include "spectrum.h"

#include <math.h>

/* How many passes over its data a study takes, and of which kind. */

int dpt_resources_count_correlated(const dpt_inputs *in) {
    int count = 0;
    for (int e = 0; e < in->job->nedits; e++)
        count += dpt_path_correlation_wanted(in->job, &in->job->edits[e]);
    return count;
}

double dpt_resources_again(const dpt_resources *res) {
    return res->cost.layers > 0 ? 1.0 - (double)res->held / (double)res->cost.layers : 1.0;
}

double dpt_resources_again_products(const dpt_resources *res) {
    const dpt_model_cost *cost = &res->cost;
    return cost->always + dpt_resources_again(res) * (cost->again - cost->always);
}

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

/* Arithmetic of one pass over all data that judge, two flops a product. */
static double passes_flops(const dpt_resources *res, dpt_pass_kind kind) {
    const dpt_model_cost *cost = &res->cost;
    const dpt_pass_products p = dpt_resources_products(res, kind);
    double attention = 4.0 * (double)cost->heads * (double)cost->head_dim * cost->keys;
    double layers = 2.0 * cost->linear * (double)res->tokens, head = 2.0 * cost->head * res->scored;
    double again = 2.0 * dpt_resources_again_products(res) * (double)res->tokens;
    return (p.forward + p.input + p.terms) * (layers + head) + p.again * again +
           (dpt_pass_has_slopes(kind) ? 3.5 + dpt_resources_again(res) : 1.0) * attention;
}

/* Tokens of a data set over those of all that judge. */
static double passes_share(const dpt_inputs *in, const dpt_resources *res, int d) {
    const dpt_dataset *data = &in->data[d];
    int64_t tokens =
        res->image_tokens > 0 ? data->samples * res->image_tokens : data->offsets[data->sequences];
    return res->tokens > 0 ? (double)tokens / (double)res->tokens : 0.0;
}

/* Add the work of passes over a data set. @param[in] expected, most  of them: rule auto and searches decide on the way. */
static void passes_add_work(const dpt_inputs *in, dpt_resources *res, dpt_pass_kind kind, int d,
                            double expected, double most) {
    double share = passes_share(in, res, d), flops = passes_flops(res, kind) * share;
    res->flops += flops * most;
    res->saved_flops += flops * (most - expected);
    res->passes[kind] += share * expected;
}

/* Passes with all batches of the data set. */
static void passes_add_whole(const dpt_inputs *in, dpt_resources *res, dpt_pass_kind kind, int d,
                             double expected, double most) {
    passes_add_work(in, res, kind, d, expected, most);
    res->cold[kind] += expected;
    res->batches[kind] += expected * dpt_resources_batches(in, res, d);
}

/* Add passes that a run counts. */
static void passes_add(const dpt_inputs *in, dpt_resources *res, dpt_pass_kind kind, int d,
                       double expected, double most) {
    passes_add_whole(in, res, kind, d, expected, most);
    res->most_passes += most;
    *(dpt_pass_has_slopes(kind) ? &res->slope_evaluations : &res->loss_evaluations) += expected;
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

/* Edits of a kind that a data set judges. */
static int count_judged(const dpt_inputs *in, int d,
                        bool (*is_one)(const dpt_job *job, const dpt_job_edit *edit)) {
    int count = 0;
    for (int e = 0; e < in->job->nedits; e++) {
        const dpt_job_edit *edit = &in->job->edits[e];
        count += dpt_job_judges(edit, d) && (is_one == NULL || is_one(in->job, edit));
    }
    return count;
}

/* What says the error of products in bf16: each edit on a few samples, in both precisions. */
static void count_precision(const dpt_inputs *in, dpt_resources *res, int d) {
    int replicas = res->ranks / res->tensor_parallel;
    double samples = (double)in->data[d].samples;
    double few = fmin((double)dpt_precision_samples(replicas) * replicas, samples);
    double edits = res->bf16 ? count_judged(in, d, NULL) : 0.0, passes = edits * few / samples;
    passes_add_work(in, res, DPT_PASS_SLOPES, d, passes, passes);
    passes_add_work(in, res, DPT_PASS_FP32, d, passes, passes);
    res->few[DPT_PASS_SLOPES] += edits;
    res->few[DPT_PASS_FP32] += edits;
    double tokens = passes_share(in, res, d) * (double)res->tokens * few / samples / replicas;
    res->few_tokens = fmax(res->few_tokens, tokens);
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

/* What is found before an edit is made: alpha along the delta, slopes of samples. */
static void count_searches(const dpt_inputs *in, dpt_resources *res) {
    const dpt_job *job = in->job;
    for (int e = 0; e < job->nedits; e++) {
        const dpt_job_edit *edit = &job->edits[e];
        if (dpt_significance_is_wanted(&edit->spec)) {
            passes_add(in, res, DPT_PASS_SLOPES, edit->gradient_data, 1.0, 1.0);
            res->extra_binds++;
        }
        if (edit->auto_data < 0 || dpt_job_is_allocated(edit))
            continue;
        dpt_auto_passes passes = dpt_auto_alpha_passes(&edit->spec);
        passes_add(in, res, DPT_PASS_SLOPES, edit->auto_data, passes.expected, passes.most);
        res->extra_edits += passes.binds;
        res->extra_binds += passes.binds;
    }
}

/* Second derivatives, logits, a plane, groups left out. */
static void count_measures(const dpt_inputs *in, dpt_resources *res, int d) {
    const dpt_job *job = in->job;
    /* The squares of the gradient are of one that is kept, or take a pass of their own. */
    bool squares = job->hessian.probes > 0 && !dpt_resources_keeps_gradient(res);
    int64_t second = count_judged(in, d, NULL) * dpt_hessian_edit_passes(in) +
                     dpt_hessian_passes(job) + dpt_spectrum_passes(job) + squares;
    int64_t losses = dpt_logit_probes_passes(job) + dpt_leave_out_passes(in) +
                     dpt_plane_passes(job) / job->njudged;
    passes_add(in, res, DPT_PASS_SLOPES, d, (double)second, (double)second);
    passes_add(in, res, DPT_PASS_LOSSES, d, (double)losses, (double)losses);
}

/* Of passes that are counted, so many follow one that turned back, along the same weights. */
static void passes_warm(dpt_resources *res, dpt_pass_kind kind, double count) {
    double warm = fmax(fmin(count, res->cold[kind]), 0.0);
    res->cold[kind] -= warm;
    res->warm[kind] += warm;
}

/* Of a data set that judges: W_pre, and the paths of its edits. */
static void count_paths(const dpt_inputs *in, dpt_resources *res, int d) {
    dpt_rule rule = in->job->rule;
    bool start = dpt_quadrature_has_start(rule), end = dpt_quadrature_has_end(rule);
    double expected, edits = count_judged(in, d, NULL);
    int slopes = count_slopes(in, res, &expected);
    /* Nodes at t = 0 that are not shared; of bf16 values those at t = 1 take no more. */
    double starts = (start && !res->shared_gradient) + (end ? res->bf16_both : 0.0);
    double nodes = (in->job->points - start) * count_judged(in, d, dpt_path_correlation_wanted);
    passes_add(in, res, DPT_PASS_BASE, d, 1.0, 1.0);
    passes_add(in, res, DPT_PASS_START, d, edits * starts, edits * starts);
    passes_add(in, res, DPT_PASS_SLOPES, d, edits * (expected - starts), edits * (slopes - starts));
    if (!end)
        passes_add(in, res, DPT_PASS_LOSSES, d, edits, edits);
    /* Nothing is there of an edit that was bound just now. */
    passes_warm(res, DPT_PASS_START, starts >= 1.0 ? edits * (starts - 1.0) : 0.0);
    passes_warm(res, DPT_PASS_SLOPES, edits * (expected - starts - (starts < 1.0)));
    passes_warm(res, DPT_PASS_LOSSES, end || expected <= 0.0 ? 0.0 : edits);
    passes_add(in, res, DPT_PASS_SLOPES, d, nodes, nodes);
    res->edit_passes = slopes + !end;
}

/* Batches that add to a gradient: of W_post, of drawn labels, of eigenvalues and squares, and at the nodes of paths. */
static void count_adding(const dpt_inputs *in, dpt_resources *res, int d, bool kept, double law) {
    const dpt_job *job = in->job;
    double passes = kept + (job->law.labels != DPT_LABELS_ALL ? law : 0.0);
    if (d < job->njudged)
        passes += (double)dpt_spectrum_passes(job) + (job->hessian.probes > 0 && !kept) +
                  job->points * count_judged(in, d, dpt_path_correlation_wanted);
    res->adding_batches += passes * dpt_resources_batches(in, res, d);
}

void dpt_resources_count(const dpt_inputs *in, dpt_resources *res) {
    const dpt_job *job = in->job;
    count_types(in, res);
    res->flops = res->saved_flops = 0.0;
    res->most_passes = res->slope_evaluations = res->loss_evaluations = 0.0;
    for (int kind = 0; kind < DPT_PASS_KINDS; kind++)
        res->passes[kind] = res->cold[kind] = res->warm[kind] = res->batches[kind] =
            res->few[kind] = 0.0;
    res->few_tokens = res->adding_batches = res->all_batches = 0.0;
    res->extra_edits = 0;
    /* A product of Lanczos's method takes two passes along a direction. */
    res->extra_binds = dpt_spectrum_passes(job) / 2 * job->njudged;
    res->extra_binds += job->njudged > 0 ? dpt_plane_passes(job) / job->njudged : 0;
    for (int d = 0; d < job->ndata; d++) {
        bool kept = dpt_resources_keeps_gradient_of(in, res, d);
        double law = dpt_job_law_draws(job, d) > 0 ? (double)res->law : 0.0;
        /* W_post: the gradient comes with its losses. */
        passes_add(in, res, kept ? DPT_PASS_START : DPT_PASS_BASE, d, 1.0, 1.0);
        passes_add(in, res, DPT_PASS_START, d, law, law);
        count_adding(in, res, d, kept, law);
        if (dpt_loss_kind_of(job->data[d].loss)->reference) {
            passes_add(in, res, DPT_PASS_BASE, d, 1.0, 1.0);
            /* That of dpo takes all of its losses before the gradient that edits share. */
            passes_add_whole(in, res, DPT_PASS_BASE, d, kept, kept);
        }
        if (d >= job->njudged)
            continue;
        res->all_batches += dpt_resources_batches(in, res, d);
        count_paths(in, res, d);
        count_measures(in, res, d);
        count_precision(in, res, d);
        if (job->data[d].other >= 0) { /* the ends of its edits on the samples that only choose */
            double ends = count_judged(in, d, NULL);
            passes_add(in, res, DPT_PASS_LOSSES, job->data[d].other, ends, ends);
        }
    }
    count_searches(in, res);
}

/* Whether what is written of an edit is its multiple but for the rounding of fp32. */
static bool passes_hold_lines(const dpt_inputs *in) {
    const dpt_catalog *catalog = &in->out_catalog;
    for (int t = 0; t < catalog->count; t++) {
        dpt_dtype type = catalog->tensors[t].dtype;
        if (in->selected[t] && dpt_dtype_editable(type) && type != DPT_F32)
            return false;
    }
    return true;
}

dpt_status dpt_resources_share_lines(const dpt_inputs *in, dpt_resources *res) {
    dpt_lines lines;
    dpt_status st = dpt_lines_create(in, res->shared_gradient, &lines);
    double expected, most = count_slopes(in, res, &expected);
    res->lines_hold = passes_hold_lines(in);
    for (int d = 0; d < in->job->njudged && st == DPT_OK; d++) {
        int64_t slopes = lines.spared_slopes[d], losses = lines.spared_losses[d];
        res->shared_passes += slopes + losses;
        if (!res->lines_hold)
            continue;
        double fewer = most > 0.0 ? (double)slopes * expected / most : 0.0;
        passes_add(in, res, DPT_PASS_SLOPES, d, -fewer, 0.0);
        passes_add(in, res, DPT_PASS_LOSSES, d, -(double)losses, 0.0);
    }
    if (st != DPT_OK)
        return st;
    dpt_resources_move_lines(in, res, &lines);
    dpt_lines_destroy(&lines);
    return st;
}
