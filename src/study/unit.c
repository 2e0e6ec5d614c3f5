#include "unit.h"

#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/edit/choices.h"
#include "deltapath/path/biased_interval.h"
#include "deltapath/path/bootstrap.h"
#include "deltapath/path/verdict.h"
#include "deltapath/path/weighted.h"
#include "guards.h"
#include "unit_proof.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static dpt_status set_texts(const dpt_inputs *in, const dpt_job_edit *edit, int d,
                            dpt_result *out) {
    const dpt_job *job = in->job;
    const char *loss = d >= 0 ? dpt_job_loss_name(job->data[d].loss) : "";
    const char *rule = d >= 0 ? dpt_quadrature_name(job->rule) : "";
    dpt_status st = dpt_result_set_string(&out->edit, "%s", edit->id);
    if (st == DPT_OK)
        st = dpt_result_set_string(&out->data, "%s", d >= 0 ? job->data[d].name : "");
    if (st == DPT_OK)
        st = dpt_result_set_string(&out->method, "%s", edit->method);
    if (st == DPT_OK)
        st = dpt_result_set_string(&out->loss, "%s", loss);
    if (st == DPT_OK)
        st = dpt_result_set_string(&out->rule, "%s", rule);
    int chosen = dpt_job_chosen_on(edit);
    if (st == DPT_OK)
        st =
            dpt_result_set_string(&out->chosen_on, "%s", chosen >= 0 ? job->data[chosen].name : "");
    return st;
}

/* How much of what judges an edit its choice has not seen. */
static dpt_status unit_set_choice(const dpt_inputs *in, const dpt_job_edit *edit, int d,
                                  const dpt_evaluation_path *path, dpt_result *out) {
    const dpt_dataset *set = &in->data[d];
    int chosen = dpt_job_chosen_on(edit);
    for (int64_t i = 0; i < out->samples; i++)
        out->sample_rows[i] = (double)(set->rows != NULL ? set->rows[i] : i);
    out->scalars.choose_change = path->choose_change;
    out->scalars.choose_accuracy = path->choose_accuracy;
    if (chosen < 0)
        return DPT_OK;
    return dpt_dataset_share_apart(set, &in->data[chosen], &out->scalars.held_out);
}

/* Said where a verdict rests on samples that chose the edit. */
static const char *seen_before(const dpt_result *out, char text[64]) {
    double seen = 1.0 - out->scalars.held_out;
    text[0] = '\0';
    if (seen >= 1.0)
        snprintf(text, 64, " (chosen on the samples that judge it)");
    else if (seen > 0.0)
        snprintf(text, 64, " (chosen on %.3g %% of the samples that judge it)", 100.0 * seen);
    return text;
}

/* "p=0.9 seed=1" to name and value pairs. */
static dpt_status set_parameters(const dpt_job_edit *edit, dpt_result *out) {
    char *text = dpt_mem_strdup(edit->params, "edit parameters");
    dpt_status st = text != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    char *save = NULL;
    for (char *word = text != NULL ? strtok_r(text, " ", &save) : NULL;
         word != NULL && st == DPT_OK; word = strtok_r(NULL, " ", &save)) {
        char *equals = strchr(word, '=');
        if (equals == NULL)
            continue;
        *equals = '\0';
        st = dpt_result_add_parameter(out, word, equals + 1);
    }
    dpt_mem_free(text);
    return st;
}

/* What calibration reached, besides the parameters. */
static dpt_status set_guards(const dpt_inputs *in, const dpt_edit_report *report, dpt_result *out) {
    dpt_guards guards;
    char reached[64];
    dpt_guards_collect(in->catalog, report, &guards);
    if (guards.tensors == 0)
        return DPT_OK;
    snprintf(reached, sizeof reached, "%d of %d tensors", guards.zero, guards.tensors);
    dpt_status st = dpt_result_add_parameter(out, "calibrated", reached);
    if (st == DPT_OK && guards.held[0] != '\0')
        st = dpt_result_add_parameter(out, "calibration_held", guards.held);
    return st;
}

static dpt_status set_edit_statistics(const dpt_inputs *in, const dpt_edit_report *report,
                                      dpt_result *out) {
    for (int t = 0; t < report->ntensors; t++) {
        const dpt_edit_tensor_stats *from = &report->stats[t];
        int64_t numel = dpt_pair_shared(&in->pair, t);
        out->stats[t] = (dpt_result_tensor){
            .delta_norm = from->delta_norm,
            .edit_norm = from->edit_norm,
            .rounding = from->size > 0.0 ? 1.0 - from->kept / from->size : NAN,
            .share_changed = numel > 0 ? (double)from->changed / (double)numel : 0,
            .share_zero = from->zeros / (double)(numel > 0 ? numel : 1),
            .rank = from->rank > 0 ? (double)from->rank : NAN,
            .residual = from->residual,
            .scale = from->scale,
            .correlation = from->correlation,
            .slope = from->slope,
            .slope_se = from->slope_se};
    }
    out->scalars.rounding = dpt_guards_rounding(in->catalog, report);
    dpt_status st = DPT_OK;
    for (int64_t i = 0; i < report->nspectra && st == DPT_OK; i++) {
        const dpt_edit_spectrum *from = &report->spectra[i];
        dpt_result_spectrum spectrum = {.tensor = from->tensor,
                                        .residual = from->residual,
                                        .count = from->rank,
                                        .values = report->singular + from->first,
                                        .error = report->singular_error + from->first};
        dpt_part_label(&in->parts, from->part, spectrum.part);
        st = dpt_result_add_spectrum(out, &spectrum);
    }
    return st;
}

static void copy(double *to, const double *from, int64_t n) {
    if (n > 0)
        memcpy(to, from, (size_t)n * sizeof *to);
}

static void unit_set_correct(double *to, const uint8_t *from, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        to[i] = from[i] != 0 ? 1.0 : 0.0;
}

static void set_path(const dpt_riemann *from, const dpt_baseline *base, const int64_t *clusters,
                     dpt_result *out) {
    copy(out->nodes, from->quadrature.node, from->quadrature.points);
    copy(out->weights, from->quadrature.weight, from->quadrature.points);
    copy(out->path_loss, from->loss_mean, from->quadrature.points);
    copy(out->terms, from->term, from->terms * from->quadrature.points);
    copy(out->integrated, from->integrated, from->terms);
    copy(out->split, from->split, from->terms);
    copy(out->split_error, from->split_error, from->terms);
    copy(out->second_order, from->second_order, from->terms);
    copy(out->loss_pre, base->loss_pre, from->samples);
    copy(out->loss_post, base->loss_post, from->samples);
    copy(out->loss_edit, from->loss_edit, from->samples);
    copy(out->sample_integrated, from->sample_integrated, from->samples);
    const double *shares = dpt_loss_shares(base->loss);
    for (int64_t s = 0; s < from->samples; s++)
        out->sample_shares[s] = shares != NULL ? shares[s] : 1.0 / (double)from->samples;
    for (int64_t s = 0; s < from->samples; s++)
        out->sample_clusters[s] = (double)(clusters != NULL ? clusters[s] : s);
}

static void unit_set_correlation(const dpt_path_correlation *from, dpt_result *out) {
    if (from->all == NULL)
        return;
    copy(out->path_correlation, from->all, out->points);
    copy(out->path_correlation_law, from->law, out->points);
    for (int64_t c = 0; c < out->points; c++)
        for (int64_t t = 0; t < out->tensors; t++)
            out->path_correlations[t * out->points + c] = from->tensors[c * out->tensors + t];
    out->scalars.correlation_se = from->n > 1.0 ? 1.0 / sqrt(from->n - 1.0) : NAN;
}

/* What a verdict stands on: values whose plain means are the weighted ones of the samples, or of the clusters. */
typedef struct unit_samples {
    dpt_weighted weighted;
    double effective; /* of the values */
    dpt_accuracy_pairs gained, pairs;
    double *block;
    dpt_verdict_samples view; /* into the block */
} unit_samples;

static void unit_samples_destroy(unit_samples *samples) {
    dpt_weighted_destroy(&samples->weighted);
    dpt_mem_free(samples->block);
}

/* @param[in] path of the edit, or NULL: that of none. @param[in] correct (samples) of the edited model. */
static dpt_status unit_samples_fill(const dpt_inputs *in, int d, const dpt_baseline *base,
                                    const dpt_riemann *path, const uint8_t *correct,
                                    unit_samples *out) {
    const dpt_weighted *w = &out->weighted;
    int64_t n = base->samples;
    double *values[6];
    double *right[3];
    for (int k = 0; k < 6; k++)
        values[k] = out->block + k * n;
    const uint8_t *hits[3] = {base->correct_pre, base->correct_post, correct};
    for (int k = 0; k < 3; k++) {
        right[k] = out->block + (6 + k) * n;
        unit_set_correct(right[k], hits[k], n);
    }
    const double *raw[6] = {base->loss_pre,
                            path != NULL ? path->loss_post : base->loss_post,
                            path != NULL ? path->loss_edit : base->loss_post,
                            path != NULL ? path->sample_integrated : NULL,
                            right[0],
                            right[1]};
    for (int k = 0; k < 6; k++)
        if (raw[k] != NULL)
            dpt_weighted_apply(w, raw[k], values[k]);
    dpt_status st = dpt_accuracy_count(w, in->data[d].effective, right[0], right[1], &out->gained);
    if (st == DPT_OK)
        st = dpt_accuracy_count(w, in->data[d].effective, right[1], right[2], &out->pairs);
    out->effective = fmin(w->effective, in->data[d].effective);
    out->view = (dpt_verdict_samples){.n = w->count,
                                      .pre = values[0],
                                      .post = values[1],
                                      .edit = values[2],
                                      .terms = path != NULL ? values[3] : NULL,
                                      .right_pre = values[4],
                                      .right_post = values[5],
                                      .gained = &out->gained,
                                      .pairs = &out->pairs};
    return st;
}

static dpt_status unit_samples_create(const dpt_inputs *in, int d, const dpt_baseline *base,
                                      const dpt_riemann *path, const uint8_t *correct,
                                      unit_samples *out) {
    *out = (unit_samples){.block = NULL};
    dpt_status st = dpt_weighted_create(base->samples, dpt_loss_shares(base->loss),
                                        in->data[d].clusters, &out->weighted);
    if (st != DPT_OK)
        return st;
    out->block = dpt_mem_alloc(9 * base->samples, sizeof *out->block, "weighted losses");
    st = out->block != NULL ? unit_samples_fill(in, d, base, path, correct, out) : DPT_ERR_OUTPUT;
    if (st != DPT_OK)
        unit_samples_destroy(out);
    return st;
}

/* Resamples of edits on one data set are alike. */
static dpt_bootstrap unit_resamples(const dpt_job *job, int d) {
    return (dpt_bootstrap){.seed = job->statistics.seed,
                           .stream = job->data[d].name,
                           .resamples = job->statistics.resamples};
}

static dpt_verdict_options judge_options(const dpt_inputs *in, const dpt_baseline *base,
                                         double effective, const dpt_bootstrap *resamples) {
    static const dpt_paired_rule rules[] = {[DPT_INTERVAL_AUTO] = DPT_PAIRED_AUTO,
                                            [DPT_INTERVAL_T] = DPT_PAIRED_T,
                                            [DPT_INTERVAL_BOOTSTRAP] = DPT_PAIRED_BOOTSTRAP};
    dpt_verdict_options options = dpt_verdict_defaults();
    options.margins = (dpt_verdict_margins){.share = in->job->margin_share,
                                            .absolute = in->job->margin,
                                            .accuracy = in->job->accuracy_margin / 100.0,
                                            .guess = base->guess};
    options.paired.effective = effective;
    options.paired.rule = rules[in->job->statistics.interval];
    options.paired.source = resamples;
    options.withheld = in->zero_delta ? "the delta is zero in all selected tensors" : NULL;
    return options;
}

/* What a verdict of one seed is of; "" where there is no verdict, or no seed matters. */
static const char *one_draw(const dpt_job_edit *edit, const dpt_verdict *judged) {
    if (judged->verdict == DPT_VERDICT_UNDECIDED || !dpt_edit_is_random(&edit->spec))
        return "";
    return dpt_edit_draws_mask(&edit->spec) ? " (of this mask: other seeds may differ)"
                                            : " (of these draws: other seeds may differ)";
}

enum { UNIT_NOTE = 256 };

/* What the reason says of the interval of the change, of so many samples in effect. */
static void unit_note_skew(const dpt_verdict *v, bool few, double effective, char note[UNIT_NOTE]) {
    note[0] = '\0';
    if (isnan(v->change.low))
        return;
    if (v->few)
        snprintf(note, UNIT_NOTE,
                 " (skew %.1f, for which %.4g samples%s are few: equivalence takes %d times the "
                 "distance)",
                 v->skew, effective, effective < (double)v->change.n - 1e-6 ? " in effect" : "",
                 DPT_PAIRED_REACH);
    else if (few)
        snprintf(
            note, UNIT_NOTE,
            " (fewer samples than the %.0f from which an interval at skew %.1f is known to hold)",
            ceil(v->enough), v->skew);
}

/* What it says of the accuracy where the verdict is not that both hold. */
static void unit_note_accuracy(const dpt_verdict *v, int64_t samples, double points,
                               char note[UNIT_NOTE]) {
    const dpt_accuracy *a = &v->accuracy;
    note[0] = '\0';
    if (v->accuracy_is == DPT_ACCURACY_OUT || v->verdict == DPT_VERDICT_COMPETITIVE ||
        isnan(v->change.low) || isnan(a->low))
        return;
    bool beyond = 100.0 * a->high < -points, holds = v->accuracy_is == DPT_ACCURACY_HOLDS;
    const char *known = holds ? " or more is excluded" : " or more is possible";
    int used = snprintf(note, UNIT_NOTE, "; accuracy %+.1f points [%+.1f, %+.1f], %s %g%s",
                        100.0 * a->change, 100.0 * a->low, 100.0 * a->high,
                        beyond ? "falls by more than" : "a fall by", points, beyond ? "" : known);
    if (v->accuracy_is == DPT_ACCURACY_UNSURE && isfinite(a->enough))
        snprintf(note + used, (size_t)(UNIT_NOTE - used),
                 ": some %.0f samples with these shares would tell",
                 ceil(a->enough * (double)samples));
}

/* The reason of a verdict, with the doubt about the gain that holds for every verdict on this data. */
static dpt_status set_reason(const dpt_job_edit *edit, const dpt_verdict *judged, double points,
                             dpt_result *out) {
    char skew[UNIT_NOTE], accuracy[UNIT_NOTE], seen[64];
    const char *doubt = judged->doubt, *draw = one_draw(edit, judged);
    unit_note_skew(judged, dpt_result_is_few(&out->scalars), out->scalars.effective, skew);
    unit_note_accuracy(judged, out->samples, points, accuracy);
    seen_before(out, seen);
    bool said = doubt == NULL || strncmp(judged->reason, doubt, strlen(doubt)) == 0;
    return dpt_result_set_string(&out->reason, "%s%s%s%s%s%s%s", judged->reason, draw, skew, seen,
                                 accuracy, said ? "" : "; ", said ? "" : doubt);
}

/* The first sample whose loss is not finite, if there is one. */
static void warn_of_broken(const char *data, const char *model, const double *loss, int64_t n) {
    for (int64_t s = 0; s < n; s++)
        if (!isfinite(loss[s])) {
            dpt_log(DPT_LOG_WARN,
                    "%s: the loss of %s is %s on sample %" PRId64
                    ", counted from 0: what is measured with it is no number: check the model",
                    data, model, isnan(loss[s]) ? "not a number" : "infinite", s);
            return;
        }
}

/* Of an edited model; where the post-trained one is broken, all made from it are. */
static void warn_of_edit(const char *data, const char *edit, const dpt_riemann *riemann) {
    char model[256];
    snprintf(model, sizeof model, "edit %s", edit);
    for (int64_t s = 0; s < riemann->samples; s++)
        if (!isfinite(riemann->loss_post[s]))
            return;
    warn_of_broken(data, model, riemann->loss_edit, riemann->samples);
}

void dpt_unit_warn_broken(const dpt_inputs *in, int d, const dpt_baseline *base) {
    const dpt_job *job = in->job;
    warn_of_broken(job->data[d].name, job->post, base->loss_post, base->samples);
    warn_of_broken(job->data[d].name, job->pre, base->loss_pre, base->samples);
}

dpt_status dpt_unit_warn_gain(const dpt_inputs *in, int d, const dpt_baseline *base) {
    const dpt_job *job = in->job;
    unit_samples samples;
    dpt_verdict judged;
    dpt_status st = unit_samples_create(in, d, base, NULL, base->correct_post, &samples);
    if (st != DPT_OK)
        return st;
    const dpt_bootstrap resamples = unit_resamples(job, d);
    dpt_verdict_options options = judge_options(in, base, samples.effective, &resamples);
    bool one = dpt_verdict_is_one(samples.effective);
    if (!one)
        st = dpt_verdict_judge(&samples.view, &options, &judged);
    if (st == DPT_OK && !one && judged.doubt != NULL)
        dpt_log(DPT_LOG_WARN, "%s: %s (gain %.3g nats, 95 %% interval %.3g to %.3g)",
                job->data[d].name, judged.doubt, judged.gain.mean, judged.gain.low,
                judged.gain.high);
    unit_samples_destroy(&samples);
    return st;
}

/* The estimate over samples, and with what its rule may miss. Slopes of samples at t = 0 that are known by
 * losses add to the standard error. */
static void unit_set_estimate(const dpt_riemann *riemann, const dpt_interval *sampled, double df,
                              double confidence, dpt_result_scalars *s) {
    s->estimate = riemann->estimate;
    s->estimate_quadrature = riemann->quadrature_error;
    s->gradients = riemann->gradients;
    if (sampled->n == 0)
        return;
    dpt_interval over = dpt_biased_interval(sampled, riemann->sample_error, 0.0, df, confidence);
    dpt_interval both = dpt_biased_interval(sampled, riemann->sample_error,
                                            riemann->quadrature_error, df, confidence);
    s->estimate_se = over.se;
    s->estimate_low = over.low;
    s->estimate_high = over.high;
    s->estimate_combined_low = both.low;
    s->estimate_combined_high = both.high;
}

static void set_scalars(const dpt_riemann *riemann, const dpt_verdict *judged,
                        dpt_result_scalars *s) {
    s->change = riemann->change;
    s->change_se = judged->change.se;
    s->change_low = judged->change.low;
    s->change_high = judged->change.high;
    s->change_skew = judged->skew;
    s->change_enough = judged->enough;
    s->equivalence_low = judged->equivalence.low;
    s->equivalence_high = judged->equivalence.high;
    s->error = riemann->error;
    s->second_order = riemann->second_order_total;
    s->gain = judged->gain.mean;
    s->gain_low = judged->gain.low;
    s->gain_high = judged->gain.high;
    s->share = judged->share;
    s->share_low = judged->share_low;
    s->share_high = judged->share_high;
    s->margin = judged->margin;
    s->margin_accuracy = judged->margin_accuracy;
    s->accuracy_change = judged->accuracy.change;
    s->accuracy_low = judged->accuracy.low;
    s->accuracy_high = judged->accuracy.high;
    s->p_accuracy = judged->accuracy.p;
    s->p_change = judged->p_change;
    s->p_equivalent = judged->p_equivalent;
}

/* The BCa interval, whichever judges. */
static dpt_status unit_set_bootstrap(const unit_samples *samples, const dpt_bootstrap *resamples,
                                     double confidence, dpt_result_scalars *s) {
    const dpt_verdict_samples *v = &samples->view;
    dpt_bootstrap_draws draws;
    dpt_status st = dpt_bootstrap_draw(v->n, v->edit, v->post, resamples, &draws);
    if (st != DPT_OK)
        return st;
    dpt_interval plain = dpt_interval_student(v->n, v->edit, v->post, confidence);
    bool drawn = draws.resamples > 0;
    s->bootstrap_low = drawn ? dpt_bootstrap_end(&draws, 0.5 * (1.0 - confidence)) : plain.low;
    s->bootstrap_high = drawn ? dpt_bootstrap_end(&draws, 0.5 * (1.0 + confidence)) : plain.high;
    dpt_bootstrap_destroy(&draws);
    return DPT_OK;
}

static void unit_set_means(const dpt_baseline *base, const dpt_evaluation_path *path,
                           const unit_samples *samples, dpt_result_scalars *s) {
    const dpt_verdict_samples *v = &samples->view;
    s->loss_pre = dpt_weighted_mean(NULL, v->n, v->pre);
    s->loss_post = dpt_weighted_mean(NULL, v->n, v->post);
    s->loss_edit = dpt_weighted_mean(NULL, v->n, v->edit);
    s->accuracy_pre = base->accuracy_pre;
    s->accuracy_post = base->accuracy_post;
    s->accuracy_edit = path->accuracy_edit;
    s->clusters = (double)v->n;
    s->effective = isnan(samples->effective) ? (double)v->n : samples->effective;
}

static dpt_status set_verdict(const dpt_inputs *in, const dpt_job_edit *edit, int d,
                              const dpt_baseline *base, const dpt_evaluation_path *path,
                              dpt_result *out) {
    const dpt_riemann *riemann = &path->riemann;
    warn_of_edit(in->job->data[d].name, out->edit, riemann);
    dpt_verdict judged;
    unit_samples samples;
    dpt_status st = unit_samples_create(in, d, base, riemann, path->correct_edit, &samples);
    if (st != DPT_OK)
        return st;
    const dpt_bootstrap resamples = unit_resamples(in->job, d);
    dpt_verdict_options options = judge_options(in, base, samples.effective, &resamples);
    dpt_result_scalars *s = &out->scalars;
    st = dpt_verdict_judge(&samples.view, &options, &judged);
    if (st == DPT_OK)
        st = unit_set_bootstrap(&samples, &resamples, options.confidence, s);
    if (st != DPT_OK)
        goto done;
    unit_set_means(base, path, &samples, s);
    set_scalars(riemann, &judged, s);
    s->accuracy_margin = options.margins.accuracy;
    if (isnan(judged.change.low))
        s->bootstrap_low = s->bootstrap_high = NAN;
    st = dpt_unit_set_proof(&path->leave_out, &samples.weighted, &samples.view, &options, out);
    if (st != DPT_OK)
        goto done;
    unit_set_estimate(riemann, &judged.estimate,
                      dpt_interval_freedom(judged.estimate.n, samples.effective),
                      options.confidence, s);
    st = dpt_result_set_string(&out->verdict, "%s", dpt_verdict_name(judged.verdict));
    if (st == DPT_OK)
        st = set_reason(edit, &judged, in->job->accuracy_margin, out);
done:
    unit_samples_destroy(&samples);
    return st;
}

/* What was known before the edit was measured; NaN stays where it was not. */
static void unit_set_law(const dpt_edit_spec *spec, const dpt_baseline *base, dpt_result *out) {
    const dpt_law *law = &base->law, *signs = &base->signs.law;
    dpt_result_scalars *s = &out->scalars;
    if (law->mean != NULL) {
        copy(out->curvature, law->mean, out->tensors);
        copy(out->curvature_se, law->se, out->tensors);
        s->curvature = law->total;
        s->curvature_se = law->total_se;
    }
    if (signs->mean != NULL) {
        copy(out->hessian_curvature, signs->mean, out->tensors);
        copy(out->hessian_curvature_se, signs->se, out->tensors);
        s->hessian_curvature = signs->total;
        s->hessian_curvature_se = signs->total_se;
    }
    double one;
    if (dpt_signs_is_spread(&base->signs, spec, &one))
        s->predicted_sd = dpt_signs_spread(&base->signs, one, &s->predicted_sd_se);
}

/* What the record has room for only when it is there. */
static dpt_status unit_set_parts(const dpt_evaluation_path *path, const dpt_spectrum *spectrum,
                                 dpt_result *out) {
    const dpt_blocks *blocks = &path->blocks;
    int count = spectrum->top[0].count > spectrum->top[1].count ? spectrum->top[0].count
                                                                : spectrum->top[1].count;
    dpt_status st = dpt_result_resize(out, blocks->groups.count, count,
                                      path->leave_out.groups.count, path->riemann.parts);
    if (st != DPT_OK)
        return st;
    copy(out->hessian_eigenvalues, spectrum->top[0].values, spectrum->top[0].count);
    copy(out->hessian_residuals, spectrum->top[0].residuals, spectrum->top[0].count);
    copy(out->delta_eigenvalues, spectrum->top[1].values, spectrum->top[1].count);
    copy(out->delta_residuals, spectrum->top[1].residuals, spectrum->top[1].count);
    copy(out->matrix_terms, path->riemann.part, out->nmatrices * out->points);
    copy(out->matrix_integrated, path->riemann.part_integrated, out->nmatrices);
    copy(out->matrix_second_order, path->riemann.part_second_order, out->nmatrices);
    copy(out->blocks, blocks->values, out->tensors * blocks->groups.count);
    if (blocks->groups.count == 0)
        return DPT_OK;
    return dpt_result_set_string(&out->groups, "%s", blocks->groups.names);
}

static void unit_set_hessian(const dpt_central *hessian, dpt_result *out) {
    if (hessian->derivative == NULL)
        return;
    for (int64_t k = 0; k < out->tensors; k++)
        out->hessian_second_order[k] = hessian->derivative[k] / 2.0;
    out->scalars.hessian_second_order = hessian->total / 2.0;
    out->scalars.hessian_error = hessian->error / 2.0;
    out->scalars.hessian_step = hessian->step;
}

/* Size of the edit, and the value of each tensor where they have their own. */
static void unit_set_size(const dpt_inputs *in, const dpt_edit_spec *spec,
                          const dpt_edit_report *report, dpt_result *out) {
    const dpt_edit_input input = {.post = {.catalog = in->catalog},
                                  .parts = &in->parts,
                                  .comparable = in->pair.comparable,
                                  .pair = &in->pair,
                                  .selected = in->selected};
    const double *values = spec->stages[0].tensor_values;
    out->scalars.size = dpt_edit_size(spec, &input, &in->out_catalog, report);
    for (int t = 0; t < report->ntensors; t++)
        out->stats[t].value = values != NULL ? values[t] : NAN;
}

dpt_status dpt_unit_record(const dpt_inputs *inputs, const dpt_job_edit *edit,
                           const dpt_auto_alpha *found, const dpt_edit_report *report,
                           const dpt_evaluation *evaluation, int d, const dpt_evaluation_path *path,
                           double seconds, dpt_result *out) {
    const dpt_edit_spec *spec = found->alpha != NULL ? &found->spec : &edit->spec;
    int64_t points = path != NULL ? path->riemann.quadrature.points : 0;
    int64_t samples = path != NULL ? path->riemann.samples : 0;
    dpt_status st = dpt_result_create(inputs->catalog->count, points, samples, out);
    if (st != DPT_OK)
        return st;
    st = set_texts(inputs, edit, d, out);
    if (st == DPT_OK)
        st = set_parameters(edit, out);
    for (int i = 0; i < found->nnotes && st == DPT_OK; i++)
        st = dpt_result_add_parameter(out, found->notes[i].name, found->notes[i].value);
    if (st == DPT_OK)
        st = set_guards(inputs, report, out);
    if (st == DPT_OK)
        st = set_edit_statistics(inputs, report, out);
    if (st == DPT_OK)
        unit_set_size(inputs, spec, report, out);
    if (st == DPT_OK && path != NULL) {
        set_path(&path->riemann, &evaluation->data[d], inputs->data[d].clusters, out);
        unit_set_correct(out->correct_pre, evaluation->data[d].correct_pre, samples);
        unit_set_correct(out->correct_post, evaluation->data[d].correct_post, samples);
        unit_set_correct(out->correct_edit, path->correct_edit, samples);
        unit_set_law(spec, &evaluation->data[d], out);
        unit_set_correlation(&path->correlation, out);
        unit_set_hessian(&path->hessian, out);
        st = unit_set_parts(path, &evaluation->data[d].spectrum, out);
        if (st == DPT_OK)
            st = unit_set_choice(inputs, edit, d, path, out);
        if (st == DPT_OK)
            st = dpt_prediction_record(&path->prediction, out);
        out->scalars.bf16_loss = path->precision.loss;
        out->scalars.bf16_terms = path->precision.terms;
    }
    if (st == DPT_OK && path != NULL)
        st = set_verdict(inputs, edit, d, &evaluation->data[d], path, out);
    if (st == DPT_OK && path != NULL)
        out->scalars.safe_rate = dpt_prediction_safe_rate(
            &evaluation->data[d].law, out->scalars.loss_post, out->scalars.margin, 0.0);
    if (st == DPT_OK && path != NULL && evaluation->data[d].logits.probes > 0)
        out->scalars.safe_rate_accuracy = evaluation->data[d].logits.safe_rate;
    out->scalars.seconds = seconds;
    if (st != DPT_OK)
        dpt_result_destroy(out);
    return st;
}
