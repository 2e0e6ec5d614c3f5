#include "kernel.h"

#include "deltapath/comm/agree.h"
#include "deltapath/comm/stop.h"
#include "deltapath/tensor/role.h"

#include <omp.h>
#include <string.h>

/* The last pass: W_edit = round(W_pre + F), cell by cell into the sink, with the statistics of what
 * was written. */

enum { PIECES = DPT_CELL / DPT_EDIT_PIECE };
enum { STEP = 32 };    /* pieces of a thread by one edit after the other: 768 KiB of bf16 */
enum { DELTA, SPARE }; /* parts of the scratch of a thread */

typedef struct cell_job {
    dpt_edit_work *work;
    dpt_range range;
    const char *pre, *post; /* stored elements */
    dpt_edit_start start;
    char *out;
    int64_t pre_size, post_size, out_size;
    dpt_edit_types types;
    bool fused;  /* the edit is one rule for each delta, of bf16 */
    bool summed; /* and has a mask, and nothing of it is kept */
    int passes;  /* the stage that a whole cell passes through; -1: none */
    dpt_edit_fused rule;
    double sums[PIECES][DPT_EDIT_SUMS];
} cell_job;

/* Deltas of a run as the stages before `upto` left them. @param[out] square  NULL: this is not where it is edited. */
static bool load_run(const cell_job *job, int upto, dpt_range run, float *delta, double *square) {
    const dpt_edit_work *work = job->work;
    int64_t at = run.ig - job->range.ig;
    bool good = dpt_edit_kernel_delta(job->types, job->pre + at * job->pre_size,
                                      job->post + at * job->post_size, run.n, delta,
                                      dpt_edit_scratch(work, SPARE), square,
                                      square != NULL ? job->out + at * job->out_size : NULL);
    if (job->start.base != NULL)
        memcpy(delta, job->start.base + at, (size_t)run.n * sizeof *delta);
    dpt_edit_apply(work, job->start.stages, upto, run, delta);
    return good;
}

static bool store_piece(const cell_job *job, dpt_range piece, float *delta, double *sums) {
    int64_t at = piece.ig - job->range.ig;
    return dpt_edit_kernel_store(
        job->types, job->pre + at * job->pre_size, job->post + at * job->post_size, piece.n, delta,
        job->out + at * job->out_size, dpt_edit_scratch(job->work, SPARE), sums);
}

static bool edit_piece(const cell_job *job, dpt_range piece, double *sums) {
    float *delta = dpt_edit_scratch(job->work, DELTA);
    bool good = load_run(job, job->work->nstages, piece, delta, &sums[DPT_EDIT_SUM_DELTA]);
    return good & store_piece(job, piece, delta, sums);
}

static double *sums_of(cell_job *job, dpt_range piece) {
    return job->sums[(piece.ig - job->range.ig) / DPT_EDIT_PIECE];
}

static bool pass_load(void *ctx, dpt_range run, bool own, float *delta) {
    cell_job *job = ctx;
    return load_run(job, job->passes, run, delta,
                    own ? &sums_of(job, run)[DPT_EDIT_SUM_DELTA] : NULL);
}

static bool pass_store(void *ctx, dpt_range piece, float *delta) {
    cell_job *job = ctx;
    dpt_edit_leave_out(job->work->input, piece, delta);
    dpt_edit_apply(job->work, job->passes + 1, job->work->nstages, piece, delta);
    return store_piece(job, piece, delta, sums_of(job, piece));
}

/* A cell through its one stage that works on whole cells. */
static bool run_pass(cell_job *job) {
    const dpt_edit_stage *stage = &job->work->stages[job->passes];
    return stage->method->pass_cell(
        job->work, stage, job->range,
        &(dpt_edit_flow){.load = pass_load, .store = pass_store, .ctx = job});
}

/* The one stage that works on whole cells, if deltas may pass through it; -1: there is none, or several. */
static int find_pass(const dpt_edit_work *work, int tensor) {
    int found = -1;
    for (int s = work->base_stage[tensor]; s < work->nstages; s++) {
        const dpt_edit_stage *stage = &work->stages[s];
        if (!stage->covers[tensor] || stage->method->apply_cell == NULL)
            continue;
        if (found >= 0 || stage->method->pass_cell == NULL)
            return -1;
        found = s;
    }
    return found;
}

/* Whether the edit of a cell is one rule from bf16 to bf16. */
static void plan_fused(cell_job *job) {
    const dpt_edit_work *work = job->work;
    const dpt_edit_stage *only = NULL;
    if (dpt_edit_left_out(work->input, job->range.tensor) > 0)
        return;
    if (job->passes >= 0 || job->start.base != NULL || job->types.pre != DPT_BF16 ||
        job->types.post != DPT_BF16 || job->types.out != DPT_BF16)
        return;
    for (int s = 0; s < work->nstages; s++) {
        if (!work->stages[s].covers[job->range.tensor])
            continue;
        if (only != NULL || work->stages[s].method->fused == NULL)
            return;
        only = &work->stages[s];
    }
    job->fused = only != NULL && only->method->fused(only, job->range, &job->rule);
}

/* Pieces from `first` on. */
typedef struct piece_share {
    int first;
    int64_t at, n; /* elements of the run; n = 0: none */
} piece_share;

static piece_share share_of(const cell_job *job, int share, int shares) {
    int pieces = dpt_edit_pieces(job->range);
    int first = pieces * share / shares, last = pieces * (share + 1) / shares;
    int64_t at = (int64_t)first * DPT_EDIT_PIECE, end = (int64_t)last * DPT_EDIT_PIECE;
    end = end < job->range.n ? end : job->range.n;
    return (piece_share){.first = first, .at = at, .n = first < last ? end - at : 0};
}

/* Share number `share` of the pieces in one go. done[p] says which pieces are. */
static void run_fused(cell_job *job, int share, int shares, bool *done) {
    piece_share own = share_of(job, share, shares);
    if (own.n > 0)
        dpt_edit_kernel_fused(
            &job->rule, job->range.ig + own.at, own.n, job->pre + own.at * job->pre_size,
            job->post + own.at * job->post_size, job->out + own.at * job->out_size,
            job->sums + own.first, done + own.first);
}

/* A constant next to the weights in another type, whatever it is: no edit, and infinite where the type ends before it. */
static void convert_buffer(const cell_job *job, dpt_range piece, double *sums) {
    int64_t at = piece.ig - job->range.ig;
    float *values = dpt_edit_scratch(job->work, SPARE);
    dpt_dtype_to_f32(job->types.post, job->post + at * job->post_size, values, piece.n);
    dpt_dtype_from_f32(job->types.out, values, job->out + at * job->out_size, piece.n);
    for (int j = 0; j < DPT_EDIT_SUMS; j++)
        sums[j] = 0.0;
}

/* The post-trained values in another type. */
static bool convert_piece(const cell_job *job, dpt_range piece, double *sums) {
    if (dpt_role_is_buffer(&job->work->catalog->tensors[job->range.tensor])) {
        convert_buffer(job, piece, sums);
        return true;
    }
    int64_t at = piece.ig - job->range.ig;
    const char *post = job->post + at * job->post_size;
    float *delta = dpt_edit_scratch(job->work, DELTA);
    dpt_edit_types types = {job->types.post, job->types.post, job->types.out};
    for (int64_t i = 0; i < piece.n; i++)
        delta[i] = -0.0f; /* the one number that leaves every other as it is */
    sums[DPT_EDIT_SUM_DELTA] = 0.0;
    bool good =
        dpt_edit_kernel_store(types, post, post, piece.n, delta, job->out + at * job->out_size,
                              dpt_edit_scratch(job->work, SPARE), sums);
    sums[DPT_EDIT_SUM_SIZE] = sums[DPT_EDIT_SUM_KEPT] = 0.0; /* no edit rounds these */
    return good;
}

/* The pieces that are not done, in the plain way. @return false when a value is NaN or infinite. */
static bool run_plain(cell_job *job, bool touched, const bool *done) {
    int team = omp_in_parallel() ? 1 : job->work->threads, bad = 0;
#pragma omp parallel for schedule(static) num_threads(team) reduction(| : bad)
    for (int p = 0; p < dpt_edit_pieces(job->range); p++) {
        if (done[p])
            continue;
        dpt_range piece = dpt_edit_piece(job->range, p);
        bad |= touched ? !edit_piece(job, piece, job->sums[p])
                       : !convert_piece(job, piece, job->sums[p]);
    }
    return !bad;
}

static bool run_by_piece(cell_job *job, bool touched) {
    int team = omp_in_parallel() ? 1 : job->work->threads;
    bool done[PIECES] = {false};
    if (job->fused) {
#pragma omp parallel for schedule(static) num_threads(team)
        for (int share = 0; share < team; share++)
            run_fused(job, share, team, done);
    }
    return run_plain(job, touched, done);
}

static double *cell_sums_of(const cell_job *job) {
    const dpt_edit_work *work = job->work;
    int64_t cell = dpt_shard_cell_of(work->input->shard, job->range.tensor, job->range.ig);
    return work->cell_sums + (cell - work->first) * DPT_EDIT_SUMS;
}

static dpt_status take_sums(const cell_job *job, bool good) {
    double *sums = cell_sums_of(job);
    if (!good)
        return dpt_edit_bad_result(job->work, job->range, job->pre, job->post, job->out);
    for (int p = 0; p < dpt_edit_pieces(job->range); p++)
        for (int j = 0; j < DPT_EDIT_SUMS; j++)
            sums[j] += job->sums[p][j];
    return DPT_OK;
}

/* The post-trained values as they are stored. What the job leaves out is copied whatever it is: old buffers hold
 * infinities, as the causal mask of GPT-NeoX in half precision. */
static dpt_status copy_cell(dpt_edit_work *work, dpt_range range) {
    const bool *selected = work->input->selected;
    bool left_out = selected != NULL && !selected[range.tensor];
    const void *post;
    dpt_dtype type = work->catalog->tensors[range.tensor].dtype;
    dpt_status st = dpt_edit_load_post(work, range, &post);
    if (st == DPT_OK && !left_out && dpt_dtype_editable(type) &&
        dpt_dtype_find_nonfinite(type, post, range.n) >= 0)
        st = dpt_edit_bad_value(work, range, NULL, post);
    return st == DPT_OK ? work->sink.write(work->sink.ctx, range, post) : st;
}

/* What is done to a run of an own cell. */
static dpt_status open_run(dpt_edit_work *work, dpt_range range, cell_job *job) {
    int t = range.tensor;
    const dpt_sink *sink = &work->sink;
    const void *pre = NULL, *post = NULL;
    dpt_status st;
    *job = (cell_job){.work = work, .range = range, .passes = -1};
    job->types.post = work->catalog->tensors[t].dtype;
    job->types.out = sink->catalog->tensors[t].dtype;
    job->post_size = dpt_dtype_size(job->types.post);
    job->out_size = dpt_dtype_size(job->types.out);
    if (work->touched[t]) {
        job->types.pre = dpt_edit_pre_type(work, t);
        job->pre_size = dpt_dtype_size(job->types.pre);
        job->passes = find_pass(work, t);
        st = dpt_edit_begin(work, job->passes >= 0 ? job->passes : work->nstages, range,
                            &job->start);
        if (st == DPT_OK)
            st = dpt_edit_load_both(work, range, &pre, &post);
        plan_fused(job);
    } else {
        st = dpt_edit_load_post(work, range, &post);
    }
    job->pre = pre;
    job->post = post;
    void *view = st == DPT_OK && sink->view != NULL ? sink->view(sink->ctx, range) : NULL;
    job->out = view != NULL ? view : work->room->out;
    job->summed =
        job->fused && job->rule.rule == DPT_EDIT_RULE_MASK && view == NULL && sink->write == NULL;
    return st;
}

/* Several runs of one place whose edits have only sums. */
static dpt_status write_sums(cell_job *jobs, int count) {
    int team = jobs[0].work->threads;
    bool done[DPT_EDIT_SUMMED][PIECES] = {{false}};
    dpt_status st = DPT_OK;
#pragma omp parallel for schedule(static) num_threads(team)
    for (int share = 0; share < team; share++) {
        piece_share own = share_of(&jobs[0], share, team);
        dpt_edit_summed edits[DPT_EDIT_SUMMED];
        for (int k = 0; k < count; k++)
            edits[k] = (dpt_edit_summed){.edit = &jobs[k].rule,
                                         .sums = jobs[k].sums + own.first,
                                         .done = done[k] + own.first};
        if (own.n > 0)
            dpt_edit_kernel_summed(count, edits, jobs[0].range.ig + own.at, own.n,
                                   jobs[0].pre + own.at * jobs[0].pre_size,
                                   jobs[0].post + own.at * jobs[0].post_size);
    }
    for (int k = 0; k < count && st == DPT_OK; k++) {
        const bool none[PIECES] = {false};
        bool good = run_plain(&jobs[k], true, done[k]);
        if (!good) /* the message says what came out */
            (void)run_plain(&jobs[k], true, none);
        st = dpt_edit_locate(jobs[k].work, take_sums(&jobs[k], good));
    }
    return st;
}

/* A run of an own cell, whole pieces but for its end. With `later` given, a run that has only sums is left there, and
 * counted. */
static dpt_status write_run(dpt_edit_work *work, dpt_range range, cell_job *later, int *count) {
    int t = range.tensor;
    const dpt_sink *sink = &work->sink;
    bool skipped = sink->skips != NULL && sink->skips(sink->ctx, t);
    bool touched = work->touched[t], kept = sink->write != NULL && !skipped;
    if (!touched && !kept)
        return DPT_OK;
    if (!touched && sink->catalog->tensors[t].dtype == work->catalog->tensors[t].dtype)
        return copy_cell(work, range);
    cell_job own;
    cell_job *job = &own;
    if (later != NULL)
        job = &later[*count];
    dpt_status st = open_run(work, range, job);
    if (st != DPT_OK)
        return st;
    if (later != NULL && job->summed) {
        ++*count;
        return DPT_OK;
    }
    st = take_sums(job, job->passes >= 0 ? run_pass(job) : run_by_piece(job, touched));
    if (st == DPT_OK && job->out == work->room->out && kept)
        st = sink->write(sink->ctx, range, job->out);
    return st;
}

static dpt_status write_cell(dpt_edit_work *work, int64_t cell) {
    return write_run(work, dpt_shard_cell(work->input->shard, cell), NULL, NULL);
}

/* A run of a cell by all edits that work on whole cells, or by all that do not. */
static dpt_status write_each(dpt_edit_work *const *works, int count, dpt_range run, bool whole) {
    cell_job later[DPT_EDIT_SUMMED];
    int left = 0;
    dpt_status st = DPT_OK;
    for (int i = 0; i < count && st == DPT_OK; i++) {
        if (dpt_edit_by_cell(works[i], works[i]->nstages, run.tensor) != whole)
            continue;
        st = dpt_edit_locate(works[i], write_run(works[i], run, later, &left));
        if (st == DPT_OK && left == DPT_EDIT_SUMMED) {
            st = write_sums(later, left);
            left = 0;
        }
    }
    return st == DPT_OK && left > 0 ? write_sums(later, left) : st;
}

/* A cell by several edits, which is loaded once. What they keep goes out cell by cell. What they do not comes and goes in the
 * cache of a core: a few pieces of the cell by each, then the next. */
static dpt_status write_together(dpt_edit_work *const *works, int count, int64_t cell) {
    dpt_range range = dpt_shard_cell(works[0]->input->shard, cell);
    int64_t step = (int64_t)STEP * works[0]->threads * DPT_EDIT_PIECE;
    bool touched = false;
    for (int i = 0; i < count; i++) {
        touched = touched || works[i]->touched[range.tensor];
        step = works[i]->sink.write != NULL || count == 1 ? range.n : step;
    }
    const void *pre, *post;
    dpt_status st =
        touched && step < range.n ? dpt_edit_load_both(works[0], range, &pre, &post) : DPT_OK;
    if (st == DPT_OK)
        st = write_each(works, count, range, true);
    for (int64_t at = 0; at < range.n && st == DPT_OK; at += step) {
        dpt_range run = {.tensor = range.tensor,
                         .ig = range.ig + at,
                         .n = range.n - at < step ? range.n - at : step};
        st = write_each(works, count, run, false);
    }
    return st;
}

/* Whether a cell is read and written in memory, which threads may do at once. */
static bool in_place(const dpt_edit_work *work, int64_t cell) {
    const dpt_edit_input *input = work->input;
    dpt_range range = dpt_shard_cell(input->shard, cell);
    if (!work->touched[range.tensor] || !input->pre.view || !input->post.view || !work->sink.view)
        return false;
    if (dpt_edit_by_cell(work, work->nstages, range.tensor))
        return false;
    return input->pre.view(input->pre.ctx, range) != NULL &&
           input->post.view(input->post.ctx, range) != NULL &&
           work->sink.view(work->sink.ctx, range) != NULL;
}

/* Own cells [begin, end) that are in memory: a thread for each. */
static dpt_status write_in_place(dpt_edit_work *work, int64_t begin, int64_t end) {
    int worst = DPT_OK;
#pragma omp parallel for schedule(dynamic) num_threads(work->threads) reduction(max : worst)
    for (int64_t c = begin; c < end; c++) {
        int one = write_cell(work, c);
        worst = one > worst ? one : worst;
    }
    return dpt_edit_locate(work, (dpt_status)worst);
}

static dpt_status write_fault(dpt_edit_work *work, int64_t begin, int64_t end, bool *memory) {
    dpt_status st = DPT_OK;
    *memory = work->threads > 1 && end - begin >= work->threads;
    for (int64_t c = begin; st == DPT_OK && c < end; c++) {
        st = dpt_agree_fault("edit.apply");
        *memory = *memory && in_place(work, c);
    }
    return dpt_edit_locate(work, st);
}

/* Own cells [begin, end): what is in memory edit by edit, else cell by cell, all threads on one after the other. */
static dpt_status edit_write_write_cells(dpt_edit_work *const *works, int count, int64_t begin,
                                         int64_t end) {
    dpt_status st = DPT_OK;
    bool memory = true; /* of all: their sources are the same */
    for (int i = 0; i < count && st == DPT_OK; i++) {
        bool one;
        st = write_fault(works[i], begin, end, &one);
        memory = memory && one;
    }
    for (int i = 0; i < count && st == DPT_OK && memory; i++)
        st = write_in_place(works[i], begin, end);
    for (int64_t c = begin; st == DPT_OK && c < end && !memory; c++) {
        st = dpt_stop_check();
        if (st == DPT_OK)
            st = write_together(works, count, c);
    }
    return st;
}

dpt_status dpt_edit_write_cells(dpt_edit_work *const *works, int count, int64_t from, int64_t to) {
    if (count == 0)
        return DPT_OK;
    int64_t begin = from > works[0]->first ? from : works[0]->first;
    int64_t end = to < works[0]->last ? to : works[0]->last;
    dpt_status st = dpt_stop_check();
    return st == DPT_OK && begin < end ? edit_write_write_cells(works, count, begin, end) : st;
}
