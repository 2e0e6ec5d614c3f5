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

/* Bytes of `held` before a run that lies in it; -1 for one that does not. */
static int64_t stream_offset(const dpt_range *held, dpt_range range, int64_t size) {
    bool inside = held->n > 0 && held->tensor == range.tensor && range.ig >= held->ig &&
                  range.ig + range.n <= held->ig + held->n;
    return inside ? (range.ig - held->ig) * size : -1;
}

/* @param[in,out] held  what lies in the buffer. */
static dpt_status stream_load(const dpt_edit_room *room, const dpt_source *source, dpt_range range,
                              char *buffer, dpt_range *held, const void **stored) {
    *stored = source->view != NULL ? source->view(source->ctx, range) : NULL;
    if (*stored != NULL)
        return DPT_OK;
    int64_t size = dpt_dtype_size(source->catalog->tensors[range.tensor].dtype);
    int64_t offset = room->keeps ? stream_offset(held, range, size) : -1;
    *stored = buffer + (offset > 0 ? offset : 0);
    if (offset >= 0)
        return DPT_OK;
    dpt_status st = source->read(source->ctx, range, buffer);
    *held = st == DPT_OK ? range : (dpt_range){.n = 0};
    return st;
}

dpt_status dpt_edit_load_post(dpt_edit_work *work, dpt_range range, const void **post) {
    dpt_edit_room *room = work->room;
    return stream_load(room, &work->input->post, range, room->post, &room->post_held, post);
}

dpt_status dpt_edit_load_both(dpt_edit_work *work, dpt_range range, const void **pre,
                              const void **post) {
    DPT_ASSERT(range.n <= DPT_CELL);
    dpt_edit_room *room = work->room;
    dpt_status st = stream_load(room, &work->input->pre, range, room->pre, &room->pre_held, pre);
    return st == DPT_OK ? dpt_edit_load_post(work, range, post) : st;
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
                     " is NaN or infinite: repair the model, or name the tensor in select.exclude",
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

int64_t dpt_edit_numel(const dpt_edit_input *input, int tensor) {
    return input->pair != NULL ? dpt_pair_shared(input->pair, tensor)
                               : input->post.catalog->tensors[tensor].numel;
}

int64_t dpt_edit_left_out(const dpt_edit_input *input, int tensor) {
    return input->post.catalog->tensors[tensor].numel - dpt_edit_numel(input, tensor);
}

void dpt_edit_leave_out(const dpt_edit_input *input, dpt_range range, float *delta) {
    for (int64_t at = 0, n = 0;
         input->pair != NULL && dpt_pair_next_left_out(input->pair, range, &at, &n);)
        for (int64_t i = at; i < at + n; i++)
            delta[i] = -0.0F;
}

void dpt_edit_apply(const dpt_edit_work *work, int from, int upto, dpt_range range, float *delta) {
    for (int64_t at = 0; at < range.n; at += DPT_EDIT_PIECE) {
        dpt_range piece = {.tensor = range.tensor,
                           .ig = range.ig + at,
                           .n = smaller(DPT_EDIT_PIECE, range.n - at)};
        for (int s = from; s < upto; s++)
            if (work->stages[s].covers[range.tensor] && work->stages[s].method->apply != NULL) {
                work->stages[s].method->apply(&work->stages[s], piece, delta + at);
                dpt_edit_leave_out(work->input, piece, delta + at);
            }
        dpt_edit_leave_out(work->input, piece, delta + at);
    }
}

float *dpt_edit_scratch(const dpt_edit_work *work, int part) {
    /* A loop over cells in parallel runs the loops over pieces in teams of one. */
    int thread = omp_get_level() > 0 ? omp_get_ancestor_thread_num(1) : 0;
    DPT_ASSERT(thread < work->threads && part >= 0 && part < DPT_EDIT_SCRATCH);
    int64_t place = (int64_t)thread * DPT_EDIT_SCRATCH + part;
    return work->room->scratch + place * DPT_EDIT_PIECE;
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
        if (by_cell(&work->stages[s], tensor)) {
            work->stages[s].method->apply_cell(work, &work->stages[s], data.range, work->held);
            dpt_edit_leave_out(work->input, data.range, work->held);
        } else {
            dpt_edit_apply(work, s, s + 1, data.range, work->held);
        }
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

/* Whether deltas are differences of bf16 as it is stored: no stage is in between. */
static bool stream_is_stored(const dpt_edit_work *work, int upto, int tensor) {
    bool plain = work->base_stage[tensor] == 0;
    for (int s = 0; s < upto; s++)
        plain = plain && !work->stages[s].covers[tensor];
    return plain && work->catalog->tensors[tensor].dtype == DPT_BF16 &&
           dpt_edit_pre_type(work, tensor) == DPT_BF16;
}

static dpt_status stream_values(void *ctx, dpt_range range, float *values) {
    const dpt_edit_view *view = ctx;
    return dpt_edit_delta(view->work, view->upto, range, values);
}

static dpt_status stream_pair(void *ctx, dpt_range range, const uint16_t **before,
                              const uint16_t **after) {
    const dpt_edit_view *view = ctx;
    const void *pre = NULL, *post = NULL;
    dpt_status st = DPT_OK;
    if (stream_is_stored(view->work, view->upto, range.tensor) &&
        dpt_edit_left_out(view->work->input, range.tensor) == 0) {
        st = dpt_stop_check();
        if (st == DPT_OK)
            st = dpt_edit_load_both(view->work, range, &pre, &post);
    }
    *before = pre;
    *after = post;
    return st;
}

dpt_quantile_source dpt_edit_value_source(dpt_edit_view *view) {
    return (dpt_quantile_source){.values = stream_values, .pair = stream_pair, .ctx = view};
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

/* Sums over tensors, or their parts. */
typedef struct stream_sums {
    dpt_edit_work *work;
    const dpt_edit_stage *stage;
    const dpt_parts *parts; /* NULL: over tensors */
    int nsums;
    dpt_edit_sums_fn fn;
    int64_t *
        first; /* (tensors or parts, nsums) slots of each sum, one for each of its cells; and the end */
    double *slots;     /* set by the ranks that own the cells */
    int64_t room;      /* chunks of a cell */
    dpt_range *chunks; /* (room) */
    double *sums;      /* (room, parts of an item and one, nsums) */
} stream_sums;

static int64_t stream_count(const stream_sums *s) {
    return s->parts != NULL ? s->parts->count : s->work->catalog->count;
}

/* The item of an element: a tensor that is not taken apart is one. */
static dpt_part_item stream_item(const stream_sums *s, int tensor, int64_t ig) {
    if (s->parts != NULL)
        return dpt_parts_item(s->parts, tensor, ig);
    return (dpt_part_item){
        .first = tensor, .count = 1, .end = s->work->catalog->tensors[tensor].numel};
}

/* Slots of every sum. @return how many. */
static int64_t stream_place(stream_sums *s) {
    int64_t at = 0;
    for (int t = 0; t < s->work->catalog->count; t++) {
        int64_t ig = 0, numel = s->work->catalog->tensors[t].numel;
        do {
            dpt_part_item item = stream_item(s, t, ig);
            int64_t cells = (item.end + DPT_CELL - 1) / DPT_CELL - item.begin / DPT_CELL;
            for (int64_t u = 0; u < (int64_t)item.count * s->nsums; u++) {
                s->first[(int64_t)item.first * s->nsums + u] = at;
                at += s->stage->covers[t] ? cells : 0;
            }
            ig = item.end;
        } while (ig < numel);
    }
    s->first[stream_count(s) * s->nsums] = at;
    return at;
}

/* A cell in pieces, cut where an item ends. @param[out] chunks or NULL. @return how many. */
static int64_t stream_cut(const stream_sums *s, dpt_range cell, dpt_range *chunks) {
    int64_t count = 0;
    for (int64_t at = 0; at < cell.n; count++) {
        int64_t item = stream_item(s, cell.tensor, cell.ig + at).end - cell.ig;
        int64_t end = smaller(smaller((at / DPT_EDIT_PIECE + 1) * DPT_EDIT_PIECE, cell.n), item);
        if (chunks != NULL)
            chunks[count] = (dpt_range){.tensor = cell.tensor, .ig = cell.ig + at, .n = end - at};
        at = end;
    }
    return count;
}

/* Sums of a span of deltas, added to those of the item's parts. @param one (nsums) scratch. */
static void stream_sum_span(const stream_sums *s, const dpt_edit_strip *all, dpt_part_span span,
                            dpt_part_item item, const float *delta, double *to, double *one) {
    float gathered[DPT_EDIT_PIECE];
    for (int w = 0; w < span.ways && w < span.n; w++) {
        dpt_edit_strip strip = *all;
        strip.part = s->parts != NULL ? span.part[w] : -1;
        strip.ig += w;
        strip.n = (span.n - w + span.ways - 1) / span.ways;
        strip.stride = span.ways;
        for (int64_t i = 0; span.ways > 1 && i < strip.n; i++)
            gathered[i] = delta[w + i * span.ways];
        s->fn(s->stage, &strip, span.ways > 1 ? gathered : delta, one);
        for (int j = 0; j < s->nsums; j++)
            to[(int64_t)(span.part[w] - item.first) * s->nsums + j] += one[j];
    }
}

/* Sums of a chunk, which is inside one item. false: a value is NaN or infinite. */
static bool stream_sum_chunk(const stream_sums *s, const cell_data *cell, bool stored,
                             dpt_range chunk, double *to) {
    dpt_part_item item = stream_item(s, chunk.tensor, chunk.ig);
    double *one = to + (int64_t)item.count * s->nsums;
    int64_t from = (chunk.ig - cell->range.ig) * cell->pre_size;
    float *delta = dpt_edit_scratch(s->work, DELTA);
    bool good = true, made = false;
    memset(to, 0, (size_t)item.count * (size_t)s->nsums * sizeof *to);
    for (int64_t at = 0; at < chunk.n && good;) {
        dpt_part_span span = {.n = chunk.n, .ways = 1, .part = {item.first}};
        if (s->parts != NULL)
            span = dpt_parts_span(s->parts, chunk.tensor, chunk.ig + at, chunk.n - at);
        if (stored && span.n == chunk.n && span.ways == 1 && span.n % DPT_EDIT_UNIT == 0) {
            one = to + (int64_t)(span.part[0] - item.first) * s->nsums;
            one[DPT_EDIT_ABS] = dpt_edit_kernel_abs(
                (const uint16_t *)(const void *)(cell->pre + from),
                (const uint16_t *)(const void *)(cell->post + from), span.n, &one[DPT_EDIT_ZEROS]);
            return isfinite(one[DPT_EDIT_ABS]);
        }
        if (!made)
            good = piece_delta(s->work, s->stage->index, cell, chunk, delta);
        made = true;
        dpt_edit_strip strip = {.tensor = chunk.tensor, .ig = chunk.ig + at, .n = span.n};
        stream_sum_span(s, &strip, span, item, delta + at, to, one);
        at += span.n;
    }
    return good;
}

static dpt_status stream_make_room(stream_sums *s, int64_t chunks) {
    int64_t stride = (int64_t)(DPT_PART_WAYS + 1) * s->nsums;
    if (chunks <= s->room)
        return DPT_OK;
    dpt_mem_free(s->chunks);
    dpt_mem_free(s->sums);
    s->room = chunks;
    s->chunks = dpt_mem_alloc(chunks, sizeof *s->chunks, "sums over cells");
    s->sums = dpt_mem_alloc(chunks * stride, sizeof *s->sums, "sums over cells");
    return s->chunks != NULL && s->sums != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

/* Sums over one cell: pieces in order. */
static dpt_status stream_sum_cell(stream_sums *s, int64_t c) {
    cell_data cell;
    dpt_range range = dpt_shard_cell(s->work->input->shard, c);
    int64_t stride = (int64_t)(DPT_PART_WAYS + 1) * s->nsums, inside = range.ig / DPT_CELL;
    int64_t chunks = stream_cut(s, range, NULL);
    dpt_status st = open_cell(s->work, s->stage->index, range, &cell);
    if (st == DPT_OK)
        st = stream_make_room(s, chunks);
    if (st != DPT_OK)
        return st;
    int bad = 0;
    bool stored = s->fn == dpt_edit_sum_abs && cell.start.base == NULL &&
                  stream_is_stored(s->work, s->stage->index, range.tensor);
    stream_cut(s, range, s->chunks);
#pragma omp parallel for schedule(static) num_threads(s->work->threads) reduction(| : bad)
    for (int64_t p = 0; p < chunks; p++)
        bad |= !stream_sum_chunk(s, &cell, stored, s->chunks[p], s->sums + p * stride);
    if (bad)
        return dpt_edit_bad_value(s->work, range, cell.pre, cell.post);
    for (int64_t p = 0; p < chunks; p++) {
        dpt_part_item item = stream_item(s, range.tensor, s->chunks[p].ig);
        const int64_t *first = s->first + (int64_t)item.first * s->nsums;
        for (int64_t u = 0; u < (int64_t)item.count * s->nsums; u++)
            s->slots[first[u] + inside - item.begin / DPT_CELL] += s->sums[p * stride + u];
    }
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

dpt_status dpt_edit_sums(dpt_edit_work *work, const dpt_edit_stage *stage, dpt_edit_over over,
                         int nsums, dpt_edit_sums_fn fn, double **totals) {
    stream_sums s = {.work = work,
                     .stage = stage,
                     .parts = over == DPT_EDIT_OVER_PARTS ? work->input->parts : NULL,
                     .nsums = nsums,
                     .fn = fn};
    int64_t groups = stream_count(&s) * nsums;
    s.first = dpt_mem_alloc(groups + 1, sizeof *s.first, "sums over cells");
    *totals = dpt_mem_zalloc(groups, sizeof **totals, "sums");
    if (s.first != NULL)
        s.slots = dpt_mem_zalloc(stream_place(&s), sizeof *s.slots, "sums over cells");
    dpt_status st = s.slots != NULL && *totals != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    for (int64_t c = work->first; st == DPT_OK && c < work->last; c++)
        if (stage->covers[dpt_shard_cell(work->input->shard, c).tensor])
            st = stream_sum_cell(&s, c);
    st = dpt_agree(work->input->comm, st);
    if (st == DPT_OK)
        st = dpt_reduce_totals(work->input->comm, groups, s.first, s.slots, *totals);
    dpt_mem_free(s.first);
    dpt_mem_free(s.slots);
    dpt_mem_free(s.chunks);
    dpt_mem_free(s.sums);
    if (st != DPT_OK) {
        dpt_mem_free(*totals);
        *totals = NULL;
    }
    return st;
}

void dpt_edit_sum_abs(const dpt_edit_stage *stage, const dpt_edit_strip *strip, const float *delta,
                      double *sums) {
    (void)stage;
    double zeros = 0.0;
    for (int64_t i = 0; i < strip->n; i++)
        zeros += delta[i] == 0.0f;
    sums[DPT_EDIT_ABS] = dpt_reduce_abs(delta, strip->n);
    sums[DPT_EDIT_ZEROS] = zeros;
}
