#include "deltapath/study/study.h"

#include "deltapath/base/hash.h"
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/shared.h"
#include "deltapath/comm/phase.h"
#include "deltapath/comm/same.h"
#include "deltapath/linalg/blas_memory.h"
#include "deltapath/comm/stop.h"
#include "deltapath/path/verdict.h"
#include "allocate.h"
#include "auto_alpha.h"
#include "cell_gradient.h"
#include "decomposed.h"
#include "edited.h"
#include "evaluation.h"
#include "finished.h"
#include "guards.h"
#include "hessian.h"
#include "inputs.h"
#include "leave_out.h"
#include "line_join.h"
#include "logit_probes.h"
#include "newer.h"
#include "outputs.h"
#include "path_correlation.h"
#include "plan.h"
#include "plan_actual.h"
#include "plane.h"
#include "recipe.h"
#include "significance.h"
#include "stopped.h"
#include "memory.h"
#include "resources.h"
#include "summary.h"
#include "sweep.h"
#include "unit.h"
#include "verify_inputs.h"
#include "zero_delta.h"

#include <math.h>
#include <stdio.h>

typedef struct study {
    const dpt_comm *comm;
    const dpt_job *job;
    dpt_inputs inputs;
    dpt_resources resources;
    dpt_outputs outputs;
    dpt_finished finished;
    dpt_shard shard;
    bool in_cells;             /* edits are made in cells, one at a time, not straight into files */
    dpt_field *edited;         /* the one in hand, until it is written and bound */
    dpt_quantiser *quantiser;  /* only when edited models take the form of post */
    dpt_evaluation evaluation; /* only when a path is walked */
    dpt_cell_gradient gradient; /* only when edits take it */
    dpt_plane plane;            /* only when the job asks for it */
    dpt_lines lines;            /* only when a path is walked */
    dpt_decomposed decomposed;
    dpt_edit_slope *slopes; /* (tensors) of the edit in hand; NULL when no edit asks for them */
    bool evaluates;
    int units;    /* per edit: its data sets, or one for an edit alone */
    int done;     /* edits that are finished; -1 until a study that is resumed is looked at */
    bool checked; /* the stored hashes of the models are those of what was read */
    bool resumes;
    const dpt_job_edit *current;
    dpt_verified whole;
} study;

/* What passes take is free until the next one: for edits and searches. */
static void rest_model(const study *s) {
    if (s->evaluation.model != NULL)
        dpt_model_release_work(s->evaluation.model);
}

static dpt_edit_input edit_input(study *s) {
    return (dpt_edit_input){.comm = s->comm,
                            .pre_name = s->job->pre,
                            .post_name = s->job->post,
                            .shard = &s->shard,
                            .pre = dpt_pair_source(&s->inputs.pair),
                            .post = dpt_store_source(s->inputs.post),
                            .parts = &s->inputs.parts,
                            .comparable = s->inputs.pair.comparable,
                            .pair = &s->inputs.pair,
                            .selected = s->inputs.selected,
                            .svd_group = s->job->svd_group,
                            .svd_room = s->resources.svd_room,
                            .factors = s->decomposed.factors};
}

/* Room for an edit that is made in cells. Collective, agreed. */
static dpt_status open_cells(study *s) {
    return dpt_edited_open(s->comm, &s->inputs, &s->shard, &s->resources,
                           s->evaluates ? &s->evaluation : NULL, &s->edited);
}

static void close_cells(study *s) {
    dpt_field_destroy(s->edited);
    s->edited = NULL;
}

/* After an edit into memory, whose status is st. Collective. */
static dpt_status finish_edited(study *s, dpt_status st, dpt_field *edited,
                                dpt_store_writer *writer, dpt_edit_report *report) {
    st = dpt_agree(s->comm, st);
    return st != DPT_OK ? st
                        : dpt_edited_finish(s->comm, &s->inputs, &s->shard, s->quantiser, edited,
                                            writer, report);
}

/* Nothing is kept of an edit of models that are damaged or changed. */
static dpt_status check_inputs(study *s, dpt_status agreed) {
    dpt_status st = agreed;
    if (st == DPT_OK && !s->checked)
        st = dpt_inputs_check_end(s->comm, &s->inputs);
    if (st == DPT_OK && !s->checked)
        st = dpt_finished_compare(&s->inputs, &s->finished, s->inputs.digest);
    s->checked = s->checked || st == DPT_OK;
    return st == DPT_OK ? dpt_inputs_check_unchanged(s->comm, &s->inputs, false) : st;
}

/* The input of an edit, with the gradient where it takes one. Binds another edit. */
static dpt_status give_gradient(study *s, const dpt_job_edit *edit, const dpt_edit_spec *spec,
                                dpt_edit_input *input) {
    rest_model(s);
    *input = edit_input(s);
    if (s->gradient.field == NULL || edit->gradient_data < 0)
        return DPT_OK;
    input->gradient = &s->gradient.source;
    dpt_status st = dpt_cell_gradient_fill(&s->gradient, &s->evaluation, edit->gradient_data);
    if (st == DPT_OK && dpt_significance_is_wanted(spec))
        st = dpt_significance_measure(&s->evaluation, edit, spec, input, s->slopes);
    input->slopes = s->slopes;
    return st;
}

/* Edit into memory and from there into a file. */
static dpt_status make_edit(study *s, const dpt_job_edit *edit, const dpt_edit_spec *spec,
                            dpt_edit_report *report, uint64_t *model) {
    dpt_edit_input input;
    char place[DPT_MESSAGE_MAX / 4];
    dpt_comm_phase("edit");
    dpt_store_writer *writer = NULL;
    dpt_status st = give_gradient(s, edit, spec, &input);
    if (st == DPT_OK)
        st = open_cells(s);
    if (st == DPT_OK && !s->checked)
        st = dpt_inputs_check_begin(s->comm, &s->inputs, &s->shard);
    if (st == DPT_OK && s->job->checkpoint != DPT_STORE_NONE)
        st = dpt_outputs_create_model(s->comm, &s->inputs, edit, spec, &s->shard, s->quantiser,
                                      &writer);
    if (st != DPT_OK)
        return st;
    st = dpt_edit_run(spec, &input, dpt_field_sink(s->edited), report);
    snprintf(place, sizeof place, "edit %s", edit->id);
    st = dpt_error_locate(st, place);
    st = finish_edited(s, st, s->edited, writer, report);
    st = check_inputs(s, dpt_agree(s->comm, st));
    if (st == DPT_OK && writer != NULL)
        st = dpt_outputs_replace(s->comm, &s->outputs);
    if (writer != NULL)
        st = dpt_store_finish_digest(writer, st, model);
    st = dpt_agree(s->comm, st);
    if (writer != NULL)
        dpt_outputs_conclude(&s->outputs, st);
    return st;
}

/* One edit at work. */
typedef struct work_item {
    const dpt_job_edit *edit;
    dpt_auto_alpha found; /* empty when the job says all of it */
    dpt_edit_report report;
    uint64_t model; /* digest of the edited model that was written, or 0 */
} work_item;

static const dpt_edit_spec *item_spec(const work_item *item) {
    return item->found.alpha != NULL ? &item->found.spec : &item->edit->spec;
}

static dpt_status bind_spec(void *ctx, const dpt_edit_spec *spec) {
    study *s = ctx;
    dpt_edit_input input = edit_input(s);
    dpt_status st = open_cells(s);
    if (st != DPT_OK)
        return st;
    dpt_source edited = dpt_field_source(s->edited);
    st = dpt_edit_run(spec, &input, dpt_field_sink(s->edited), NULL);
    st = finish_edited(s, st, s->edited, NULL, NULL);
    if (st == DPT_OK)
        st = dpt_evaluation_bind(&s->evaluation, &edited,
                                 dpt_recipe_in_memory(&s->inputs, s->current, spec));
    close_cells(s);
    return st;
}

static dpt_status save_unit(study *s, const work_item *item, int d, const dpt_evaluation_path *path,
                            double seconds) {
    const dpt_job_edit *edit = item->edit;
    dpt_result result = {.edit = NULL};
    dpt_comm_phase("write");
    dpt_status st = dpt_unit_record(&s->inputs, edit, &item->found, &item->report, &s->evaluation,
                                    d, path, seconds, &result);
    st = dpt_agree(s->comm, st);
    if (st == DPT_OK)
        st = dpt_inputs_check_unchanged(s->comm, &s->inputs, false);
    if (st == DPT_OK)
        st = dpt_outputs_replace(s->comm, &s->outputs);
    if (st == DPT_OK) {
        dpt_results_study header = dpt_outputs_unit_study(&s->outputs, &s->inputs, edit, d);
        header.model = item->model;
        st = dpt_results_save_unit(s->comm, &header, &result);
        dpt_outputs_conclude(&s->outputs, st);
        dpt_stop_count_work();
    }
    if (st == DPT_OK && path != NULL)
        dpt_log(DPT_LOG_INFO, "%s on %s: change %+.4g, estimate %+.4g [nats]: %s%s (%.1f s)",
                edit->id, s->job->data[d].name, dpt_summary_number(result.scalars.change),
                dpt_summary_number(result.scalars.estimate), result.verdict,
                result.scalars.held_out < 1.0 ? " (chosen on samples that judge it)" : "", seconds);
    else if (st == DPT_OK)
        dpt_log(DPT_LOG_INFO, "%s: edited (%.1f s)", edit->id, seconds);
    dpt_result_destroy(&result);
    return st;
}

static dpt_status run_unit(study *s, const work_item *item, int d, const dpt_quadrature *quadrature,
                           double started) {
    if (d < 0)
        return save_unit(s, item, d, NULL, dpt_log_seconds() - started);
    dpt_evaluation_path path = {.accuracy_edit = NAN};
    const dpt_baseline *base = &s->evaluation.data[d];
    dpt_prediction_task task = {.comm = s->comm,
                                .outputs = &s->outputs,
                                .edit = item->edit->id,
                                .data = base->name,
                                .law = dpt_signs_choose(&base->law, &base->signs),
                                .logits = &base->logits,
                                .spec = item_spec(item),
                                .report = &item->report};
    dpt_signs_log_spread(item->edit->id, base->name, &base->signs, item_spec(item));
    dpt_status st = dpt_evaluation_walk(&s->evaluation, d, quadrature, &task, &path);
    if (st == DPT_OK)
        st = dpt_precision_measure(&s->evaluation, d, item->edit->id, &path.precision);
    if (st == DPT_OK)
        st =
            dpt_hessian_measure_unit(&s->evaluation, d, &item->report, &path.hessian, &path.blocks);
    if (st == DPT_OK)
        st = dpt_leave_out_measure(&s->evaluation, d, item->edit, &item->report, &path.leave_out);
    st = dpt_agree(s->comm, st);
    if (st == DPT_OK && dpt_path_correlation_wanted(s->job, item->edit)) {
        dpt_edit_input input = edit_input(s);
        st = dpt_path_correlation_measure(&s->evaluation, d, &s->gradient, item->edit, &input,
                                          &path.riemann.quadrature, &path.correlation);
    }
    if (st == DPT_OK)
        st = save_unit(s, item, d, &path, dpt_log_seconds() - started);
    dpt_path_correlation_destroy(&path.correlation);
    dpt_evaluation_path_destroy(&path);
    return st;
}

/* What the job leaves to be found: alpha by the slopes along the delta, or values by the law. */
static dpt_status find_values(study *s, const dpt_job_edit *edit, dpt_auto_alpha *found) {
    dpt_edit_input input = edit_input(s);
    rest_model(s);
    if (!dpt_job_is_allocated(edit))
        return dpt_auto_alpha_find(&s->evaluation, edit, bind_spec, s, found);
    return dpt_job_locate_edit(s->job, edit,
                               dpt_allocate_find(edit, &s->evaluation.data[edit->auto_data].law,
                                                 &input, &s->inputs.out_catalog, found));
}

/* The edit whose weights stand for a line, made again. */
static dpt_status bind_lead(void *ctx) {
    study *s = ctx;
    s->current = &s->job->edits[s->evaluation.line.lead];
    return bind_spec(s, &s->current->spec);
}

/* The edit that was made, or with its first pass what its path is taken along. */
static dpt_status bind_made(study *s, work_item *item) {
    int e = (int)(item->edit - s->job->edits);
    dpt_line *line = &s->evaluation.line;
    dpt_edit_input input = edit_input(s);
    *line = s->lines.edits[e];
    dpt_status st = dpt_line_join(&s->inputs, &input, e, s->edited, line, &item->found);
    const dpt_job_edit *edit = &s->job->edits[line->lead];
    if (st != DPT_OK)
        return st;
    const dpt_edit_spec *spec = line->lead == e ? item_spec(item) : &edit->spec;
    uint64_t key = dpt_recipe_in_memory(&s->inputs, edit, spec);
    dpt_source edited = dpt_field_source(s->edited);
    return line->lead == e ? dpt_evaluation_bind(&s->evaluation, &edited, key)
                           : dpt_evaluation_bind_late(&s->evaluation, key, bind_lead, s);
}

static dpt_status run_edit(study *s, const dpt_job_edit *edit, const dpt_quadrature *quadrature) {
    double started = dpt_log_seconds();
    work_item item = {.edit = edit};
    dpt_status st = dpt_agree_fault("study.edit");
    st = dpt_agree(s->comm, st);
    s->current = edit;
    if (s->evaluates)
        dpt_passes_begin_edit(&s->evaluation.passes);
    if (st == DPT_OK && edit->auto_data >= 0)
        st = find_values(s, edit, &item.found);
    const dpt_edit_spec *spec = item_spec(&item);
    if (st == DPT_OK)
        st = make_edit(s, edit, spec, &item.report, &item.model);
    if (st == DPT_OK)
        dpt_guards_warn(&s->inputs, edit->id, &item.report);
    if (st == DPT_OK && s->evaluates)
        st = bind_made(s, &item);
    close_cells(s);
    for (int u = 0; u < s->units && st == DPT_OK; u++) {
        if (!dpt_job_judges(edit, dpt_outputs_unit_data(&s->inputs, u)))
            continue;
        st = run_unit(s, &item, dpt_outputs_unit_data(&s->inputs, u), quadrature, started);
        started = dpt_log_seconds();
    }
    if (st == DPT_OK && s->evaluates)
        dpt_passes_end_edit(&s->evaluation.passes);
    dpt_auto_alpha_destroy(&item.found);
    dpt_edit_report_destroy(&item.report);
    return st;
}

static dpt_status check_group(void *ctx, dpt_status agreed) {
    return check_inputs(ctx, agreed);
}

static dpt_status save_group(void *ctx, const dpt_sweep_made *made) {
    study *s = ctx;
    const work_item item = {
        .edit = &s->job->edits[made->edit], .report = made->report, .model = made->model};
    dpt_status st = save_unit(s, &item, -1, NULL, made->seconds);
    s->done += st == DPT_OK;
    return st;
}

/* Edits straight from file to file, or of which only the statistics are wanted. @param[out] next  the edit after them. */
static dpt_status run_group(study *s, const bool *finished, int first, int *next) {
    dpt_sweep_group group;
    dpt_edit_input input = edit_input(s);
    const dpt_sweep sweep = {.comm = s->comm,
                             .inputs = &s->inputs,
                             .input = &input,
                             .outputs = &s->outputs,
                             .ctx = s,
                             .check = check_group,
                             .save = save_group};
    *next = dpt_sweep_group_at(s->job, s->resources.together, finished, first, &group);
    dpt_status st = s->checked ? DPT_OK : dpt_inputs_check_begin(s->comm, &s->inputs, &s->shard);
    return st == DPT_OK ? dpt_sweep_run(&sweep, &group) : st;
}

static dpt_status run_edits(study *s, const bool *finished) {
    dpt_quadrature quadrature;
    dpt_status st = dpt_quadrature_create(s->job->rule, s->job->points, &quadrature);
    quadrature.tolerance = s->job->tolerance;
    for (int e = 0; e < s->job->nedits; e++)
        if (finished[e])
            dpt_log(DPT_LOG_INFO, "%s: finished before", s->job->edits[e].id);
    for (int e = 0, next; e < s->job->nedits && st == DPT_OK; e = next) {
        next = e + 1;
        if (finished[e])
            continue;
        st = dpt_agree(s->comm, dpt_stop_check());
        dpt_decomposed_begin(&s->inputs, e, finished, &s->decomposed);
        if (st == DPT_OK && !s->in_cells) {
            st = run_group(s, finished, e, &next);
            continue;
        }
        if (st == DPT_OK)
            st = run_edit(s, &s->job->edits[e], &quadrature);
        s->done += st == DPT_OK;
    }
    dpt_decomposed_begin(&s->inputs, s->job->nedits, finished, &s->decomposed);
    return st;
}

static dpt_status make_plane_edit(void *ctx, const dpt_job_edit *edit, dpt_field *out) {
    study *s = ctx;
    dpt_edit_input input;
    dpt_status st = give_gradient(s, edit, &edit->spec, &input);
    if (st == DPT_OK)
        st = dpt_edit_run(&edit->spec, &input, dpt_field_sink(out), NULL);
    return finish_edited(s, st, out, NULL, NULL);
}

/* After the edits, so that the numbers that they keep come first. */
static dpt_status run_plane(study *s) {
    const dpt_plane_edits edits = {.ctx = s, .make = make_plane_edit};
    dpt_status st = s->plane.missing > 0 ? open_cells(s) : DPT_OK;
    if (st == DPT_OK && s->plane.missing > 0)
        st = dpt_plane_run(&s->shard, s->edited, &s->evaluation, &edits, &s->plane);
    close_cells(s);
    s->outputs.study.planes = s->plane.planes;
    s->outputs.study.nplanes = s->plane.count;
    return st;
}

static dpt_status write_results(study *s) {
    int64_t count = (int64_t)s->job->nedits * s->units;
    dpt_result *results = dpt_mem_zalloc(count, sizeof *results, "results");
    dpt_status st = dpt_agree(s->comm, results != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    if (st == DPT_OK)
        st = dpt_outputs_check_moved(s->comm, &s->outputs);
    for (int64_t i = 0; i < count && st == DPT_OK; i++) {
        const dpt_job_edit *edit = &s->job->edits[i / s->units];
        int d = dpt_outputs_unit_data(&s->inputs, (int)(i % s->units));
        bool found = false;
        if (!dpt_job_judges(edit, d))
            continue;
        dpt_results_study header = dpt_outputs_unit_study(&s->outputs, &s->inputs, edit, d);
        st = dpt_results_load_unit(s->comm, &header, edit->id, dpt_outputs_data_name(s->job, d),
                                   &found, NULL, &results[i]);
        if (st == DPT_OK && !found)
            st = dpt_error(DPT_ERR_OUTPUT,
                           "%s/units: the result of %s is gone: run again with --resume",
                           s->job->directory, edit->id);
    }
    uint64_t digests[2];
    for (int i = 0; i < 2; i++)
        digests[i] = s->inputs.digest[i] != 0 ? s->inputs.digest[i] : s->finished.digests[i];
    if (st == DPT_OK)
        st = dpt_outputs_set_digests(&s->outputs, digests);
    if (st == DPT_OK && s->comm->rank == 0)
        st = dpt_prediction_check(s->job->directory, results, count);
    st = dpt_agree(s->comm, st);
    if (st == DPT_OK)
        st = dpt_summary_write(s->comm, s->job, &s->outputs.study, results, s->units);
    for (int64_t i = 0; results != NULL && i < count; i++)
        dpt_result_destroy(&results[i]);
    dpt_mem_free(results);
    return st;
}

static dpt_status find_finished(study *s) {
    dpt_status st = dpt_finished_find(s->comm, &s->inputs, &s->outputs, s->units, &s->finished);
    if (st == DPT_OK)
        s->done = s->finished.count;
    return st;
}

static dpt_status prepare_work(study *s, int left) {
    dpt_status st = DPT_OK;
    bool edits = left > 0 || s->plane.missing > 0;
    if (edits)
        st = dpt_edited_form(s->comm, &s->inputs, &s->shard, &s->quantiser);
    s->in_cells = dpt_resources_in_cells(&s->inputs);
    if (!s->evaluates || !edits)
        return st;
    if (st == DPT_OK)
        st = dpt_evaluation_create(s->comm, &s->inputs, &s->resources, left, s->resumes,
                                   &s->evaluation);
    if (st == DPT_OK)
        st = dpt_agree(s->comm, dpt_lines_create(&s->inputs, s->evaluation.shares, &s->lines));
    for (int d = 0; d < s->job->njudged && st == DPT_OK; d++) {
        dpt_unit_warn_broken(&s->inputs, d, &s->evaluation.data[d]);
        st = dpt_agree(s->comm, dpt_unit_warn_gain(&s->inputs, d, &s->evaluation.data[d]));
        dpt_law_log(s->job->data[d].name, &s->evaluation.data[d].law);
    }
    if (st == DPT_OK)
        st = dpt_logit_probes_measure(&s->evaluation);
    if (st == DPT_OK)
        st = dpt_hessian_measure_data(&s->evaluation, &s->shard);
    if (st == DPT_OK)
        st = dpt_evaluation_bind(&s->evaluation, NULL, 0); /* W_pre takes no room any more */
    if (st == DPT_OK && s->resources.cell_gradient)
        st = dpt_cell_gradient_create(s->comm, s->inputs.catalog, &s->shard, &s->gradient);
    if (st == DPT_OK && dpt_significance_count(s->job) > 0) {
        s->slopes = dpt_mem_zalloc(s->inputs.catalog->count, sizeof *s->slopes, "slopes");
        st = dpt_agree(s->comm, s->slopes != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    }
    return st;
}

static dpt_status work(study *s, const dpt_study_options *options) {
    dpt_finished *finished = &s->finished;
    dpt_status st = dpt_agree(s->comm, dpt_finished_create(s->job, finished));
    if (st == DPT_OK)
        st = dpt_outputs_open(s->comm, &s->inputs, &s->resources, options, &s->outputs);
    if (st == DPT_OK && options->resume)
        st = find_finished(s);
    if (st == DPT_OK && s->evaluates)
        st = dpt_plane_find(s->comm, &s->inputs, options->resume, &s->plane);
    /* Models that were read whole for this are known to be the same. */
    bool known = finished->digests[0] != 0 && finished->digests[1] != 0 && s->inputs.digest[1] != 0;
    if (st == DPT_OK && options->resume && !known && s->comm->rank == 0)
        dpt_warn_of_newer(&s->inputs, finished->edits, s->units);
    if (st == DPT_OK && options->resume && s->comm->rank == 0)
        dpt_warn_of_companions(&s->inputs, finished->edits);
    if (st == DPT_OK && finished->count < s->job->nedits)
        st = dpt_inputs_hold(s->comm, &s->inputs, &s->shard);
    if (st == DPT_OK)
        st = prepare_work(s, s->job->nedits - finished->count);
    if (st == DPT_OK)
        st = dpt_agree(s->comm,
                       dpt_decomposed_create(&s->inputs, s->resources.svd_kept, &s->decomposed));
    if (st == DPT_OK)
        st = run_edits(s, finished->edits);
    if (st == DPT_OK)
        st = run_plane(s);
    if (st == DPT_OK)
        st = dpt_decomposed_log(s->comm, &s->decomposed);
    if (st == DPT_OK)
        st = dpt_inputs_check_unchanged(s->comm, &s->inputs, true);
    if (st == DPT_OK)
        st = write_results(s);
    if (st == DPT_OK && s->comm->rank == 0)
        dpt_passes_remove(s->job->directory);
    dpt_finished_destroy(finished);
    return st;
}

dpt_status dpt_study_run(const dpt_comm *comm, const dpt_job *job,
                         const dpt_study_options *options) {
    DPT_ASSERT_SAME_TEXT(comm, job->text);
    DPT_ASSERT_SAME(comm, job->nedits);
    DPT_ASSERT_SAME(comm, options->resume);
    DPT_ASSERT_SAME(comm, options->verify_inputs);
    DPT_ASSERT_SAME(comm, options->dry_run);
    DPT_ASSERT_SAME(comm, options->memory);
    DPT_ASSERT_SAME(comm, options->plan_ranks);
    double started = dpt_log_seconds();
    study s = {
        .comm = comm, .job = job, .done = options->resume ? -1 : 0, .resumes = options->resume};
    dpt_status st = options->verify_inputs ? dpt_verify_inputs(comm, job, &s.whole) : DPT_OK;
    if (st == DPT_OK)
        st = dpt_inputs_open(comm, job, &s.inputs);
    if (st == DPT_OK)
        st = dpt_verify_inputs_take(comm, &s.whole, &s.inputs);
    dpt_verify_inputs_forget(&s.whole);
    if (st != DPT_OK) {
        dpt_inputs_close(&s.inputs);
        return st;
    }
    s.evaluates = dpt_inputs_needs_model(&s.inputs);
    s.units = s.evaluates ? job->njudged : 1;
    st = dpt_plan_study(comm, &s.inputs, options, &s.resources);
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_shard_create(s.inputs.catalog, comm->size, &s.shard));
    if (st == DPT_OK)
        st = dpt_zero_delta_check(comm, &s.shard, &s.inputs);
    if (st == DPT_OK)
        st = dpt_outside_check(comm, &s.shard, &s.inputs);
    if (st == DPT_OK && !options->dry_run)
        st = dpt_agree(comm, dpt_stop_check());
    if (st == DPT_OK && !options->dry_run)
        st = dpt_blas_take_memory(comm);
    if (st == DPT_OK && !options->dry_run)
        st = work(&s, options);
    if (st == DPT_OK && !options->dry_run)
        st = dpt_memory_log_peak(s.comm, s.resources.budget);
    if (st == DPT_OK && !options->dry_run && !options->resume)
        st = dpt_plan_compare(s.comm, &s.resources, &s.evaluation.passes.counts,
                              dpt_log_seconds() - started);
    if (s.evaluation.mesh.world.size > 0)
        dpt_evaluation_destroy(&s.evaluation);
    dpt_plane_destroy(&s.plane);
    dpt_lines_destroy(&s.lines);
    dpt_cell_gradient_destroy(&s.gradient);
    dpt_decomposed_destroy(&s.decomposed);
    dpt_mem_free(s.slopes);
    dpt_quantiser_destroy(s.quantiser);
    dpt_field_destroy(s.edited);
    dpt_shard_destroy(&s.shard);
    if (st == DPT_INTERRUPTED)
        dpt_stopped_explain(job, s.done);
    dpt_outputs_close(&s.outputs);
    dpt_inputs_close(&s.inputs);
    return st;
}
