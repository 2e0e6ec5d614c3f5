#include "kernel.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/stop.h"
#include "deltapath/linalg/reduce.h"

#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <string.h>

/* Deltas of the own cells, cell by cell, and sums over them. */

enum { PIECES = DPT_CELL / DPT_EDIT_PIECE };
enum { DELTA, SPARE }; /* parts of the scratch of a thread */

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

dpt_range dpt_edit_piece(dpt_range cell, int piece) {
    int64_t at = (int64_t)piece * DPT_EDIT_PIECE;
    return (dpt_range){
        .tensor = cell.tensor, .ig = cell.ig + at, .n = smaller(DPT_EDIT_PIECE, cell.n - at)};
}

int dpt_edit_pieces(dpt_range cell) {
    return (int)((cell.n + DPT_EDIT_PIECE - 1) / DPT_EDIT_PIECE);
}

dpt_status dpt_edit_load(const dpt_source *source, dpt_range range, void *buffer,
                         const void **stored) {
    *stored = source->view != NULL ? source->view(source->ctx, range) : NULL;
    if (*stored != NULL)
        return DPT_OK;
    *stored = buffer;
    return source->read(source->ctx, range, buffer);
}

dpt_status dpt_edit_load_both(dpt_edit_work *work, dpt_range range, const void **pre,
                              const void **post) {
    DPT_ASSERT(range.n <= DPT_CELL);
    dpt_status st = dpt_edit_load(&work->input->pre, range, work->pre_buffer, pre);
    return st == DPT_OK ? dpt_edit_load(&work->input->post, range, work->post_buffer, post) : st;
}

dpt_dtype dpt_edit_pre_type(const dpt_edit_work *work, int tensor) {
    return work->input->pre.catalog->tensors[tensor].dtype;
}

bool dpt_edit_subtract(const dpt_edit_work *work, int tensor, int64_t n, const void *pre,
                       const void *post, float *delta, float *spare) {
    dpt_edit_types types = {.pre = dpt_edit_pre_type(work, tensor),
                            .post = work->catalog->tensors[tensor].dtype};
    return dpt_edit_kernel_delta(types, pre, post, n, delta, spare, NULL, NULL);
}

static dpt_status name_bad(const char *model, const char *name, int64_t ig) {
    return dpt_error(DPT_ERR_INPUT,
                     "%s: tensor '%s': the value at index %" PRId64
                     " is NaN or infinite: repair the model",
                     model, name, ig);
}

dpt_status dpt_edit_bad_result(const dpt_edit_work *work, dpt_range range, const void *pre,
                               const void *post, const void *out) {
    const dpt_tensor_info *info = &work->catalog->tensors[range.tensor];
    dpt_dtype to = work->sink.catalog->tensors[range.tensor].dtype;
    if (dpt_dtype_find_nonfinite(info->dtype, post, range.n) >= 0 ||
        (pre != NULL &&
         dpt_dtype_find_nonfinite(dpt_edit_pre_type(work, range.tensor), pre, range.n) >= 0))
        return dpt_edit_bad_value(work, range, pre, post);
    int64_t at = dpt_dtype_find_nonfinite(to, out, range.n);
    if (at < 0)
        return dpt_edit_bad_value(work, range, pre, post);
    float before, after;
    dpt_dtype_to_f32(info->dtype, (const char *)post + at * dpt_dtype_size(info->dtype), &after, 1);
    if (pre == NULL)
        return dpt_error(DPT_ERR_INPUT,
                         "tensor '%s': the post-trained value at index %" PRId64
                         ", %.9g, is beyond the range of %s: write a wider dtype",
                         info->name, range.ig + at, (double)after, dpt_dtype_name(to));
    dpt_dtype from = dpt_edit_pre_type(work, range.tensor);
    dpt_dtype_to_f32(from, (const char *)pre + at * dpt_dtype_size(from), &before, 1);
    return dpt_error(DPT_ERR_INPUT,
                     "tensor '%s': the edited value at index %" PRId64
                     " is beyond the range of %s (%.9g post-trained, %.9g pre-trained): write a "
                     "wider dtype or take a weaker edit",
                     info->name, range.ig + at, dpt_dtype_name(to), (double)after, (double)before);
}

dpt_status dpt_edit_bad_value(const dpt_edit_work *work, dpt_range range, const void *pre,
                              const void *post) {
    const dpt_edit_input *in = work->input;
    const dpt_tensor_info *info = &work->catalog->tensors[range.tensor];
    int64_t at = dpt_dtype_find_nonfinite(info->dtype, post, range.n);
    if (at >= 0)
        return name_bad(in->post_name != NULL ? in->post_name : "post-trained model", info->name,
                        range.ig + at);
    at = pre != NULL ? dpt_dtype_find_nonfinite(dpt_edit_pre_type(work, range.tensor), pre, range.n)
                     : -1;
    if (at >= 0)
        return name_bad(in->pre_name != NULL ? in->pre_name : "pre-trained model", info->name,
                        range.ig + at);
    return dpt_error(
        DPT_ERR_INPUT,
        "tensor '%s': a difference of the models or an edited value among the elements "
        "from %" PRId64 " on is beyond the range of its type: write a wider dtype or "
        "take a weaker edit",
        info->name, range.ig);
}

void dpt_edit_apply(const dpt_edit_work *work, int from, int upto, dpt_range range, float *delta) {
    for (int64_t at = 0; at < range.n; at += DPT_EDIT_PIECE) {
        dpt_range piece = {.tensor = range.tensor,
                           .ig = range.ig + at,
                           .n = smaller(DPT_EDIT_PIECE, range.n - at)};
        for (int s = from; s < upto; s++)
            if (work->stages[s].covers[range.tensor] && work->stages[s].method->apply != NULL)
                work->stages[s].method->apply(&work->stages[s], piece, delta + at);
    }
}

float *dpt_edit_scratch(const dpt_edit_work *work, int part) {
    /* A loop over cells in parallel runs the loops over pieces in teams of one. */
    int thread = omp_get_level() > 0 ? omp_get_ancestor_thread_num(1) : 0;
    DPT_ASSERT(thread < work->threads && part >= 0 && part < DPT_EDIT_SCRATCH);
    int64_t place = (int64_t)thread * DPT_EDIT_SCRATCH + part;
    return work->scratch + place * DPT_EDIT_PIECE;
}

/* Where the deltas of a cell come from. */
typedef struct cell_data {
    dpt_range range;
    dpt_edit_start start;
    const char *pre, *post; /* when the start has no deltas */
    int64_t pre_size, post_size;
} cell_data;

static dpt_status open_stored(dpt_edit_work *work, cell_data *cell) {
    if (cell->start.base != NULL)
        return DPT_OK;
    const void *pre = NULL, *post = NULL;
    dpt_status st = dpt_edit_load_both(work, cell->range, &pre, &post);
    cell->pre = pre;
    cell->post = post;
    cell->pre_size = dpt_dtype_size(dpt_edit_pre_type(work, cell->range.tensor));
    cell->post_size = dpt_dtype_size(work->catalog->tensors[cell->range.tensor].dtype);
    return st;
}

static dpt_status open_cell(dpt_edit_work *work, int upto, dpt_range range, cell_data *cell) {
    *cell = (cell_data){.range = range};
    dpt_status st = dpt_stop_check();
    if (st == DPT_OK)
        st = dpt_edit_begin(work, upto, range, &cell->start);
    return st == DPT_OK ? open_stored(work, cell) : st;
}

/* Deltas of a piece as the stages before `upto` left them; false for NaN or infinity. */
static bool piece_delta(const dpt_edit_work *work, int upto, const cell_data *cell, dpt_range piece,
                        float *delta) {
    int64_t at = piece.ig - cell->range.ig;
    bool good = true;
    if (cell->start.base != NULL)
        memmove(delta, cell->start.base + at, (size_t)piece.n * sizeof *delta);
    else
        good = dpt_edit_subtract(work, piece.tensor, piece.n, cell->pre + at * cell->pre_size,
                                 cell->post + at * cell->post_size, delta,
                                 dpt_edit_scratch(work, SPARE));
    dpt_edit_apply(work, cell->start.stages, upto, piece, delta);
    return good;
}

/* Deltas of all pieces. */
static dpt_status cell_delta(dpt_edit_work *work, int upto, const cell_data *cell, float *delta) {
    int bad = 0;
#pragma omp parallel for schedule(static) num_threads(work->threads) reduction(| : bad)
    for (int p = 0; p < dpt_edit_pieces(cell->range); p++) {
        dpt_range piece = dpt_edit_piece(cell->range, p);
        bad |= !piece_delta(work, upto, cell, piece, delta + (piece.ig - cell->range.ig));
    }
    return bad ? dpt_edit_bad_value(work, cell->range, cell->pre, cell->post) : DPT_OK;
}

static bool by_cell(const dpt_edit_stage *stage, int tensor) {
    return stage->covers[tensor] && stage->method->apply_cell != NULL;
}

bool dpt_edit_by_cell(const dpt_edit_work *work, int upto, int tensor) {
    for (int s = work->base_stage[tensor]; s < upto; s++)
        if (by_cell(&work->stages[s], tensor))
            return true;
    return false;
}

/* Deltas of a cell up to and with its last stage that works on whole cells. */
static dpt_status hold_cell(dpt_edit_work *work, int upto, int64_t cell, dpt_edit_start stored) {
    cell_data data = {.range = dpt_shard_cell(work->input->shard, cell), .start = stored};
    int tensor = data.range.tensor, first = stored.stages, last = upto - 1;
    while (!by_cell(&work->stages[first], tensor))
        first++;
    while (!by_cell(&work->stages[last], tensor))
        last--;
    if (work->held_cell == cell && work->held_stages == last + 1)
        return DPT_OK;
    work->held_cell = -1;
    dpt_status st = open_stored(work, &data);
    if (st == DPT_OK)
        st = cell_delta(work, first, &data, work->held);
    for (int s = first; st == DPT_OK && s <= last; s++)
        if (by_cell(&work->stages[s], tensor))
            work->stages[s].method->apply_cell(work, &work->stages[s], data.range, work->held);
        else
            dpt_edit_apply(work, s, s + 1, data.range, work->held);
    if (st == DPT_OK) {
        work->held_cell = cell;
        work->held_stages = last + 1;
    }
    return st;
}

dpt_status dpt_edit_begin(dpt_edit_work *work, int upto, dpt_range range, dpt_edit_start *start) {
    *start = (dpt_edit_start){.stages = work->base_stage[range.tensor]};
    bool holds = dpt_edit_by_cell(work, upto, range.tensor);
    if (start->stages == 0 && !holds)
        return DPT_OK;
    int64_t cell = dpt_shard_cell_of(work->input->shard, range.tensor, range.ig);
    DPT_ASSERT(cell >= work->first && cell < work->last);
    DPT_ASSERT(range.ig % DPT_CELL + range.n <= DPT_CELL);
    if (start->stages > 0)
        start->base = work->base[cell - work->first];
    dpt_status st = holds ? hold_cell(work, upto, cell, *start) : DPT_OK;
    DPT_ASSERT(st != DPT_OK || start->stages == 0 || start->base != NULL);
    if (holds)
        *start = (dpt_edit_start){.base = work->held, .stages = work->held_stages};
    start->base += range.ig % DPT_CELL;
    return st;
}

dpt_status dpt_edit_delta(dpt_edit_work *work, int upto, dpt_range range, float *delta) {
    cell_data cell;
    dpt_status st = open_cell(work, upto, range, &cell);
    return st == DPT_OK ? cell_delta(work, upto, &cell, delta) : st;
}

dpt_status dpt_edit_original(dpt_edit_work *work, dpt_range range, float *delta) {
    cell_data cell = {.range = range};
    dpt_status st = open_stored(work, &cell);
    return st == DPT_OK ? cell_delta(work, 0, &cell, delta) : st;
}

dpt_status dpt_edit_values(void *ctx, dpt_range range, float *values) {
    dpt_edit_view *view = ctx;
    return dpt_edit_delta(view->work, view->upto, range, values);
}

dpt_status dpt_edit_visit(dpt_edit_work *work, const dpt_edit_stage *stage, dpt_edit_visit_fn fn,
                          void *ctx) {
    float *delta = dpt_mem_alloc(DPT_CELL, sizeof *delta, "deltas of a cell");
    dpt_status st = delta != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    for (int64_t c = work->first; st == DPT_OK && c < work->last; c++) {
        dpt_range cell = dpt_shard_cell(work->input->shard, c);
        if (!stage->covers[cell.tensor])
            continue;
        st = dpt_edit_delta(work, stage->index, cell, delta);
        if (st == DPT_OK)
            st = fn(ctx, cell, c - work->input->shard->first_cell[cell.tensor], delta);
    }
    dpt_mem_free(delta);
    return st;
}

/* Whether the sum of magnitudes can be taken of bf16 as it is stored: no stage is in between. */
static bool sums_stored(const dpt_edit_work *work, const dpt_edit_stage *stage, dpt_edit_sums_fn fn,
                        const cell_data *cell) {
    int tensor = cell->range.tensor;
    bool plain = fn == dpt_edit_sum_abs && cell->start.base == NULL;
    for (int s = 0; s < stage->index; s++)
        plain = plain && !work->stages[s].covers[tensor];
    return plain && work->catalog->tensors[tensor].dtype == DPT_BF16 &&
           dpt_edit_pre_type(work, tensor) == DPT_BF16;
}

/* Sums over one cell: pieces in order. pieces (PIECES, nsums) is scratch. */
static dpt_status stream_sum_cell(dpt_edit_work *work, const dpt_edit_stage *stage, int nsums,
                                  dpt_edit_sums_fn fn, dpt_range range, double *pieces,
                                  double *out) {
    cell_data cell;
    dpt_status st = open_cell(work, stage->index, range, &cell);
    if (st != DPT_OK)
        return st;
    int bad = 0;
    bool stored = sums_stored(work, stage, fn, &cell);
#pragma omp parallel for schedule(static) num_threads(work->threads) reduction(| : bad)
    for (int p = 0; p < dpt_edit_pieces(range); p++) {
        dpt_range piece = dpt_edit_piece(range, p);
        if (stored && piece.n % DPT_EDIT_UNIT == 0) {
            int64_t at = (piece.ig - range.ig) * cell.pre_size;
            double *sums = pieces + (int64_t)p * DPT_EDIT_ABS_SUMS;
            sums[DPT_EDIT_ABS] = dpt_edit_kernel_abs(
                (const uint16_t *)(const void *)(cell.pre + at),
                (const uint16_t *)(const void *)(cell.post + at), piece.n, &sums[DPT_EDIT_ZEROS]);
            bad |= !isfinite(sums[DPT_EDIT_ABS]);
            continue;
        }
        float *delta = dpt_edit_scratch(work, DELTA);
        bad |= !piece_delta(work, stage->index, &cell, piece, delta);
        fn(stage, piece, delta, pieces + (int64_t)p * nsums);
    }
    if (bad)
        return dpt_edit_bad_value(work, range, cell.pre, cell.post);
    for (int p = 0; p < dpt_edit_pieces(range); p++)
        for (int j = 0; j < nsums; j++)
            out[j] += pieces[(int64_t)p * nsums + j];
    return DPT_OK;
}

dpt_status dpt_edit_reduce_cells(const dpt_edit_work *work, int nsums, const double *cells,
                                 double *totals) {
    const dpt_shard *shard = work->input->shard;
    int64_t groups = (int64_t)work->catalog->count * nsums;
    double *partial = dpt_mem_zalloc(shard->cells * nsums, sizeof *partial, "sums over cells");
    int64_t *first = dpt_mem_alloc(groups + 1, sizeof *first, "sums over cells");
    bool made = partial != NULL && first != NULL;
    dpt_status st = dpt_agree(work->input->comm, made ? DPT_OK : DPT_ERR_OUTPUT);
    if (st == DPT_OK) {
        for (int64_t g = 0; g < groups; g++) {
            const int64_t *range = shard->first_cell + g / nsums;
            first[g] = range[0] * nsums + g % nsums * (range[1] - range[0]);
        }
        first[groups] = shard->cells * nsums;
        for (int64_t c = work->first; c < work->last; c++) {
            int t = dpt_shard_cell(shard, c).tensor;
            for (int j = 0; j < nsums; j++)
                partial[first[(int64_t)t * nsums + j] + c - shard->first_cell[t]] =
                    cells[(c - work->first) * nsums + j];
        }
        st = dpt_reduce_totals(work->input->comm, groups, first, partial, totals);
    }
    dpt_mem_free(first);
    dpt_mem_free(partial);
    return st;
}

dpt_status dpt_edit_sums(dpt_edit_work *work, const dpt_edit_stage *stage, int nsums,
                         dpt_edit_sums_fn fn, double **totals) {
    int64_t own = work->last - work->first;
    double *pieces = dpt_mem_zalloc((int64_t)PIECES * nsums, sizeof *pieces, "sums over cells");
    double *cells = dpt_mem_zalloc(own * nsums, sizeof *cells, "sums over cells");
    *totals = dpt_mem_zalloc((int64_t)work->catalog->count * nsums, sizeof **totals, "sums");
    bool made = pieces != NULL && cells != NULL && *totals != NULL;
    dpt_status st = made ? DPT_OK : DPT_ERR_OUTPUT;
    for (int64_t c = work->first; st == DPT_OK && c < work->last; c++) {
        dpt_range range = dpt_shard_cell(work->input->shard, c);
        if (stage->covers[range.tensor])
            st = stream_sum_cell(work, stage, nsums, fn, range, pieces,
                                 cells + (c - work->first) * nsums);
    }
    st = dpt_agree(work->input->comm, st);
    if (st == DPT_OK)
        st = dpt_edit_reduce_cells(work, nsums, cells, *totals);
    dpt_mem_free(cells);
    dpt_mem_free(pieces);
    if (st != DPT_OK) {
        dpt_mem_free(*totals);
        *totals = NULL;
    }
    return st;
}

void dpt_edit_sum_abs(const dpt_edit_stage *stage, dpt_range range, const float *delta,
                      double *sums) {
    (void)stage;
    double zeros = 0.0;
    for (int64_t i = 0; i < range.n; i++)
        zeros += delta[i] == 0.0f;
    sums[DPT_EDIT_ABS] = dpt_reduce_abs(delta, range.n);
    sums[DPT_EDIT_ZEROS] = zeros;
}
