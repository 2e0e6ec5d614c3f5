#include "stage.h"

#include "deltapath/linalg/reduce.h"

#include <math.h>
#include <string.h>

/* The last pass: W_edit = round(W_pre + F), cell by cell into the sink, with the statistics of what
 * was written. */

enum { PIECES = DPT_CELL / DPT_EDIT_PIECE };
enum { PRE, POST, DELTA };

typedef struct cell_job {
    dpt_edit_work *work;
    dpt_range range;
    const char *pre, *post; /* stored elements */
    const float *base;      /* materialised deltas or NULL */
    char *out;
    int64_t pre_size, post_size, out_size;
    dpt_dtype pre_type, post_type, out_type;
    double sums[PIECES][DPT_EDIT_SUMS];
} cell_job;

/* Round the edited values into the output; sums of E = stored - post. False when a value is beyond
 * the range of the type. values (n) is overwritten. */
static bool store_piece(const cell_job *job, dpt_range piece, float *values, const float *post,
                        double *sums) {
    char *out = job->out + (piece.ig - job->range.ig) * job->out_size;
    dpt_dtype_from_f32(job->out_type, values, out, piece.n);
    dpt_dtype_to_f32(job->out_type, out, values, piece.n);
    bool good = dpt_edit_difference(post, values, values, piece.n);
    int changed = 0;
    for (int i = 0; i < (int)piece.n; i++)
        changed += values[i] != 0.0f;
    sums[DPT_EDIT_SUM_EDIT] = dpt_reduce_square(values, piece.n);
    sums[DPT_EDIT_SUM_CHANGED] = (double)changed;
    return good;
}

static bool edit_piece(const cell_job *job, dpt_range piece, double *sums) {
    const dpt_edit_work *work = job->work;
    int64_t at = piece.ig - job->range.ig;
    float *pre = dpt_edit_scratch(work, PRE);
    float *post = dpt_edit_scratch(work, POST);
    float *delta = dpt_edit_scratch(work, DELTA);
    dpt_dtype_to_f32(job->pre_type, job->pre + at * job->pre_size, pre, piece.n);
    dpt_dtype_to_f32(job->post_type, job->post + at * job->post_size, post, piece.n);
    bool good = dpt_edit_difference(pre, post, delta, piece.n);
    sums[DPT_EDIT_SUM_DELTA] = dpt_reduce_square(delta, piece.n);
    if (job->base != NULL)
        memcpy(delta, job->base + at, (size_t)piece.n * sizeof *delta);
    dpt_edit_apply(work, work->base_stage[piece.tensor], work->nstages, piece, delta);
    for (int64_t i = 0; i < piece.n; i++)
        delta[i] = pre[i] + delta[i];
    return store_piece(job, piece, delta, post, sums) && good;
}

static bool convert_piece(const cell_job *job, dpt_range piece, double *sums) {
    int64_t at = piece.ig - job->range.ig;
    float *post = dpt_edit_scratch(job->work, POST);
    float *values = dpt_edit_scratch(job->work, DELTA);
    dpt_dtype_to_f32(job->post_type, job->post + at * job->post_size, post, piece.n);
    memcpy(values, post, (size_t)piece.n * sizeof *values);
    sums[DPT_EDIT_SUM_DELTA] = 0.0;
    return store_piece(job, piece, values, post, sums);
}

static dpt_status run_pieces(cell_job *job, bool touched, double *cell_sums) {
    dpt_edit_work *work = job->work;
    int pieces = dpt_edit_pieces(job->range);
    int bad = 0;
#pragma omp parallel for schedule(static) num_threads(work->threads) reduction(| : bad)
    for (int p = 0; p < pieces; p++) {
        dpt_range piece = dpt_edit_piece(job->range, p);
        bad |= touched ? !edit_piece(job, piece, job->sums[p])
                       : !convert_piece(job, piece, job->sums[p]);
    }
    if (bad)
        return dpt_edit_bad_value(work, job->range, job->pre, job->post);
    for (int p = 0; p < pieces; p++)
        for (int j = 0; j < DPT_EDIT_SUMS; j++)
            cell_sums[j] += job->sums[p][j];
    return DPT_OK;
}

/* The post-trained values as they are stored. */
static dpt_status copy_cell(dpt_edit_work *work, dpt_range range) {
    const void *post;
    dpt_dtype type = work->catalog->tensors[range.tensor].dtype;
    dpt_status st = dpt_edit_load(&work->input->post, range, work->post_buffer, &post);
    if (st == DPT_OK && dpt_dtype_editable(type) &&
        dpt_dtype_find_nonfinite(type, post, range.n) >= 0)
        st = dpt_edit_bad_value(work, range, NULL, post);
    return st == DPT_OK ? work->sink.write(work->sink.ctx, range, post) : st;
}

static dpt_status write_cell(dpt_edit_work *work, int64_t cell) {
    dpt_range range = dpt_shard_cell(work->input->shard, cell);
    int t = range.tensor;
    bool touched = work->touched[t];
    cell_job job = {.work = work, .range = range};
    job.post_type = work->catalog->tensors[t].dtype;
    job.out_type = work->sink.catalog->tensors[t].dtype;
    if (!touched && job.out_type == job.post_type)
        return copy_cell(work, range);
    job.post_size = dpt_dtype_size(job.post_type);
    job.out_size = dpt_dtype_size(job.out_type);
    const void *pre = NULL, *post = NULL;
    dpt_status st;
    if (touched) {
        job.pre_type = dpt_edit_pre_type(work, t);
        job.pre_size = dpt_dtype_size(job.pre_type);
        job.base = dpt_edit_base(work, range);
        st = dpt_edit_load_both(work, range, &pre, &post);
    } else {
        st = dpt_edit_load(&work->input->post, range, work->post_buffer, &post);
    }
    if (st != DPT_OK)
        return st;
    job.pre = pre;
    job.post = post;
    void *view = work->sink.view != NULL ? work->sink.view(work->sink.ctx, range) : NULL;
    job.out = view != NULL ? view : work->out_buffer;
    st = run_pieces(&job, touched, work->cell_sums + (cell - work->first) * DPT_EDIT_SUMS);
    if (st == DPT_OK && view == NULL)
        st = work->sink.write(work->sink.ctx, range, job.out);
    return st;
}

dpt_status dpt_edit_write_tensor(dpt_edit_work *work, int tensor) {
    const int64_t *cells = work->input->shard->first_cell + tensor;
    int64_t begin = cells[0] > work->first ? cells[0] : work->first;
    int64_t end = cells[1] < work->last ? cells[1] : work->last;
    dpt_status st = DPT_OK;
    for (int64_t c = begin; st == DPT_OK && c < end; c++) {
        st = dpt_agree_fault("edit.apply");
        if (st == DPT_OK)
            st = write_cell(work, c);
    }
    return st;
}
