#include "stage.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/same.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

static bool edit_run_same_shape(const dpt_tensor_info *a, const dpt_tensor_info *b) {
    bool same = a->ndim == b->ndim;
    for (int i = 0; same && i < a->ndim; i++)
        same = a->shape[i] == b->shape[i];
    return same;
}

/* What the caller promised about its input. */
static dpt_status check_input(const dpt_edit_spec *spec, const dpt_edit_input *input,
                              const dpt_sink *sink) {
    const dpt_catalog *post = input->post.catalog;
    dpt_status st = dpt_edit_spec_check(spec);
    if (st != DPT_OK)
        return st;
    for (int s = 0; s < spec->nstages; s++)
        if (dpt_edit_method_get(spec->stages[s].method)->found)
            return dpt_error(DPT_ERR_INTERNAL, "edit: %s was not replaced by what it stands for",
                             dpt_edit_method_get(spec->stages[s].method)->name);
    if (input->gradient != NULL
            ? input->gradient->view == NULL || input->gradient->catalog->count != post->count
            : dpt_edit_needs_gradient(spec))
        return dpt_error(DPT_ERR_INTERNAL,
                         "edit: no gradient in memory for an edit that needs one");
    if (spec->calibrate == DPT_CALIBRATE_SIGNIFICANT && input->slopes == NULL)
        return dpt_error(DPT_ERR_INTERNAL, "edit: no slopes of samples to tell from chance");
    if (sink->catalog->count != post->count || input->pre.catalog->count != post->count ||
        input->shard->ntensors != post->count)
        return dpt_error(DPT_ERR_INTERNAL, "edit: sink, pair or shard is of another model");
    for (int t = 0; t < post->count; t++) {
        const dpt_tensor_info *from = &post->tensors[t], *to = &sink->catalog->tensors[t];
        bool converts = dpt_dtype_editable(from->dtype) && dpt_dtype_editable(to->dtype);
        if (!edit_run_same_shape(from, to) || (from->dtype != to->dtype && !converts))
            return dpt_error(DPT_ERR_INTERNAL,
                             "edit: tensor '%s' has another shape or type in the "
                             "output",
                             from->name);
        if (input->pre.catalog->tensors[t].numel != from->numel)
            return dpt_error(DPT_ERR_INTERNAL, "edit: tensor '%s' has a partner of another size",
                             from->name);
    }
    return DPT_OK;
}

bool dpt_edit_covers(const dpt_edit_stage_spec *spec, const dpt_edit_input *input, int t) {
    const dpt_edit_method *method = dpt_edit_method_get(spec->method);
    const dpt_tensor_info *info = &input->post.catalog->tensors[t];
    bool keeps = spec->tensor_values != NULL && isnan(spec->tensor_values[t]);
    return input->comparable[t] && (input->selected == NULL || input->selected[t]) && !keeps &&
           info->numel > 0 && (method->covers == NULL || method->covers(spec, info));
}

static dpt_status init_stage(dpt_edit_work *work, int s) {
    const dpt_edit_input *input = work->input;
    dpt_edit_stage *stage = &work->stages[s];
    bool calibrates = s == work->spec->nstages;
    const dpt_edit_stage_spec *spec = calibrates ? NULL : &work->spec->stages[s];
    *stage = (dpt_edit_stage){.method = calibrates ? &dpt_edit_calibration
                                                   : dpt_edit_method_get(spec->method),
                              .spec = spec,
                              .input = input,
                              .catalog = work->catalog,
                              .seed = work->spec->seed,
                              .index = s};
    stage->covers = dpt_mem_zalloc(work->catalog->count, sizeof *stage->covers, "edit");
    if (stage->covers == NULL)
        return DPT_ERR_OUTPUT;
    for (int t = 0; t < work->catalog->count; t++) {
        stage->covers[t] = calibrates ? work->touched[t] : dpt_edit_covers(spec, input, t);
        work->touched[t] = work->touched[t] || stage->covers[t];
    }
    return DPT_OK;
}

/* Widest element of what passes through the buffers of a cell. */
static int64_t widest(const dpt_catalog *catalog) {
    int64_t maximum = 1;
    for (int t = 0; t < catalog->count; t++) {
        int64_t size = dpt_dtype_size(catalog->tensors[t].dtype);
        maximum = size > maximum ? size : maximum;
    }
    return maximum;
}

static dpt_status init_room(dpt_edit_room *room, const dpt_edit_input *input, int count,
                            const dpt_edit_task *tasks) {
    int64_t out = 1;
    for (int i = 0; i < count; i++)
        out = widest(tasks[i].sink.catalog) > out ? widest(tasks[i].sink.catalog) : out;
    *room = (dpt_edit_room){.threads = omp_get_max_threads()};
    room->scratch = dpt_mem_alloc((int64_t)room->threads * DPT_EDIT_SCRATCH * DPT_EDIT_PIECE,
                                  sizeof *room->scratch, "pieces of an edit");
    room->pre = dpt_mem_alloc(DPT_CELL, (size_t)widest(input->pre.catalog), "cell of pre");
    room->post = dpt_mem_alloc(DPT_CELL, (size_t)widest(input->post.catalog), "cell of post");
    room->out = dpt_mem_alloc(DPT_CELL, (size_t)out, "edited cell");
    return room->scratch && room->pre && room->post && room->out ? DPT_OK : DPT_ERR_OUTPUT;
}

static void destroy_room(dpt_edit_room *room) {
    dpt_mem_free(room->scratch);
    dpt_mem_free(room->pre);
    dpt_mem_free(room->post);
    dpt_mem_free(room->out);
}

static dpt_status init_buffers(dpt_edit_work *work) {
    int64_t n = work->catalog->count;
    int64_t own = work->last - work->first;
    work->threads = work->room->threads;
    work->touched = dpt_mem_zalloc(n, sizeof *work->touched, "edit");
    work->written = dpt_mem_zalloc(n, sizeof *work->written, "edit");
    work->base_stage = dpt_mem_zalloc(n, sizeof *work->base_stage, "edit");
    work->base = dpt_mem_zalloc(own, sizeof *work->base, "edit");
    work->stats = dpt_mem_zalloc(n, sizeof *work->stats, "edit statistics");
    work->cell_sums = dpt_mem_zalloc(own * DPT_EDIT_SUMS, sizeof *work->cell_sums, "edit");
    bool made = work->touched && work->written && work->base_stage && work->base && work->stats &&
                work->cell_sums;
    return made ? DPT_OK : DPT_ERR_OUTPUT;
}

/* Room for the stages that work on whole cells. */
static dpt_status init_held(dpt_edit_work *work) {
    bool needed = false;
    for (int s = 0; s < work->nstages; s++)
        needed = needed || work->stages[s].method->apply_cell != NULL;
    if (!needed)
        return DPT_OK;
    work->held = dpt_mem_alloc(DPT_CELL, sizeof *work->held, "deltas of a cell");
    return work->held != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

/* The catalog and shard of exchanges of fp32 deltas: same cells, every type f32. */
static dpt_status init_wide(dpt_edit_work *work) {
    dpt_status st = dpt_catalog_copy(work->catalog, &work->wide);
    if (st != DPT_OK)
        return st;
    for (int t = 0; t < work->wide.count; t++)
        work->wide.tensors[t].dtype = DPT_F32;
    work->wide_shard = *work->input->shard;
    work->wide_shard.catalog = &work->wide;
    return DPT_OK;
}

/* Local. */
static dpt_status init_work(dpt_edit_work *work, const dpt_edit_spec *spec,
                            const dpt_edit_input *input, dpt_sink sink, dpt_edit_room *room) {
    *work =
        (dpt_edit_work){.spec = spec, .input = input, .sink = sink, .room = room, .held_cell = -1};
    dpt_catalog_init(&work->wide);
    work->catalog = input->post.catalog;
    dpt_status st = check_input(spec, input, &sink);
    if (st != DPT_OK)
        return st;
    work->first = input->shard->rank_first[input->comm->rank];
    work->last = input->shard->rank_first[input->comm->rank + 1];
    st = init_buffers(work);
    if (st == DPT_OK)
        st = init_wide(work);
    int nstages = spec->nstages + (spec->calibrate != DPT_CALIBRATE_NONE);
    for (int s = 0; st == DPT_OK && s < nstages; s++) {
        st = init_stage(work, s);
        work->nstages = s + 1;
    }
    return st == DPT_OK ? init_held(work) : st;
}

dpt_sink dpt_edit_sink_none(const dpt_catalog *catalog) {
    return (dpt_sink){.catalog = catalog};
}

dpt_status dpt_edit_locate(const dpt_edit_work *work, dpt_status status) {
    return work->name != NULL ? dpt_error_locate(status, work->name) : status;
}

static void destroy_work(dpt_edit_work *work) {
    for (int s = 0; s < work->nstages; s++) {
        dpt_edit_stage *stage = &work->stages[s];
        if (stage->method->destroy != NULL)
            stage->method->destroy(stage);
        else
            dpt_mem_free(stage->state);
        dpt_mem_free(stage->covers);
    }
    for (int64_t c = 0; work->base != NULL && c < work->last - work->first; c++)
        dpt_mem_free(work->base[c]);
    dpt_catalog_destroy(&work->wide);
    dpt_mem_free(work->touched);
    dpt_mem_free(work->written);
    dpt_mem_free(work->base_stage);
    dpt_mem_free(work->base);
    dpt_mem_free(work->stats);
    dpt_mem_free(work->cell_sums);
    dpt_mem_free(work->held);
    dpt_mem_free(work->singular);
}

void dpt_edit_base_free(dpt_edit_work *work, int64_t from, int64_t to) {
    for (int64_t c = from; c < to; c++)
        if (c >= work->first && c < work->last) {
            dpt_mem_free(work->base[c - work->first]);
            work->base[c - work->first] = NULL;
        }
}

static dpt_status prepare_stage(dpt_edit_work *work, dpt_edit_stage *stage) {
    dpt_status st = dpt_agree(work->input->comm, dpt_agree_fault("edit.prepare"));
    if (st == DPT_OK && stage->method->prepare != NULL)
        st = stage->method->prepare(work, stage);
    return st;
}

/* Into the statistics. */
static dpt_status correlate_start(dpt_edit_work *work, const dpt_edit_stage *stage) {
    double *tensors = dpt_mem_alloc(work->catalog->count, sizeof *tensors, "correlations");
    dpt_status st = dpt_agree(work->input->comm, tensors != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    if (st == DPT_OK)
        st = dpt_edit_correlate(work, stage, NULL, tensors);
    for (int t = 0; st == DPT_OK && t < work->catalog->count; t++)
        if (stage->covers[t])
            work->stats[t].correlation = tensors[t];
    dpt_mem_free(tensors);
    return st;
}

static dpt_status prepare_stages(dpt_edit_work *work) {
    dpt_status st = DPT_OK;
    bool correlates = work->reports && work->input->gradient != NULL;
    for (int t = 0; t < work->catalog->count; t++)
        work->stats[t].correlation = NAN;
    for (int s = 0; st == DPT_OK && s < work->nstages; s++) {
        dpt_edit_stage *stage = &work->stages[s];
        st = prepare_stage(work, stage);
        if (st == DPT_OK && correlates && stage->method->mask != NULL) {
            st = correlate_start(work, stage);
            correlates = false;
        }
    }
    return st;
}

/* Several edits: each own cell is loaded once for all that still have it to write. Collective. */
static dpt_status edit_run_write_all(dpt_edit_work *works, int count, const dpt_edit_input *input) {
    works[0].room->keeps = true; /* before, passes over the deltas would find little of theirs */
    dpt_edit_work **left = dpt_mem_alloc(count, sizeof *left, "edits");
    dpt_status st = left != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    for (int t = 0; st == DPT_OK && t < input->post.catalog->count; t++) {
        const int64_t *cells = input->shard->first_cell + t;
        int n = 0;
        for (int i = 0; i < count; i++)
            if (!works[i].written[t])
                left[n++] = &works[i];
        st = dpt_edit_write_cells(left, n, cells[0], cells[1]);
    }
    dpt_mem_free(left);
    return dpt_agree(input->comm, st);
}

static int edit_run_by_part(const void *a, const void *b) {
    const double *const *left = a, *const *right = b;
    return (**left > **right) - (**left < **right);
}

/* Statistics of a tensor from those of its matrices [begin, end). */
static void edit_run_join_matrices(dpt_edit_tensor_stats *stats, const double *const *records,
                                   int64_t begin, int64_t end) {
    double left_out = 0.0, all = 0.0;
    stats->rank = 0;
    for (int64_t i = begin; i < end; i++) {
        double norm = records[i][DPT_EDIT_RECORD_NORM],
               residual = records[i][DPT_EDIT_RECORD_RESIDUAL] * norm;
        stats->rank += (int64_t)records[i][DPT_EDIT_RECORD_RANK];
        left_out += residual * residual;
        all += norm * norm;
    }
    stats->residual = end - begin == 1 ? records[begin][DPT_EDIT_RECORD_RESIDUAL]
                      : all > 0.0      ? sqrt(left_out / all)
                                       : 0.0;
}

/* Spectra of the report from records in the order of parts. */
static void edit_run_fill_spectra(dpt_edit_work *work, const double *const *records,
                                  dpt_edit_report *report) {
    int64_t at = 0, begin = 0;
    for (int64_t i = 0; i < report->nspectra; i++) {
        const double *record = records[i];
        int part = (int)record[DPT_EDIT_RECORD_PART];
        DPT_ASSERT(part >= 0 && part < work->input->parts->count);
        dpt_edit_spectrum *to = &report->spectra[i];
        *to = (dpt_edit_spectrum){.tensor = work->input->parts->items[part].tensor,
                                  .part = part,
                                  .rank = (int64_t)record[DPT_EDIT_RECORD_RANK],
                                  .residual = record[DPT_EDIT_RECORD_RESIDUAL],
                                  .first = at};
        memcpy(report->singular + at, record + DPT_EDIT_RECORD_VALUES,
               (size_t)to->rank * sizeof *report->singular);
        memcpy(report->singular_error + at, record + DPT_EDIT_RECORD_VALUES + to->rank,
               (size_t)to->rank * sizeof *report->singular_error);
        at += to->rank;
        if (to->tensor != report->spectra[begin].tensor)
            begin = i;
        edit_run_join_matrices(&work->stats[to->tensor], records, begin, i + 1);
    }
}

/* Singular values of all ranks' records by matrix. */
static dpt_status gather_singular(dpt_edit_work *work, dpt_edit_report *report) {
    void *all = NULL;
    int64_t *counts = NULL, total = 0, values = 0;
    dpt_status st =
        dpt_comm_allgather(work->input->comm, work->singular,
                           work->nsingular * (int64_t)sizeof *work->singular, &all, &counts);
    st = dpt_agree(work->input->comm, st);
    for (int r = 0; st == DPT_OK && r < work->input->comm->size; r++)
        total += counts[r] / (int64_t)sizeof *work->singular;
    const double *from = all;
    for (int64_t i = 0; i < total; i += dpt_edit_record_length(from[i + DPT_EDIT_RECORD_RANK])) {
        report->nspectra++;
        values += (int64_t)from[i + DPT_EDIT_RECORD_RANK];
    }
    const double **records = dpt_mem_alloc(report->nspectra, sizeof *records, "singular values");
    report->spectra = dpt_mem_alloc(report->nspectra, sizeof *report->spectra, "singular values");
    report->singular = dpt_mem_alloc(values, sizeof *report->singular, "singular values");
    report->singular_error =
        dpt_mem_alloc(values, sizeof *report->singular_error, "errors of singular values");
    if (records == NULL || report->spectra == NULL || report->singular == NULL ||
        report->singular_error == NULL)
        st = dpt_status_worse(st, DPT_ERR_OUTPUT);
    st = dpt_agree(work->input->comm, st);
    if (st == DPT_OK) {
        int64_t n = 0;
        for (int64_t i = 0; i < total; i += dpt_edit_record_length(from[i + DPT_EDIT_RECORD_RANK]))
            records[n++] = from + i;
        if (n > 1)
            qsort(records, (size_t)n, sizeof *records, edit_run_by_part);
        edit_run_fill_spectra(work, records, report);
    }
    dpt_mem_free(records);
    dpt_mem_free(all);
    dpt_mem_free(counts);
    return st;
}

static void fill_stats(dpt_edit_work *work, const double *totals) {
    for (int t = 0; t < work->catalog->count; t++) {
        dpt_edit_tensor_stats *stats = &work->stats[t];
        const double *sums = totals + (int64_t)t * DPT_EDIT_SUMS;
        stats->changed = (int64_t)sums[DPT_EDIT_SUM_CHANGED];
        stats->lost = (int64_t)sums[DPT_EDIT_SUM_LOST];
        stats->delta_norm = sqrt(sums[DPT_EDIT_SUM_DELTA]);
        stats->edit_norm = sqrt(sums[DPT_EDIT_SUM_EDIT]);
        stats->size = sums[DPT_EDIT_SUM_SIZE];
        stats->kept = sums[DPT_EDIT_SUM_KEPT];
        stats->scale = NAN;
        stats->residual = NAN;
        stats->zeros = NAN;
        if (stats->calibrated == DPT_CALIBRATED_NOT)
            stats->slope = stats->slope_se = NAN;
        for (int s = 0; s < work->nstages; s++) {
            const dpt_edit_stage *stage = &work->stages[s];
            if (stage->covers[t] && stage->method->scale != NULL)
                stats->scale = stage->method->scale(stage, t);
            bool original = s == 0 || stage->method == &dpt_edit_calibration;
            if (original && stage->covers[t] && stage->method->zeros != NULL)
                stats->zeros = stage->method->zeros(stage, t);
        }
    }
}

static dpt_status make_report(dpt_edit_work *work, dpt_edit_report *report) {
    int n = work->catalog->count;
    double *totals = dpt_mem_zalloc((int64_t)n * DPT_EDIT_SUMS, sizeof *totals, "edit statistics");
    dpt_status st = dpt_agree(work->input->comm, totals != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    if (st == DPT_OK)
        st = dpt_edit_reduce_cells(work, DPT_EDIT_SUMS, work->cell_sums, totals);
    if (st == DPT_OK) {
        fill_stats(work, totals);
        st = gather_singular(work, report);
    }
    dpt_mem_free(totals);
    if (st == DPT_OK) {
        report->ntensors = n;
        report->stats = work->stats;
        work->stats = NULL;
    } else {
        dpt_edit_report_destroy(report);
    }
    return st;
}

static void edit_run_check_spec(const dpt_comm *comm, const dpt_edit_spec *spec) {
    DPT_ASSERT_SAME(comm, spec->nstages);
    DPT_ASSERT_SAME(comm, spec->seed);
    DPT_ASSERT_SAME(comm, spec->calibrate);
    for (int s = 0; s < spec->nstages; s++) {
        DPT_ASSERT_SAME(comm, spec->stages[s].method);
        DPT_ASSERT_SAME_ARRAY(comm, spec->stages[s].values, DPT_EDIT_PARAM_MAX);
        DPT_ASSERT_SAME(comm, spec->stages[s].cut_from);
    }
}

/* The works of all tasks. Local. */
static dpt_status init_works(dpt_edit_work *works, dpt_edit_room *room, const dpt_edit_input *input,
                             int count, const dpt_edit_task *tasks) {
    dpt_status st = init_room(room, input, count, tasks);
    for (int i = 0; st == DPT_OK && i < count; i++) {
        st = init_work(&works[i], tasks[i].spec, input, tasks[i].sink, room);
        works[i].name = tasks[i].name;
        works[i].reports = tasks[i].report != NULL;
        st = dpt_edit_locate(&works[i], st);
    }
    return st;
}

dpt_status dpt_edit_run_many(int count, const dpt_edit_task *tasks, const dpt_edit_input *input) {
    DPT_ASSERT_SAME(input->comm, count);
    DPT_ASSERT_SAME(input->comm, input->svd_group);
    dpt_edit_room room = {.threads = 0};
    dpt_edit_work *works = dpt_mem_zalloc(count, sizeof *works, "edits");
    for (int i = 0; i < count; i++) {
        edit_run_check_spec(input->comm, tasks[i].spec);
        if (tasks[i].report != NULL)
            *tasks[i].report = (dpt_edit_report){.ntensors = 0};
    }
    dpt_status st = works != NULL ? init_works(works, &room, input, count, tasks) : DPT_ERR_OUTPUT;
    st = dpt_agree(input->comm, st);
    for (int i = 0; st == DPT_OK && i < count; i++)
        st = dpt_edit_locate(&works[i], prepare_stages(&works[i]));
    if (st == DPT_OK)
        st = edit_run_write_all(works, count, input);
    for (int i = 0; st == DPT_OK && i < count; i++)
        if (tasks[i].report != NULL)
            st = dpt_edit_locate(&works[i], make_report(&works[i], tasks[i].report));
    for (int i = 0; works != NULL && i < count; i++) {
        destroy_work(&works[i]);
        if (st != DPT_OK && tasks[i].report != NULL)
            dpt_edit_report_destroy(tasks[i].report);
    }
    dpt_mem_free(works);
    destroy_room(&room);
    return st;
}

dpt_status dpt_edit_run(const dpt_edit_spec *spec, const dpt_edit_input *input, dpt_sink sink,
                        dpt_edit_report *report) {
    edit_run_check_spec(input->comm, spec);
    const dpt_edit_task task = {.spec = spec, .sink = sink, .report = report};
    return dpt_edit_run_many(1, &task, input);
}

/* An edit of which nothing is written, to look inside. Local. */
typedef struct edit_inside {
    dpt_edit_room room;
    dpt_edit_work work;
} edit_inside;

static dpt_status open_inside(edit_inside *in, const dpt_edit_spec *spec,
                              const dpt_edit_input *input) {
    *in = (edit_inside){.work = {.held_cell = -1}};
    const dpt_edit_task task = {.spec = spec, .sink = dpt_edit_sink_none(input->post.catalog)};
    return init_works(&in->work, &in->room, input, 1, &task);
}

static void close_inside(edit_inside *in) {
    destroy_work(&in->work);
    destroy_room(&in->room);
}

/* The first stage that draws a mask; the number of stages when none does. */
static int first_mask(const dpt_edit_work *work) {
    int s = 0;
    while (s < work->nstages && work->stages[s].method->mask == NULL)
        s++;
    return s;
}

dpt_status dpt_edit_correlate_mask(const dpt_edit_spec *spec, const dpt_edit_input *input,
                                   dpt_edit_correlation *all, double *tensors) {
    edit_run_check_spec(input->comm, spec);
    edit_inside in;
    dpt_edit_work *work = &in.work;
    dpt_edit_spec plain = *spec; /* what is done to the edited deltas comes after the mask */
    plain.calibrate = DPT_CALIBRATE_NONE;
    dpt_status st = open_inside(&in, &plain, input);
    if (st == DPT_OK && (input->gradient == NULL || dpt_edit_needs_gradient(&plain) ||
                         first_mask(work) == work->nstages))
        st = dpt_error(DPT_ERR_INTERNAL, "edit: no mask to correlate with a gradient");
    st = dpt_agree(input->comm, st);
    *all = (dpt_edit_correlation){.r = NAN};
    for (int t = 0; t < input->post.catalog->count; t++)
        tensors[t] = NAN;
    int mask = st == DPT_OK ? first_mask(work) : -1;
    for (int s = 0; s <= mask && st == DPT_OK; s++)
        st = prepare_stage(work, &work->stages[s]);
    if (st == DPT_OK)
        st = dpt_edit_correlate(work, &work->stages[mask], all, tensors);
    close_inside(&in);
    return st;
}

dpt_status dpt_edit_examine(const dpt_edit_spec *spec, const dpt_edit_input *input,
                            dpt_edit_examine_fn fn, void *ctx) {
    edit_run_check_spec(input->comm, spec);
    edit_inside in;
    dpt_status st = dpt_agree(input->comm, open_inside(&in, spec, input));
    if (st == DPT_OK)
        st = fn(&in.work, &in.work.stages[0], ctx);
    close_inside(&in);
    return st;
}

void dpt_edit_report_destroy(dpt_edit_report *report) {
    dpt_mem_free(report->stats);
    dpt_mem_free(report->singular);
    dpt_mem_free(report->singular_error);
    dpt_mem_free(report->spectra);
    *report = (dpt_edit_report){.ntensors = 0};
}
