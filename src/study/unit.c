#include "unit.h"

#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/edit/choices.h"
#include "deltapath/path/bootstrap.h"
#include "deltapath/path/verdict.h"
#include "deltapath/path/weighted.h"
#include "guards.h"

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
        int64_t numel = in->catalog->tensors[t].numel;
        out->stats[t] = (dpt_result_tensor){
            .delta_norm = from->delta_norm,
            .edit_norm = from->edit_norm,
            .share_changed = numel > 0 ? (double)from->changed / (double)numel : 0,
            .share_zero = from->zeros / (double)(numel > 0 ? numel : 1),
            .rank = from->rank > 0 ? (double)from->rank : NAN,
            .residual = from->residual,
            .scale = from->scale,
            .correlation = from->correlation};
    }
    dpt_status st = DPT_OK;
    for (int t = 0; t < report->ntensors && report->nsingular > 0 && st == DPT_OK; t++) {
        int64_t first = report->singular_first[t];
        int64_t count = report->singular_first[t + 1] - first;
        if (count > 0)
            st = dpt_result_add_spectrum(out, t, count, report->singular + first);
    }
    return st;
}

static void copy(double *to, const double *from, int64_t n) {
    memcpy(to, from, (size_t)n * sizeof *to);
}

static void set_path(const dpt_riemann *from, const dpt_baseline *base, dpt_result *out) {
    copy(out->nodes, from->quadrature.node, from->quadrature.points);
    copy(out->weights, from->quadrature.weight, from->quadrature.points);
    copy(out->path_loss, from->loss_mean, from->quadrature.points);
    copy(out->terms, from->term, from->terms * from->quadrature.points);
    copy(out->integrated, from->integrated, from->terms);
    copy(out->second_order, from->second_order, from->terms);
    copy(out->loss_pre, base->loss_pre, from->samples);
    copy(out->loss_post, base->loss_post, from->samples);
    copy(out->loss_edit, from->loss_edit, from->samples);
    copy(out->sample_integrated, from->sample_integrated, from->samples);
    const double *shares = dpt_loss_shares(base->loss);
    for (int64_t s = 0; s < from->samples; s++)
        out->sample_shares[s] = shares != NULL ? shares[s] : 1.0 / (double)from->samples;
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

/* The losses that a verdict judges, of the samples with weight: their plain means are the weighted
 * ones. */
typedef struct judged_losses {
    int64_t n;
    double *pre, *post, *edit, *integrated; /* (n) in one block */
} judged_losses;

static dpt_status weigh(const dpt_baseline *base, const dpt_riemann *riemann, judged_losses *out) {
    const double *shares = dpt_loss_shares(base->loss);
    int64_t n = base->samples;
    *out = (judged_losses){.n = 0};
    out->pre = dpt_mem_alloc(4 * n, sizeof *out->pre, "weighted losses");
    if (out->pre == NULL)
        return DPT_ERR_OUTPUT;
    out->post = out->pre + n;
    out->edit = out->post + n;
    out->integrated = out->edit + n;
    out->n = dpt_weighted_values(shares, n, base->loss_pre, out->pre);
    dpt_weighted_values(shares, n, riemann->loss_post, out->post);
    dpt_weighted_values(shares, n, riemann->loss_edit, out->edit);
    dpt_weighted_values(shares, n, riemann->sample_integrated, out->integrated);
    return DPT_OK;
}

static dpt_verdict_options judge_options(const dpt_inputs *in, int d) {
    dpt_verdict_options options = dpt_verdict_defaults();
    options.share_margin = in->job->margin_share;
    options.absolute_margin = in->job->margin;
    options.effective = in->data[d].effective;
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

/* The reason of a verdict, with the doubt about the gain that holds for every verdict on this data. */
static dpt_status set_reason(const dpt_job_edit *edit, const dpt_verdict *judged, const char *note,
                             dpt_result *out) {
    const char *doubt = judged->doubt;
    const char *draw = one_draw(edit, judged);
    char seen[64];
    seen_before(out, seen);
    if (isnan(judged->change.low))
        note = "";
    if (doubt == NULL || strncmp(judged->reason, doubt, strlen(doubt)) == 0)
        return dpt_result_set_string(&out->reason, "%s%s%s%s", judged->reason, draw, note, seen);
    return dpt_result_set_string(&out->reason, "%s%s%s%s; %s", judged->reason, draw, note, seen,
                                 doubt);
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
    const double *shares = dpt_loss_shares(base->loss);
    dpt_verdict_options options = judge_options(in, d);
    int64_t n = base->samples;
    if (dpt_verdict_is_one(in->data[d].effective))
        return DPT_OK;
    double *pre = dpt_mem_alloc(2 * n, sizeof *pre, "weighted losses");
    if (pre == NULL)
        return DPT_ERR_OUTPUT;
    double *post = pre + n;
    int64_t weighted = dpt_weighted_values(shares, n, base->loss_pre, pre);
    dpt_weighted_values(shares, n, base->loss_post, post);
    dpt_verdict judged = dpt_verdict_judge(weighted, pre, post, post, NULL, &options);
    if (judged.doubt != NULL)
        dpt_log(DPT_LOG_WARN, "%s: %s (gain %.3g nats, 95 %% interval %.3g to %.3g)",
                job->data[d].name, judged.doubt, judged.gain.mean, judged.gain.low,
                judged.gain.high);
    dpt_mem_free(pre);
    return DPT_OK;
}

/* Resamples of the change. Edits on one data set are resampled alike. */
static dpt_status resample(const dpt_job *job, int d, const judged_losses *losses,
                           dpt_bootstrap_draws *out) {
    const dpt_bootstrap source = {.seed = job->statistics.seed,
                                  .stream = job->data[d].name,
                                  .resamples = job->statistics.resamples};
    return dpt_bootstrap_draw(losses->n, losses->edit, losses->post, &source, out);
}

/* From this skewness on Student's interval of some hundred samples misses twice as often as it says, and
 * studentised resamples of so many do better; of fewer they do not know the tail. */
enum { SKEW_SAMPLES = 50, SKEW_NOTE = 160 };
static const double SKEW_MOST = 2.0;

/* Whether resamples judge the change in place of Student's distribution, and what the reason says of it. */
static bool choose_curve(const dpt_job *job, const judged_losses *losses,
                         dpt_bootstrap_draws *draws, char note[SKEW_NOTE]) {
    note[0] = '\0';
    if (draws->resamples == 0 || job->statistics.interval == DPT_INTERVAL_T)
        return false;
    if (job->statistics.interval == DPT_INTERVAL_BOOTSTRAP)
        return true;
    double skew = dpt_verdict_skew(losses->n, losses->edit, losses->post);
    if (!(fabs(skew) > SKEW_MOST))
        return false;
    /* Where resamples without spread reach the levels of the intervals, these would be infinite. */
    if (losses->n >= SKEW_SAMPLES && draws->flat <= draws->resamples / 1000) {
        draws->kind = DPT_BOOTSTRAP_T;
        snprintf(note, SKEW_NOTE, " (skew %.1f: interval of studentised resamples)", skew);
        return true;
    }
    snprintf(note, SKEW_NOTE,
             " (skew %.1f, for which the %" PRId64
             " samples are too few: the interval may not cover)",
             skew, losses->n);
    return false;
}

static void set_scalars(const dpt_riemann *riemann, const dpt_verdict *judged,
                        dpt_result_scalars *s) {
    s->change = riemann->change;
    s->change_se = judged->change.se;
    s->change_low = judged->change.low;
    s->change_high = judged->change.high;
    s->equivalence_low = judged->equivalence.low;
    s->equivalence_high = judged->equivalence.high;
    s->estimate = riemann->estimate;
    s->estimate_se = judged->estimate.n > 0 ? judged->estimate.se : NAN;
    s->estimate_low = judged->estimate.n > 0 ? judged->estimate.low : NAN;
    s->estimate_high = judged->estimate.n > 0 ? judged->estimate.high : NAN;
    s->estimate_quadrature = riemann->quadrature_error;
    s->error = riemann->error;
    s->second_order = riemann->second_order_total;
    s->gain = judged->gain.mean;
    s->gain_low = judged->gain.low;
    s->gain_high = judged->gain.high;
    s->share = judged->share;
    s->share_low = judged->share_low;
    s->share_high = judged->share_high;
    s->margin = judged->margin;
    s->p_change = judged->p_change;
    s->p_equivalent = judged->p_equivalent;
}

/* The verdict, the BCa interval whichever judges, and what the reason says of the one that does. */
static dpt_status judge(const dpt_inputs *in, int d, const judged_losses *l, dpt_verdict *judged,
                        dpt_interval *bca, char note[SKEW_NOTE]) {
    dpt_verdict_options options = judge_options(in, d);
    dpt_bootstrap_draws draws;
    dpt_verdict_curve curve = {
        .ctx = &draws, .end = dpt_bootstrap_end, .level = dpt_bootstrap_level};
    dpt_status st = resample(in->job, d, l, &draws);
    if (st != DPT_OK)
        return st;
    *bca = dpt_verdict_paired(l->n, l->edit, l->post, options.confidence);
    if (draws.resamples > 0) {
        bca->low = dpt_bootstrap_end(&draws, 0.5 * (1.0 - options.confidence));
        bca->high = dpt_bootstrap_end(&draws, 0.5 * (1.0 + options.confidence));
    }
    if (choose_curve(in->job, l, &draws, note)) {
        curve.se = draws.kind == DPT_BOOTSTRAP_BCA ? draws.spread : draws.se;
        options.curve = &curve;
    }
    *judged = dpt_verdict_judge(l->n, l->pre, l->post, l->edit, l->integrated, &options);
    dpt_bootstrap_destroy(&draws);
    return DPT_OK;
}

static dpt_status set_verdict(const dpt_inputs *in, const dpt_job_edit *edit, int d,
                              const dpt_baseline *base, const dpt_evaluation_path *path,
                              dpt_result *out) {
    const dpt_riemann *riemann = &path->riemann;
    warn_of_edit(in->job->data[d].name, out->edit, riemann);
    char note[SKEW_NOTE];
    dpt_interval bca;
    dpt_verdict judged;
    judged_losses losses;
    dpt_status st = weigh(base, riemann, &losses);
    if (st == DPT_OK)
        st = judge(in, d, &losses, &judged, &bca, note);
    if (st != DPT_OK)
        goto done;
    dpt_result_scalars *s = &out->scalars;
    s->loss_pre = dpt_weighted_mean(NULL, losses.n, losses.pre);
    s->loss_post = dpt_weighted_mean(NULL, losses.n, losses.post);
    s->loss_edit = dpt_weighted_mean(NULL, losses.n, losses.edit);
    s->accuracy_pre = base->accuracy_pre;
    s->accuracy_post = base->accuracy_post;
    s->accuracy_edit = path->accuracy_edit;
    bool one = isnan(judged.change.low);
    s->bootstrap_low = one ? NAN : bca.low;
    s->bootstrap_high = one ? NAN : bca.high;
    set_scalars(riemann, &judged, s);
    st = dpt_result_set_string(&out->verdict, "%s", dpt_verdict_name(judged.verdict));
    if (st == DPT_OK)
        st = set_reason(edit, &judged, note, out);
done:
    dpt_mem_free(losses.pre);
    return st;
}

/* What was known before the edit was measured; NaN stays where it was not. */
static void unit_set_law(const dpt_law *law, dpt_result *out) {
    if (law->mean == NULL)
        return;
    dpt_result_scalars *s = &out->scalars;
    copy(out->curvature, law->mean, out->tensors);
    copy(out->curvature_se, law->se, out->tensors);
    s->curvature = law->total;
    s->curvature_se = law->total_se;
}

static dpt_status unit_set_prediction(const dpt_prediction *p, dpt_result *out) {
    dpt_result_scalars *s = &out->scalars;
    if (!p->made)
        return DPT_OK;
    s->predicted_first = p->first;
    s->predicted_second = p->second;
    s->predicted_change = p->change;
    s->predicted_se = p->se;
    s->predicted_s = p->s;
    s->predicted_in_range = p->in_range;
    dpt_status st = dpt_result_set_string(&out->predicted_at, "%s", p->at);
    return st == DPT_OK ? dpt_result_set_string(&out->predicted_range, "%s", p->range) : st;
}

/* Size of the edit, and the value of each tensor where they have their own. */
static void unit_set_size(const dpt_inputs *in, const dpt_edit_spec *spec,
                          const dpt_edit_report *report, dpt_result *out) {
    const dpt_edit_input input = {.post = {.catalog = in->catalog},
                                  .comparable = in->pair.comparable,
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
        set_path(&path->riemann, &evaluation->data[d], out);
        unit_set_law(&evaluation->data[d].law, out);
        unit_set_correlation(&path->correlation, out);
        st = unit_set_choice(inputs, edit, d, path, out);
        if (st == DPT_OK)
            st = unit_set_prediction(&path->prediction, out);
    }
    if (st == DPT_OK && path != NULL)
        st = set_verdict(inputs, edit, d, &evaluation->data[d], path, out);
    if (st == DPT_OK && path != NULL)
        out->scalars.safe_rate = dpt_prediction_safe_rate(
            &evaluation->data[d].law, out->scalars.loss_post, out->scalars.margin, 0.0);
    out->scalars.seconds = seconds;
    if (st != DPT_OK)
        dpt_result_destroy(out);
    return st;
}
