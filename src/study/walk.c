#include "evaluation.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/path/weighted.h"
#include "guards.h"

#include <math.h>
#include <string.h>

/* Oracle of the path: the model between post-trained and edit on one data set. */
typedef struct walker {
    dpt_evaluation *evaluation;
    dpt_baseline *base;
    uint8_t *correct;
    uint8_t *correct_edit; /* those at t = 1 */
    double accuracy_edit;
    double *
        spare; /* (columns + samples) slopes that only others ask for; NULL where the edit is alone */
} walker;

static void walk_scale(double *values, int64_t n, double factor) {
    for (int64_t i = 0; i < n; i++)
        values[i] *= factor;
}

/* Slopes, or with terms NULL losses alone. Along a line t is that of its lead, whose slopes are turned into those of the
 * edit; slopes that another edit takes at the place are taken at once. */
static dpt_status walk_slope(void *ctx, double t, double *loss, double *terms,
                             double *sample_terms) {
    walker *walk = ctx;
    const dpt_evaluation *ev = walk->evaluation;
    int tensors = dpt_model_catalog(ev->model)->count, columns = dpt_model_columns(ev->model);
    double place = dpt_line_place(&ev->line, t);
    bool spare = terms == NULL && dpt_line_has_slope(&ev->line, place);
    double *to = spare ? walk->spare : terms;
    dpt_pass pass = {.t = place,
                     .mode = to != NULL ? DPT_BACKWARD_TERMS : DPT_BACKWARD_NONE,
                     .losses = loss,
                     .correct = walk->correct,
                     .terms = to,
                     .sample_terms = spare ? walk->spare + columns : sample_terms,
                     .matrix_terms = to != NULL && columns > tensors ? to + tensors : NULL,
                     .lasting = ev->line.slopes != NULL};
    dpt_status st = dpt_evaluation_pass(walk->evaluation, walk->base, pass);
    if (terms != NULL && ev->line.slopes != NULL) {
        walk_scale(terms, columns, ev->line.factor);
        walk_scale(sample_terms, walk->base->samples, ev->line.factor);
    }
    if (t == 1.0) {
        walk->accuracy_edit = dpt_evaluation_share(walk->correct, walk->base);
        memcpy(walk->correct_edit, walk->correct, (size_t)walk->base->samples);
    }
    return st;
}

static dpt_status walk_loss(void *ctx, double t, double *loss) {
    return walk_slope(ctx, t, loss, NULL, NULL);
}

/* Terms at t = 0 from the gradient that all edits share. */
static dpt_status walk_start(dpt_evaluation *ev, const dpt_baseline *base, double *terms) {
    dpt_status st = dpt_evaluation_prepare(ev);
    if (st == DPT_OK)
        st = dpt_agree(&ev->mesh.world, dpt_model_gradient_dot(ev->model, base->gradient, terms));
    if (st == DPT_OK)
        st = dpt_comm_sum_f64(&ev->mesh.world, terms, dpt_model_columns(ev->model));
    walk_scale(terms, dpt_model_columns(ev->model), ev->line.factor);
    ev->passes.counts.reused++;
    return dpt_agree(&ev->mesh.world, st);
}

/* The edited model on the samples that only choose. */
static dpt_status walk_choosing(dpt_evaluation *ev, int d, dpt_evaluation_path *out) {
    int other = ev->inputs->job->data[d].other;
    if (other < 0)
        return DPT_OK;
    const dpt_baseline *base = &ev->data[other];
    const double *shares = dpt_loss_shares(base->loss);
    double *losses = dpt_mem_zalloc(base->samples, sizeof *losses, "losses");
    uint8_t *correct = dpt_mem_zalloc(base->samples, 1, "hits");
    dpt_status st = losses != NULL && correct != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    st = dpt_agree(&ev->mesh.world, st);
    dpt_pass pass = {.t = dpt_line_place(&ev->line, 1.0),
                     .mode = DPT_BACKWARD_NONE,
                     .losses = losses,
                     .correct = correct,
                     .lasting = ev->line.slopes != NULL};
    if (st == DPT_OK)
        st = dpt_evaluation_pass(ev, base, pass);
    if (st == DPT_OK) {
        out->choose_change = dpt_weighted_mean(shares, base->samples, losses) -
                             dpt_weighted_mean(shares, base->samples, base->loss_post);
        out->choose_accuracy = dpt_evaluation_share(correct, base);
    }
    dpt_mem_free(correct);
    dpt_mem_free(losses);
    return st;
}

dpt_status dpt_evaluation_walk(dpt_evaluation *ev, int d, const dpt_quadrature *quadrature,
                               dpt_prediction_task *task, dpt_evaluation_path *out) {
    dpt_baseline *base = &ev->data[d];
    int tensors = dpt_model_catalog(ev->model)->count, columns = dpt_model_columns(ev->model);
    walker walk = {.evaluation = ev, .base = base, .accuracy_edit = NAN};
    *out =
        (dpt_evaluation_path){.accuracy_edit = NAN, .choose_change = NAN, .choose_accuracy = NAN};
    double *start = dpt_mem_zalloc(columns, sizeof *start, "terms");
    walk.correct = dpt_mem_zalloc(base->samples, 1, "exact matches");
    out->correct_edit = dpt_mem_zalloc(base->samples, 1, "exact matches");
    walk.correct_edit = out->correct_edit;
    if (ev->line.slopes != NULL)
        walk.spare = dpt_mem_alloc(columns + base->samples, sizeof *walk.spare, "slopes of a line");
    bool complete = start != NULL && (walk.spare != NULL || ev->line.slopes == NULL) &&
                    walk.correct != NULL && out->correct_edit != NULL;
    dpt_status st = complete ? DPT_OK : DPT_ERR_OUTPUT;
    st = dpt_agree(&ev->mesh.world, st);
    dpt_riemann_shared shared = {.loss_start = base->loss_post,
                                 .sample_shares = dpt_loss_shares(base->loss)};
    if (st == DPT_OK && ev->shares) {
        st = walk_start(ev, base, start);
        shared.terms_start = start;
    }
    task->loss = dpt_weighted_mean(shared.sample_shares, base->samples, base->loss_post);
    task->rounding = dpt_guards_rounding(dpt_model_catalog(ev->model), task->report);
    if (st == DPT_OK)
        st = dpt_prediction_run(task, shared.terms_start);
    if (st == DPT_OK) {
        dpt_oracle oracle = {.ctx = &walk,
                             .samples = base->samples,
                             .terms = tensors,
                             .parts = columns - tensors,
                             .loss = walk_loss,
                             .slope = walk_slope};
        st = dpt_riemann_run(&ev->mesh.world, &oracle, quadrature, &shared, &out->riemann);
    }
    if (st == DPT_OK) /* the progress counts the most that the rule may take */
        ev->progress.total -= base->samples * (quadrature->points - out->riemann.quadrature.points);
    if (st == DPT_OK)
        dpt_prediction_see_path(&out->riemann, &task->made);
    out->prediction = task->made;
    if (st == DPT_OK)
        st = walk_choosing(ev, d, out);
    out->accuracy_edit = walk.accuracy_edit;
    dpt_mem_free(walk.spare);
    dpt_mem_free(walk.correct);
    dpt_mem_free(start);
    return st;
}

void dpt_evaluation_path_destroy(dpt_evaluation_path *path) {
    dpt_riemann_destroy(&path->riemann);
    dpt_central_destroy(&path->hessian);
    dpt_groups_destroy(&path->blocks.groups);
    dpt_mem_free(path->blocks.values);
    dpt_groups_destroy(&path->leave_out.groups);
    dpt_mem_free(path->leave_out.touched);
    dpt_mem_free(path->leave_out.without);
    dpt_mem_free(path->leave_out.alone);
    dpt_mem_free(path->correct_edit);
    *path = (dpt_evaluation_path){.accuracy_edit = NAN};
}
