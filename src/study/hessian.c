#include "hessian.h"
#include "spectrum.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* First step along a direction of the size of Delta. A random direction has s = step^2 (doc/science.md): at 1/8 the
 * law holds to some per cent, and half the step is four times closer. */
static const double HESSIAN_FIRST = 0.125;
static const double HESSIAN_LEAST = 1e-4, HESSIAN_MOST = 0.5;

/* Passes of a pair of steps, and of the search for a step: of 4 to 12 the usual number, as three or four halvings and
 * one more that is no better. */
enum { HESSIAN_STEP_PASSES = 2, HESSIAN_RUN_PASSES = 10 };

/* The model on one data set. */
typedef struct hessian_data {
    dpt_evaluation *evaluation;
    int d;
} hessian_data;

static dpt_status hessian_slope(void *ctx, double t, double *loss, double *terms,
                                double *sample_terms) {
    hessian_data *data = ctx;
    return dpt_evaluation_slope(data->evaluation, data->d, t, loss, terms, sample_terms);
}

static dpt_oracle hessian_oracle(hessian_data *data) {
    return (dpt_oracle){.ctx = data,
                        .samples = data->evaluation->data[data->d].samples,
                        .terms = dpt_model_catalog(data->evaluation->model)->count,
                        .slope = hessian_slope};
}

/* The first probe finds the step, the others take the shorter of its two. */
static dpt_status hessian_probe(const dpt_comm *comm, const dpt_oracle *oracle, int r,
                                dpt_signs *signs) {
    double *draw = dpt_law_draw(&signs->law, r);
    if (r > 0)
        return dpt_central_step(comm, oracle, signs->step, draw);
    dpt_central central;
    dpt_status st = dpt_central_run(comm, oracle, HESSIAN_FIRST, &central);
    if (st == DPT_OK) {
        memcpy(draw, central.derivative, (size_t)oracle->terms * sizeof *draw);
        signs->step = central.step;
        signs->error = central.error / 2.0;
    }
    dpt_central_destroy(&central);
    return st;
}

static dpt_status hessian_probes(dpt_evaluation *ev, int d, dpt_signs *signs) {
    const dpt_job *job = ev->inputs->job;
    hessian_data data = {.evaluation = ev, .d = d};
    dpt_oracle oracle = hessian_oracle(&data);
    dpt_status st = DPT_OK;
    for (int r = 0; r < job->hessian.probes && st == DPT_OK; r++) {
        char name[32];
        snprintf(name, sizeof name, "signs %d", r);
        dpt_model_direction direction = {
            .moves = ev->inputs->selected, .signs = true, .seed = job->hessian.seed, .name = name};
        dpt_evaluation_direct(ev, &direction);
        st = hessian_probe(&ev->mesh.world, &oracle, r, signs);
        dpt_evaluation_direct(ev, NULL);
    }
    return st;
}

/* sum (g_i Delta_i)^2 over the selected tensors. */
static dpt_status hessian_squares(dpt_evaluation *ev, int d, dpt_signs *signs) {
    int tensors = dpt_model_catalog(ev->model)->count;
    double *squares = dpt_mem_zalloc(tensors, sizeof *squares, "squares of slopes");
    dpt_status st = dpt_agree(&ev->mesh.world, squares != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    if (st == DPT_OK)
        st = dpt_evaluation_squares(ev, d, squares);
    signs->squares = 0.0;
    for (int k = 0; k < tensors && st == DPT_OK; k++)
        signs->squares += ev->inputs->selected[k] ? squares[k] : 0.0;
    dpt_mem_free(squares);
    return st;
}

static dpt_status hessian_measure_signs(dpt_evaluation *ev, int d) {
    dpt_signs *signs = &ev->data[d].signs;
    int tensors = dpt_model_catalog(ev->model)->count;
    dpt_status st = dpt_law_create(tensors, ev->inputs->job->hessian.probes, &signs->law);
    st = dpt_agree(&ev->mesh.world, st);
    if (st == DPT_OK)
        st = hessian_squares(ev, d, signs);
    if (st == DPT_OK)
        st = hessian_probes(ev, d, signs);
    if (st == DPT_OK)
        dpt_signs_finish(signs, ev->inputs->selected);
    return st;
}

static dpt_status hessian_measure_edit(dpt_evaluation *ev, int d, double ratio, dpt_central *out) {
    hessian_data data = {.evaluation = ev, .d = d};
    dpt_oracle oracle = hessian_oracle(&data);
    double first = HESSIAN_FIRST * ratio;
    if (!(first > HESSIAN_LEAST))
        first = HESSIAN_LEAST;
    return dpt_central_run(&ev->mesh.world, &oracle, fmin(first, HESSIAN_MOST), out);
}

/* One column: W moves in group m alone, the slopes are of all tensors. */
static dpt_status hessian_column(dpt_evaluation *ev, const dpt_oracle *oracle, double step, int m,
                                 bool *moves, dpt_blocks *out) {
    for (int64_t t = 0; t < oracle->terms; t++)
        moves[t] = out->groups.group_of[t] == m;
    const dpt_model_direction direction = {.moves = moves};
    double *column = dpt_mem_zalloc(oracle->terms, sizeof *column, "column of blocks");
    dpt_status st = dpt_agree(&ev->mesh.world, column != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    dpt_evaluation_direct(ev, &direction);
    if (st == DPT_OK)
        st = dpt_central_step(&ev->mesh.world, oracle, step, column);
    dpt_evaluation_direct(ev, NULL);
    for (int64_t t = 0; t < oracle->terms && st == DPT_OK; t++)
        out->values[t * out->groups.count + m] =
            out->groups.group_of[t] >= 0 ? column[t] / 2.0 : 0.0;
    dpt_mem_free(column);
    return st;
}

static dpt_status hessian_measure_blocks(dpt_evaluation *ev, int d, double step, dpt_blocks *out) {
    hessian_data data = {.evaluation = ev, .d = d};
    dpt_oracle oracle = hessian_oracle(&data);
    bool *moves = dpt_mem_zalloc(oracle.terms, sizeof *moves, "group of tensors");
    dpt_status st = dpt_groups_create(ev->inputs, ev->inputs->job->hessian.blocks, &out->groups);
    out->values = dpt_mem_zalloc(oracle.terms * out->groups.count, sizeof *out->values,
                                 "blocks of a Hessian");
    st = dpt_agree(&ev->mesh.world, moves != NULL && out->values != NULL ? st : DPT_ERR_OUTPUT);
    for (int m = 0; m < out->groups.count && st == DPT_OK; m++)
        st = hessian_column(ev, &oracle, step, m, moves, out);
    dpt_mem_free(moves);
    return st;
}

/* |Delta| / |E|; 1 of an edit that changes nothing. */
static double hessian_ratio(const dpt_edit_report *report) {
    double delta = 0.0, edit = 0.0;
    for (int t = 0; t < report->ntensors; t++) {
        const dpt_edit_tensor_stats *of = &report->stats[t];
        delta += of->delta_norm * of->delta_norm;
        edit += of->edit_norm * of->edit_norm;
    }
    return edit > 0.0 ? sqrt(delta / edit) : 1.0;
}

dpt_status dpt_hessian_measure_unit(dpt_evaluation *ev, int d, const dpt_edit_report *report,
                                    dpt_central *hessian, dpt_blocks *blocks) {
    const dpt_job *job = ev->inputs->job;
    dpt_status st = DPT_OK;
    if (job->hessian.edits)
        st = hessian_measure_edit(ev, d, hessian_ratio(report), hessian);
    if (st == DPT_OK && job->hessian.blocks != DPT_GROUPS_NONE)
        st = hessian_measure_blocks(ev, d, hessian->step, blocks);
    return st;
}

dpt_status dpt_hessian_measure_data(dpt_evaluation *ev, const dpt_shard *shard) {
    const dpt_job *job = ev->inputs->job;
    dpt_status st = DPT_OK;
    for (int d = 0; d < job->njudged && st == DPT_OK && job->hessian.probes > 0; d++) {
        st = hessian_measure_signs(ev, d);
        if (st == DPT_OK)
            dpt_signs_log(job->data[d].name, &ev->data[d].signs);
    }
    for (int d = 0; d < job->njudged && st == DPT_OK && job->hessian.lanczos > 0; d++) {
        st = dpt_spectrum_measure(ev, shard, d);
        if (st == DPT_OK)
            dpt_spectrum_log(job->data[d].name, &ev->data[d].spectrum);
    }
    return st;
}

int64_t dpt_hessian_passes(const dpt_job *job) {
    int64_t more = job->hessian.probes - 1;
    return more < 0 ? 0 : HESSIAN_RUN_PASSES + HESSIAN_STEP_PASSES * more;
}

int64_t dpt_hessian_edit_passes(const dpt_inputs *in) {
    int64_t blocks = HESSIAN_STEP_PASSES * (int64_t)dpt_groups_count(in, in->job->hessian.blocks);
    return in->job->hessian.edits ? HESSIAN_RUN_PASSES + blocks : 0;
}
