#include "auto_alpha.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"
#include "deltapath/path/line_search.h"
#include "deltapath/path/weighted.h"
#include "deltapath/tensor/role.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MODEL_EVALUATIONS = 10, LAYER_EVALUATIONS = 4 };

/* A layer may move this share of the reach away from the alpha of the model. */
static const double GROUP_ROOM = 0.5;
/* The search along the joint step of the layers goes this far, in steps. */
static const double LAYER_STRETCH = 1.5;

typedef struct seeker {
    dpt_evaluation *evaluation;
    const dpt_job_edit *edit;
    dpt_auto_bind_fn bind;
    void *ctx;
    int tensors;
    int groups;    /* those outside the layers, then the layers */
    int *group_of; /* (tensors) */
    double reach;
    double sign;     /* t = sign * place: the bound E is sign * Delta */
    int calls;       /* since the start of the search along the model */
    double *loss;    /* (samples) */
    double *terms;   /* (tensors) */
    double *samples; /* (samples) derivatives of each sample */
    double
        *slopes;  /* (MODEL_EVALUATIONS, groups) derivatives at the places of the model's search */
    double *step; /* (groups) alpha of each group */
    dpt_interval at_post; /* derivative by alpha at W_post, over samples */
} seeker;

static const double *shares_of(const seeker *s) {
    return dpt_loss_shares(s->evaluation->data[s->edit->auto_data].loss);
}

/* Loss and derivative at a place of the line that is bound. */
static dpt_status evaluate(void *ctx, double place, double *loss, double *slope) {
    seeker *s = ctx;
    int64_t n = s->evaluation->data[s->edit->auto_data].samples;
    dpt_status st = dpt_evaluation_slope(s->evaluation, s->edit->auto_data, s->sign * place,
                                         s->loss, s->terms, s->samples);
    if (st != DPT_OK)
        return st;
    *loss = dpt_weighted_mean(shares_of(s), n, s->loss);
    *slope = 0.0;
    for (int t = 0; t < s->tensors; t++)
        *slope += s->sign * s->terms[t];
    /* By these values all ranks choose the next place, each for itself. */
    DPT_ASSERT_SAME(&s->evaluation->mesh.world, *loss);
    DPT_ASSERT_SAME(&s->evaluation->mesh.world, *slope);
    return DPT_OK;
}

/* Of the derivative at W_post, of clusters where the data set has some; unknown of one sample in effect, and where all
 * are alike. */
static dpt_status seek_interval(seeker *s) {
    const dpt_dataset *data = &s->evaluation->inputs->data[s->edit->auto_data];
    dpt_weighted weighted;
    dpt_status st = dpt_weighted_create(data->samples, shares_of(s), data->clusters, &weighted);
    if (st != DPT_OK)
        return st;
    st = dpt_weighted_interval(&weighted, data->effective, s->samples, s->samples, 0.95,
                               &s->at_post);
    if (!(s->at_post.se > 0.0))
        s->at_post.low = s->at_post.high = NAN;
    dpt_weighted_destroy(&weighted);
    return st;
}

static dpt_status evaluate_model(void *ctx, double alpha, double *loss, double *slope) {
    seeker *s = ctx;
    dpt_status st = evaluate(ctx, alpha, loss, slope);
    if (st != DPT_OK)
        return st;
    double *row = s->slopes + (int64_t)s->calls * s->groups;
    for (int t = 0; t < s->tensors; t++)
        row[s->group_of[t]] += s->sign * s->terms[t];
    if (s->calls++ == 0) {
        int64_t n = s->evaluation->data[s->edit->auto_data].samples;
        for (int64_t i = 0; i < n; i++)
            s->samples[i] *= s->sign;
        return dpt_agree(&s->evaluation->mesh.world, seek_interval(s));
    }
    return DPT_OK;
}

/* Whether the slope at W_post can be told from zero. */
static bool is_decided(const seeker *s) {
    return s->at_post.high < 0.0 || s->at_post.low > 0.0;
}

/* E = -Delta, exact also in 16 bits: the edited model is the pre-trained one. */
static dpt_status seek_model(seeker *s, dpt_line_search *out) {
    dpt_edit_spec back = {.nstages = 1, .seed = s->edit->spec.seed};
    dpt_edit_stage_init(&back.stages[0], s->edit->spec.stages[0].method);
    dpt_status st = dpt_edit_stage_set(&back.stages[0], "alpha", "-1");
    if (st == DPT_OK)
        st = s->bind(s->ctx, &back);
    s->sign = -1.0;
    dpt_line_search_point start = {.at = 0.0};
    if (st == DPT_OK)
        st = evaluate_model(s, 0.0, &start.loss, &start.slope);
    dpt_line_search_options options = dpt_line_search_defaults();
    if (!is_decided(s)) /* no way leads down from 0 that these samples can tell from chance */
        options.lower = options.upper = 0.0;
    else
        options.upper = s->reach;
    DPT_ASSERT_SAME(&s->evaluation->mesh.world, options.upper);
    options.start = &start;
    options.evaluations = MODEL_EVALUATIONS - 1;
    if (st == DPT_OK)
        st = dpt_line_search_run(evaluate_model, s, &options, out);
    out->evaluations++;
    return st;
}

/* Each group's own step: where its derivative vanishes on the secant through W_post and a second
 * place of the model's search. */
static void choose_steps(seeker *s, const dpt_line_search *model) {
    int second = 1;
    for (int i = 1; i < model->points; i++)
        if (model->point[i].at == model->at)
            second = i;
    double at = model->points > 1 ? model->point[second].at : 0.0;
    double room = s->reach * GROUP_ROOM;
    for (int g = 0; g < s->groups; g++) {
        double slope = s->slopes[g];
        double curvature =
            at != 0.0 ? (s->slopes[(int64_t)second * s->groups + g] - slope) / at : 0.0;
        double step = curvature > 0.0 ? -slope / curvature : model->at;
        step = fmin(fmax(step, model->at - room), model->at + room);
        s->step[g] = isfinite(step) ? fmin(fmax(step, -1.0), s->reach) : model->at;
    }
}

static void spread_steps(const seeker *s, double scale, double *alpha) {
    for (int t = 0; t < s->tensors; t++)
        alpha[t] = scale * s->step[s->group_of[t]];
}

/* How far the joint step may be stretched before the first group leaves [-1, reach]: at least 1. */
static double most_stretch(const seeker *s) {
    double upper = LAYER_STRETCH;
    for (int g = 0; g < s->groups; g++) {
        double end = s->step[g] > 0.0 ? s->reach : -1.0;
        if (s->step[g] != 0.0)
            upper = fmin(upper, fmax(end / s->step[g], 1.0));
    }
    return upper;
}

/* The minimum along the joint step of all groups. */
static dpt_status seek_layers(seeker *s, const dpt_line_search *model, dpt_auto_alpha *out,
                              dpt_line_search *joint) {
    choose_steps(s, model);
    spread_steps(s, 1.0, out->alpha);
    double slope = 0.0;
    for (int g = 0; g < s->groups; g++)
        slope += s->slopes[g] * s->step[g];
    const dpt_line_search_point start = {.at = 0.0, .loss = model->point[0].loss, .slope = slope};
    dpt_line_search_options options = dpt_line_search_defaults();
    options.lower = 0.0;
    options.upper = most_stretch(s);
    DPT_ASSERT_SAME(&s->evaluation->mesh.world, options.upper);
    options.step = 1.0;
    options.evaluations = LAYER_EVALUATIONS;
    options.start = &start;
    s->sign = 1.0;
    dpt_status st = s->bind(s->ctx, &out->spec);
    return st == DPT_OK ? dpt_line_search_run(evaluate, s, &options, joint) : st;
}

dpt_status dpt_auto_alpha_note(dpt_auto_alpha *out, const char *name, const char *format, ...) {
    char value[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(value, sizeof value, format, args);
    va_end(args);
    dpt_result_parameter *grown =
        dpt_mem_realloc(out->notes, (int64_t)out->nnotes + 1, sizeof *grown, "notes");
    if (grown == NULL)
        return DPT_ERR_OUTPUT;
    out->notes = grown;
    dpt_result_parameter *one = &grown[out->nnotes++];
    *one = (dpt_result_parameter){.name = dpt_mem_strdup(name, "note"),
                                  .value = dpt_mem_strdup(value, "note")};
    return one->name != NULL && one->value != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

static dpt_status note_trace(dpt_auto_alpha *out, const dpt_line_search *minimum,
                             const char *name) {
    char text[2048] = "";
    for (int i = 0; i < minimum->points; i++) {
        const dpt_line_search_point *p = &minimum->point[i];
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "%s%.6g:%.6g:%.6g", i > 0 ? ";" : "", p->at,
                 p->loss, p->slope);
    }
    return dpt_auto_alpha_note(out, name, "%s", text);
}

static const char *advice_of(const seeker *s) {
    return s->at_post.high < 0.0  ? "extrapolate"
           : s->at_post.low > 0.0 ? "interpolate"
                                  : "undecided";
}

static dpt_status write_notes(const seeker *s, const dpt_line_search *model,
                              const dpt_line_search *joint, dpt_auto_alpha *out) {
    bool layers = joint->points > 0;
    bool kept = layers && joint->loss < model->loss;
    const char *end = !is_decided(s)     ? "kept"
                      : model->bracketed ? "enclosed"
                      : model->border    ? "border"
                                         : "open";
    dpt_status st = dpt_auto_alpha_note(out, "found_alpha", "%.6g", model->at);
    const char *const names[] = {"advice", "trough"};
    const char *const values[] = {advice_of(s), end};
    for (int i = 0; i < 2 && st == DPT_OK; i++)
        st = dpt_auto_alpha_note(out, names[i], "%s", values[i]);
    if (st == DPT_OK)
        st = dpt_auto_alpha_note(out, "slope_at_post", "%.6g", model->point[0].slope);
    if (st == DPT_OK && isnan(s->at_post.low))
        st = dpt_auto_alpha_note(out, "slope_interval", "unknown");
    else if (st == DPT_OK)
        st = dpt_auto_alpha_note(out, "slope_interval", "%.6g:%.6g", s->at_post.low,
                                 s->at_post.high);
    if (st == DPT_OK)
        st = dpt_auto_alpha_note(out, "gradients", "%d", model->evaluations + joint->evaluations);
    if (st == DPT_OK)
        st = dpt_auto_alpha_note(out, "found_loss", "%.9g", kept ? joint->loss : model->loss);
    if (st == DPT_OK)
        st = note_trace(out, model, "alpha_loss_slope");
    if (st == DPT_OK && layers)
        st = note_trace(out, joint, "step_loss_slope");
    for (int g = 0; g < s->groups && layers && st == DPT_OK; g++) {
        char name[32] = "alpha_outside";
        if (g > 0)
            snprintf(name, sizeof name, "alpha_layer%d", g - 1);
        st = dpt_auto_alpha_note(out, name, "%.6g", kept ? joint->at * s->step[g] : model->at);
    }
    return st;
}

static dpt_status group_tensors(seeker *s) {
    const dpt_catalog *catalog = dpt_model_catalog(s->evaluation->model);
    s->tensors = catalog->count;
    s->group_of = dpt_mem_zalloc(s->tensors, sizeof *s->group_of, "groups of tensors");
    if (s->group_of == NULL)
        return DPT_ERR_OUTPUT;
    s->groups = 1;
    for (int t = 0; t < s->tensors; t++) {
        s->group_of[t] = dpt_role_of(catalog->tensors[t].name).layer + 1;
        s->groups = s->group_of[t] >= s->groups ? s->group_of[t] + 1 : s->groups;
    }
    return DPT_OK;
}

static dpt_status auto_alpha_prepare(seeker *s, dpt_auto_alpha *out) {
    int64_t samples = s->evaluation->data[s->edit->auto_data].samples;
    if (group_tensors(s) != DPT_OK)
        return DPT_ERR_OUTPUT;
    s->loss = dpt_mem_alloc(samples, sizeof *s->loss, "losses");
    s->samples = dpt_mem_alloc(samples, sizeof *s->samples, "derivatives");
    s->terms = dpt_mem_alloc(s->tensors, sizeof *s->terms, "terms");
    s->slopes = dpt_mem_zalloc((int64_t)MODEL_EVALUATIONS * s->groups, sizeof *s->slopes, "slopes");
    s->step = dpt_mem_zalloc(s->groups, sizeof *s->step, "steps");
    out->alpha = dpt_mem_zalloc(s->tensors, sizeof *out->alpha, "alphas");
    out->spec = s->edit->spec;
    out->spec.stages[0].tensor_values = out->alpha;
    bool complete = s->loss != NULL && s->samples != NULL && s->terms != NULL &&
                    s->slopes != NULL && s->step != NULL && out->alpha != NULL;
    return complete ? DPT_OK : DPT_ERR_OUTPUT;
}

static bool auto_alpha_has_layers(const dpt_edit_spec *spec) {
    return dpt_edit_stage_get(&spec->stages[0], "groups") == 1.0;
}

dpt_auto_passes dpt_auto_alpha_passes(const dpt_edit_spec *spec) {
    dpt_auto_passes passes = {.most = MODEL_EVALUATIONS, .binds = 1, .expected = 4.0};
    if (auto_alpha_has_layers(spec)) {
        passes.most += LAYER_EVALUATIONS;
        passes.binds++;
        passes.expected += 2.0;
    }
    return passes;
}

dpt_status dpt_auto_alpha_find(dpt_evaluation *evaluation, const dpt_job_edit *edit,
                               dpt_auto_bind_fn bind, void *ctx, dpt_auto_alpha *out) {
    DPT_ASSERT_SAME_TEXT(&evaluation->mesh.world, edit->id);
    const dpt_edit_stage_spec *stage = &edit->spec.stages[0];
    seeker s = {.evaluation = evaluation, .edit = edit, .bind = bind, .ctx = ctx};
    dpt_line_search model = {.points = 0};
    dpt_line_search joint = {.points = 0};
    *out = (dpt_auto_alpha){.nnotes = 0};
    s.reach = dpt_edit_stage_get(stage, "reach");
    bool layers = auto_alpha_has_layers(&edit->spec);
    dpt_status st = dpt_agree(&evaluation->mesh.world, auto_alpha_prepare(&s, out));
    if (st == DPT_OK)
        st = seek_model(&s, &model);
    layers = layers && is_decided(&s);
    if (st == DPT_OK && layers)
        st = seek_layers(&s, &model, out, &joint);
    if (st == DPT_OK) {
        bool kept = layers && joint.loss < model.loss;
        for (int t = 0; t < s.tensors; t++)
            out->alpha[t] = kept ? joint.at * s.step[s.group_of[t]] : model.at;
        st = dpt_agree(&evaluation->mesh.world, write_notes(&s, &model, &joint, out));
    }
    dpt_mem_free(s.group_of);
    dpt_mem_free(s.loss);
    dpt_mem_free(s.samples);
    dpt_mem_free(s.terms);
    dpt_mem_free(s.slopes);
    dpt_mem_free(s.step);
    if (st == DPT_OK)
        dpt_log(DPT_LOG_INFO, "%s: %s by the slope at post-trained; alpha %.4g, loss %.6g -> %.6g",
                edit->id, advice_of(&s), model.at, model.point[0].loss,
                joint.points > 0 ? fmin(joint.loss, model.loss) : model.loss);
    else
        dpt_auto_alpha_destroy(out);
    return st;
}

void dpt_auto_alpha_destroy(dpt_auto_alpha *found) {
    for (int i = 0; i < found->nnotes; i++) {
        dpt_mem_free(found->notes[i].name);
        dpt_mem_free(found->notes[i].value);
    }
    dpt_mem_free(found->notes);
    dpt_mem_free(found->alpha);
    *found = (dpt_auto_alpha){.nnotes = 0};
}
