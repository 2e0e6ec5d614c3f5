#include "../stage.h"

#include "deltapath/tensor/role.h"

#include "deltapath/base/mem.h"
#include "deltapath/linalg/reduce.h"

#include <math.h>
#include <string.h>

/* BitDelta: arXiv:2410.13841 Eq. (7)-(9), F(Delta) = mean |Delta| sign(Delta), sign(0) = 0. The mean
 * is over all entries of a matrix (a part of a tensor that holds several), or of its row of one output, or, which is this project's, over those that are not
 * 0: deltas of bf16 models are exact zeros where the training moved a weight by less than its
 * rounding. Section 5.3 (Fig. 5): a multiple of the mean, and magnitudes drawn from a distribution with that mean.
 *
 * The code of BitDelta's authors (github.com/FasterDecoding/BitDelta, diff.py) takes Delta and adds
 * F(Delta) in the type of the tensors, and gives 0 the sign +1; `convention: code` does the same. */

enum {
    BITDELTA_GRANULARITY,
    BITDELTA_TENSORS,
    BITDELTA_MULTIPLE,
    BITDELTA_SAMPLE,
    BITDELTA_CONVENTION,
    BITDELTA_MEAN
};
enum { SAMPLE_NONE, SAMPLE_NORMAL, SAMPLE_UNIFORM };
enum { CONVENTION_PAPER, CONVENTION_CODE };
enum { MEAN_ALL, MEAN_NONZERO };

/* Standard deviation over mean of |x| for a normal x: sqrt(pi / 2 - 1). */
static const double NORMAL_SPREAD = 0.75551063976286704;

enum { GRANULARITY_TENSOR, GRANULARITY_ROW };
enum { TENSORS_LINEAR, TENSORS_ALL };

typedef struct magnitudes {
    double *mean;       /* (parts) */
    double *zeros;      /* (parts) entries that are 0 */
    int64_t *first_row; /* (tensors + 1) rows of covered tensors end to end; granularity row */
    float *row;         /* (rows) of one output each, in the order of the elements */
} magnitudes;

static void bitdelta_destroy(dpt_edit_stage *stage) {
    magnitudes *m = stage->state;
    if (m == NULL)
        return;
    dpt_mem_free(m->mean);
    dpt_mem_free(m->zeros);
    dpt_mem_free(m->first_row);
    dpt_mem_free(m->row);
    dpt_mem_free(m);
}

static bool bitdelta_covers(const dpt_edit_stage_spec *spec, const dpt_tensor_info *info) {
    if ((int)dpt_edit_value(spec, BITDELTA_TENSORS) == TENSORS_ALL)
        return dpt_role_is_matrix(info);
    return dpt_role_is_linear(info);
}

static bool bitdelta_follows_code(const dpt_edit_stage *stage) {
    return (int)dpt_edit_value(stage->spec, BITDELTA_CONVENTION) == CONVENTION_CODE;
}

/* Round to the type that arithmetic between the two models has in torch: theirs when it is the same,
 * else fp32. */
static void bitdelta_round_to_stored(const dpt_edit_stage *stage, int tensor, int64_t n, float *x) {
    uint16_t stored[DPT_EDIT_PIECE];
    dpt_dtype post = stage->catalog->tensors[tensor].dtype;
    dpt_dtype pre = stage->input->pre.catalog->tensors[tensor].dtype;
    if (pre != post || dpt_dtype_size(post) != sizeof stored[0])
        return;
    dpt_dtype_from_f32(post, x, stored, n);
    dpt_dtype_to_f32(post, stored, x, n);
}

/* dpt_edit_sum_abs of the rounded delta. */
static void bitdelta_sum_rounded(const dpt_edit_stage *stage, const dpt_edit_strip *strip,
                                 const float *delta, double *sums) {
    float rounded[DPT_EDIT_PIECE];
    memcpy(rounded, delta, (size_t)strip->n * sizeof *rounded);
    bitdelta_round_to_stored(stage, strip->tensor, strip->n, rounded);
    dpt_edit_sum_abs(stage, strip, rounded, sums);
}

/* Over how many entries a mean of n entries is taken; a sum of zeros over none is 0. */
static double bitdelta_count(const dpt_edit_stage *stage, int64_t n, double zeros) {
    if ((int)dpt_edit_value(stage->spec, BITDELTA_MEAN) == MEAN_ALL)
        return (double)n;
    return zeros < (double)n ? (double)n - zeros : 1.0;
}

/* Rows of one output: those of the tensor as it is stored, or, where it is stored as (inputs, outputs), its
 * columns; item by item. */
typedef struct row_shape {
    bool columns;
    int64_t cols;  /* stored */
    int64_t items; /* that have columns of their own */
    int64_t count; /* rows of one output */
} row_shape;

static row_shape bitdelta_row_shape(const dpt_edit_stage *stage, int tensor) {
    const dpt_parts *parts = stage->input->parts;
    int64_t numel = stage->catalog->tensors[tensor].numel;
    const dpt_layout *layout = &parts->items[parts->first[tensor]].layout;
    dpt_part_item item = dpt_parts_item(parts, tensor, 0);
    row_shape shape = {.columns = dpt_layout_is_transposed(layout), .items = numel / item.end};
    shape.cols = shape.columns ? item.end / layout->cols : layout->cols;
    shape.count = shape.columns ? shape.items * shape.cols : numel / shape.cols;
    return shape;
}

/* What is known of a row, by any element of it. */
static void bitdelta_put_row(const dpt_edit_stage *stage, dpt_range any, int64_t row,
                             int64_t length, const double sums[DPT_EDIT_ABS_SUMS], magnitudes *m) {
    int part = dpt_parts_span(stage->input->parts, any.tensor, any.ig, 1).part[0];
    double mean = sums[DPT_EDIT_ABS] / bitdelta_count(stage, length, sums[DPT_EDIT_ZEROS]);
    m->row[m->first_row[any.tensor] + row] = (float)mean;
    m->mean[part] += sums[DPT_EDIT_ABS]; /* divided when all rows are in it */
    m->zeros[part] += sums[DPT_EDIT_ZEROS];
}

/* A slot for each part of a row that lies in one cell. Row r of a tensor and cell c meet in slot
 * first_slot + r + c: both only grow along the tensor, and each step is into a new slot. */
typedef struct row_sums {
    const dpt_edit_stage *stage;
    const int64_t *first_slot; /* (tensors) */
    double *slots;             /* (slots, DPT_EDIT_ABS_SUMS) */
} row_sums;

static dpt_status bitdelta_add_rows(void *ctx, dpt_range cell, int64_t cell_index,
                                    const float *delta) {
    row_sums *sums = ctx;
    row_shape shape = bitdelta_row_shape(sums->stage, cell.tensor);
    int64_t cols = shape.cols;
    if (shape.columns)
        return DPT_OK;
    double *slots =
        sums->slots + (sums->first_slot[cell.tensor] + cell_index) * (int64_t)DPT_EDIT_ABS_SUMS;
    int64_t first = cell.ig / cols;
    int64_t last = (cell.ig + cell.n - 1) / cols;
#pragma omp parallel for schedule(static)
    for (int64_t r = first; r <= last; r++) {
        int64_t begin = r * cols > cell.ig ? r * cols - cell.ig : 0;
        int64_t end = (r + 1) * cols - cell.ig < cell.n ? (r + 1) * cols - cell.ig : cell.n;
        dpt_edit_strip strip = {.tensor = cell.tensor, .ig = cell.ig + begin, .n = end - begin};
        dpt_edit_sum_abs(sums->stage, &strip, delta + begin, slots + r * DPT_EDIT_ABS_SUMS);
    }
    return DPT_OK;
}

/* Add the parts of each row in cell order. */
static void bitdelta_finish_rows(const dpt_edit_stage *stage, const int64_t *first_slot,
                                 const double *slots, magnitudes *m) {
    for (int t = 0; t < stage->catalog->count; t++) {
        if (!stage->covers[t] || bitdelta_row_shape(stage, t).columns)
            continue;
        row_shape shape = bitdelta_row_shape(stage, t);
        for (int64_t r = 0; r < shape.count; r++) {
            double sums[DPT_EDIT_ABS_SUMS] = {0.0};
            int64_t begin = r * shape.cols, end = begin + shape.cols;
            for (int64_t c = begin / DPT_CELL; c <= (end - 1) / DPT_CELL; c++)
                for (int j = 0; j < DPT_EDIT_ABS_SUMS; j++)
                    sums[j] += slots[(first_slot[t] + r + c) * (int64_t)DPT_EDIT_ABS_SUMS + j];
            bitdelta_put_row(stage, (dpt_range){.tensor = t, .ig = begin}, r, shape.cols, sums, m);
        }
    }
}

/* Own cells of an item whose rows are stored as columns: slots of (cell of the item, column). */
static dpt_status bitdelta_add_columns(dpt_edit_work *work, const dpt_edit_stage *stage, int tensor,
                                       dpt_part_item item, int64_t cols, float *delta,
                                       double *slots) {
    const dpt_shard *shard = stage->input->shard;
    dpt_status st = DPT_OK;
    int64_t first = dpt_shard_cell_of(shard, tensor, item.begin);
    int64_t last = dpt_shard_cell_of(shard, tensor, item.end - 1);
    for (int64_t c = first; c <= last && st == DPT_OK; c++) {
        dpt_range range = dpt_shard_cell(shard, c);
        int64_t begin = range.ig > item.begin ? range.ig : item.begin;
        int64_t end = range.ig + range.n < item.end ? range.ig + range.n : item.end;
        if (c < work->first || c >= work->last)
            continue;
        st = dpt_edit_delta(work, stage->index,
                            (dpt_range){.tensor = tensor, .ig = begin, .n = end - begin}, delta);
        double *to = slots + (c - first) * cols * DPT_EDIT_ABS_SUMS;
        int64_t column = (begin - item.begin) % cols;
        for (int64_t i = 0; st == DPT_OK && i < end - begin; i++) {
            to[column * DPT_EDIT_ABS_SUMS + DPT_EDIT_ABS] += fabs((double)delta[i]);
            to[column * DPT_EDIT_ABS_SUMS + DPT_EDIT_ZEROS] += delta[i] == 0.0f;
            column = column + 1 < cols ? column + 1 : 0;
        }
    }
    return st;
}

/* Rows that are stored as columns: an item at a time, as each of them meets all of its cells. Collective. */
static dpt_status bitdelta_sum_columns(dpt_edit_work *work, const dpt_edit_stage *stage, int tensor,
                                       dpt_part_item item, float *delta, magnitudes *m) {
    row_shape shape = bitdelta_row_shape(stage, tensor);
    int64_t cells = (item.end - 1) / DPT_CELL - item.begin / DPT_CELL + 1;
    int64_t n = cells * shape.cols * DPT_EDIT_ABS_SUMS, length = item.end - item.begin;
    double *slots = dpt_mem_zalloc(n, sizeof *slots, "row scales");
    dpt_status st = slots != NULL
                        ? bitdelta_add_columns(work, stage, tensor, item, shape.cols, delta, slots)
                        : DPT_ERR_OUTPUT;
    st = dpt_agree(stage->input->comm, st);
    /* Each slot is nonzero on one rank only, so the order of this sum cannot matter. */
    if (st == DPT_OK)
        st = dpt_agree(stage->input->comm, dpt_comm_sum_f64(stage->input->comm, slots, n));
    for (int64_t col = 0; st == DPT_OK && col < shape.cols; col++) {
        double sums[DPT_EDIT_ABS_SUMS] = {0.0};
        for (int64_t c = 0; c < cells; c++)
            for (int j = 0; j < DPT_EDIT_ABS_SUMS; j++)
                sums[j] += slots[(c * shape.cols + col) * DPT_EDIT_ABS_SUMS + j];
        bitdelta_put_row(stage, (dpt_range){.tensor = tensor, .ig = item.begin + col},
                         item.begin / length * shape.cols + col, length / shape.cols, sums, m);
    }
    dpt_mem_free(slots);
    return st;
}

static dpt_status bitdelta_all_columns(dpt_edit_work *work, const dpt_edit_stage *stage,
                                       magnitudes *m) {
    float *delta = dpt_mem_alloc(DPT_CELL, sizeof *delta, "deltas of a cell");
    dpt_status st = dpt_agree(stage->input->comm, delta != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    for (int t = 0; t < stage->catalog->count; t++) {
        if (!stage->covers[t] || !bitdelta_row_shape(stage, t).columns)
            continue;
        for (int64_t ig = 0; st == DPT_OK && ig < stage->catalog->tensors[t].numel;) {
            dpt_part_item item = dpt_parts_item(stage->input->parts, t, ig);
            st = bitdelta_sum_columns(work, stage, t, item, delta, m);
            ig = item.end;
        }
    }
    dpt_mem_free(delta);
    return st;
}

/* From sums to means, part by part. */
static void bitdelta_divide(const dpt_edit_stage *stage, magnitudes *m) {
    for (int p = 0; p < stage->input->parts->count; p++) {
        const dpt_part *part = &stage->input->parts->items[p];
        if (!stage->covers[part->tensor])
            continue;
        int64_t left_out = dpt_edit_left_out(stage->input, part->tensor);
        m->zeros[p] -= (double)left_out;
        m->mean[p] /=
            bitdelta_count(stage, part->layout.rows * part->layout.cols - left_out, m->zeros[p]);
    }
}

static dpt_status bitdelta_prepare_rows(dpt_edit_work *work, dpt_edit_stage *stage, magnitudes *m) {
    const dpt_catalog *catalog = stage->catalog;
    dpt_status st = DPT_OK;
    int64_t rows = 0, nslots = 0;
    row_sums sums = {.stage = stage};
    int64_t *first_slot = dpt_mem_zalloc(catalog->count, sizeof *first_slot, "row scales");
    m->first_row = dpt_mem_zalloc(catalog->count + 1, sizeof *m->first_row, "row scales");
    if (first_slot == NULL || m->first_row == NULL)
        st = DPT_ERR_OUTPUT;
    for (int t = 0; st == DPT_OK && t < catalog->count; t++) {
        m->first_row[t] = rows;
        first_slot[t] = nslots;
        if (!stage->covers[t])
            continue;
        row_shape shape = bitdelta_row_shape(stage, t);
        rows += shape.count;
        nslots += shape.columns ? 0 : shape.count + catalog->tensors[t].numel / DPT_CELL + 1;
    }
    if (st == DPT_OK) {
        nslots *= DPT_EDIT_ABS_SUMS;
        sums.slots = dpt_mem_zalloc(nslots, sizeof *sums.slots, "row scales");
        m->row = dpt_mem_zalloc(rows, sizeof *m->row, "row scales");
        sums.first_slot = first_slot;
        st = sums.slots != NULL && m->row != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    }
    if (st == DPT_OK)
        st = dpt_edit_visit(work, stage, bitdelta_add_rows, &sums);
    st = dpt_agree(stage->input->comm, st);
    /* Each slot is nonzero on one rank only, so the order of this sum cannot matter. */
    if (st == DPT_OK)
        st =
            dpt_agree(stage->input->comm, dpt_comm_sum_f64(stage->input->comm, sums.slots, nslots));
    if (st == DPT_OK)
        bitdelta_finish_rows(stage, first_slot, sums.slots, m);
    dpt_mem_free(sums.slots);
    dpt_mem_free(first_slot);
    if (st == DPT_OK)
        st = bitdelta_all_columns(work, stage, m);
    if (st == DPT_OK)
        bitdelta_divide(stage, m);
    return st;
}

static dpt_status bitdelta_prepare(dpt_edit_work *work, dpt_edit_stage *stage) {
    int64_t n = stage->input->parts->count;
    magnitudes *m = dpt_mem_zalloc(1, sizeof *m, "BitDelta scales");
    stage->state = m;
    if (m != NULL) {
        m->mean = dpt_mem_zalloc(n, sizeof *m->mean, "BitDelta scales");
        m->zeros = dpt_mem_zalloc(n, sizeof *m->zeros, "BitDelta scales");
    }
    bool made = m != NULL && m->mean != NULL && m->zeros != NULL;
    dpt_status st = dpt_agree(stage->input->comm, made ? DPT_OK : DPT_ERR_OUTPUT);
    if (st != DPT_OK)
        return st;
    if ((int)dpt_edit_value(stage->spec, BITDELTA_GRANULARITY) == GRANULARITY_ROW)
        return bitdelta_prepare_rows(work, stage, m);
    double *totals = NULL;
    bool code = bitdelta_follows_code(stage);
    st = dpt_edit_sums(work, stage, DPT_EDIT_OVER_PARTS, DPT_EDIT_ABS_SUMS,
                       code ? bitdelta_sum_rounded : dpt_edit_sum_abs, &totals);
    for (int p = 0; st == DPT_OK && p < n; p++) {
        const dpt_part *part = &stage->input->parts->items[p];
        int64_t left_out = dpt_edit_left_out(stage->input, part->tensor);
        int64_t numel = part->layout.rows * part->layout.cols - left_out;
        const double *sums = totals + (int64_t)p * DPT_EDIT_ABS_SUMS;
        if (!stage->covers[part->tensor])
            continue;
        m->zeros[p] = sums[DPT_EDIT_ZEROS] - (double)left_out;
        m->mean[p] = code ? (double)((float)sums[DPT_EDIT_ABS] / (float)numel)
                          : sums[DPT_EDIT_ABS] / bitdelta_count(stage, numel, m->zeros[p]);
    }
    dpt_mem_free(totals);
    return st;
}

/* Mean magnitudes of a run: means[i step] of element i. */
typedef struct bitdelta_means {
    int step;
    double means[DPT_EDIT_PIECE];
} bitdelta_means;

/* One mean for each row of one output. */
static void bitdelta_means_of_rows(const dpt_edit_stage *stage, dpt_range range,
                                   bitdelta_means *out) {
    const magnitudes *m = stage->state;
    const float *rows = m->row + m->first_row[range.tensor];
    row_shape shape = bitdelta_row_shape(stage, range.tensor);
    int64_t item = stage->catalog->tensors[range.tensor].numel / shape.items;
    out->step = 1;
    for (int64_t i = 0; i < range.n;) {
        int64_t ig = range.ig + i, left = range.n - i;
        int64_t to_end = shape.cols - ig % shape.cols, n = left < to_end ? left : to_end;
        const float *from = shape.columns ? rows + ig / item * shape.cols + ig % shape.cols
                                          : rows + ig / shape.cols;
        for (int64_t j = 0; j < n; j++)
            out->means[i + j] = (double)from[shape.columns ? j : 0];
        i += n;
    }
}

static void bitdelta_means_of(const dpt_edit_stage *stage, dpt_range range, bitdelta_means *out) {
    const magnitudes *m = stage->state;
    if (m->row != NULL) {
        bitdelta_means_of_rows(stage, range, out);
        return;
    }
    for (int64_t i = 0; i < range.n;) {
        dpt_part_span span =
            dpt_parts_span(stage->input->parts, range.tensor, range.ig + i, range.n - i);
        out->step = span.n == range.n && span.ways == 1 ? 0 : 1;
        for (int64_t j = 0; j < (out->step == 0 ? 1 : span.n); j++)
            out->means[i + j] = m->mean[span.part[j % span.ways]];
        i += span.n;
    }
}

/* Magnitudes of a run: the mean times the multiple, times a number of mean 1 that is drawn for each
 * element: 2 u, or 1 + NORMAL_SPREAD z (which may be below 0, so that the mean holds). */
static void bitdelta_draw_sizes(const dpt_edit_stage *stage, dpt_range range, float *sizes) {
    int sample = (int)dpt_edit_value(stage->spec, BITDELTA_SAMPLE);
    double multiple = dpt_edit_value(stage->spec, BITDELTA_MULTIPLE);
    dpt_rng rng = dpt_edit_stream(stage, range.tensor, DPT_RNG_MAGNITUDE);
    bitdelta_means m;
    bitdelta_means_of(stage, range, &m);
    if (sample == SAMPLE_NORMAL) {
        dpt_rng_normal(rng, range.ig, range.n, sizes);
        for (int64_t i = 0; i < range.n; i++)
            sizes[i] =
                (float)(multiple * m.means[i * m.step] * (1.0 + NORMAL_SPREAD * (double)sizes[i]));
    } else if (sample == SAMPLE_UNIFORM) {
        uint32_t words[DPT_EDIT_PIECE];
        dpt_rng_words(rng, range.ig, range.n, words);
        for (int64_t i = 0; i < range.n; i++)
            sizes[i] = (float)(multiple * m.means[i * m.step] * (2.0 * dpt_rng_uniform(words[i])));
    } else {
        for (int64_t i = 0; i < range.n; i++)
            sizes[i] = (float)(multiple * m.means[i * m.step]);
    }
}

static void bitdelta_apply(const dpt_edit_stage *stage, dpt_range range, float *delta) {
    float sizes[DPT_EDIT_PIECE];
    bitdelta_draw_sizes(stage, range, sizes);
    if (bitdelta_follows_code(stage)) {
        for (int64_t i = 0; i < range.n; i++)
            delta[i] = delta[i] < 0.0f ? -sizes[i] : sizes[i];
        bitdelta_round_to_stored(stage, range.tensor, range.n, delta);
        return;
    }
    for (int64_t i = 0; i < range.n; i++) {
        float signed_size = delta[i] > 0.0f ? sizes[i] : -sizes[i];
        delta[i] = delta[i] == 0.0f ? 0.0f : signed_size;
    }
}

static double bitdelta_scale(const dpt_edit_stage *stage, int tensor) {
    double mean =
        dpt_edit_part_mean(stage->input->parts, tensor, ((const magnitudes *)stage->state)->mean);
    return dpt_edit_value(stage->spec, BITDELTA_MULTIPLE) * mean;
}

static double bitdelta_zeros(const dpt_edit_stage *stage, int tensor) {
    const dpt_parts *parts = stage->input->parts;
    double zeros = 0.0;
    for (int p = parts->first[tensor]; p < parts->first[tensor + 1]; p++)
        zeros += ((const magnitudes *)stage->state)->zeros[p];
    return zeros;
}

/* Where a cell is inside one part. */
static bool bitdelta_fused(const dpt_edit_stage *stage, dpt_range cell, dpt_edit_fused *rule) {
    const magnitudes *m = stage->state;
    dpt_part_span span = dpt_parts_span(stage->input->parts, cell.tensor, cell.ig, cell.n);
    double multiple = dpt_edit_value(stage->spec, BITDELTA_MULTIPLE);
    *rule = (dpt_edit_fused){.rule = DPT_EDIT_RULE_SIGN,
                             .kept = (float)(multiple * m->mean[span.part[0]])};
    return m->row == NULL && !bitdelta_follows_code(stage) && span.ways == 1 && span.n == cell.n &&
           (int)dpt_edit_value(stage->spec, BITDELTA_SAMPLE) == SAMPLE_NONE;
}

static dpt_status bitdelta_check(const dpt_edit_stage_spec *spec) {
    if ((int)dpt_edit_value(spec, BITDELTA_CONVENTION) == CONVENTION_CODE &&
        (int)dpt_edit_value(spec, BITDELTA_GRANULARITY) == GRANULARITY_ROW)
        return dpt_error(DPT_ERR_USAGE, "bitdelta: granularity: with convention code a tensor has "
                                        "one magnitude: set granularity to tensor");
    if ((int)dpt_edit_value(spec, BITDELTA_CONVENTION) == CONVENTION_CODE &&
        (int)dpt_edit_value(spec, BITDELTA_MEAN) == MEAN_NONZERO)
        return dpt_error(DPT_ERR_USAGE, "bitdelta: mean: that code takes the mean over all entries "
                                        "and edits the zeros too: set mean to all, or convention "
                                        "to paper");
    return DPT_OK;
}

static bool bitdelta_draws(const dpt_edit_stage_spec *spec) {
    return (int)dpt_edit_value(spec, BITDELTA_SAMPLE) != SAMPLE_NONE &&
           dpt_edit_value(spec, BITDELTA_MULTIPLE) != 0.0;
}

/* Magnitudes that are drawn are as many as the entries. */
static double bitdelta_bytes(const dpt_edit_stage_spec *spec, const dpt_edit_packed *of) {
    bool rows = (int)dpt_edit_value(spec, BITDELTA_GRANULARITY) == GRANULARITY_ROW;
    double magnitudes = (double)of->count;
    if ((int)dpt_edit_value(spec, BITDELTA_SAMPLE) != SAMPLE_NONE)
        return dpt_edit_dense_bytes(of->info);
    for (int p = 0; rows && p < of->count; p++)
        magnitudes += (double)of->parts[p].layout.rows - 1.0;
    return ceil((double)of->info->numel / 8.0) + 4.0 * magnitudes;
}

static double bitdelta_reads(const dpt_edit_stage_spec *spec) {
    (void)spec;
    return 1.0;
}

const dpt_edit_method dpt_edit_method_bitdelta = {
    .name = "bitdelta",
    .help = "replace each delta of a matrix by its sign times the mean magnitude",
    .by_row = true,
    .random = true,
    .nparams = 6,
    .params = {{.name = "granularity",
                .kind = DPT_PARAM_CHOICE,
                .choices = "tensor|row",
                .default_value = GRANULARITY_TENSOR,
                .help = "one magnitude for each matrix or one for each of its rows"},
               {.name = "tensors",
                .kind = DPT_PARAM_CHOICE,
                .choices = "linear|all",
                .default_value = TENSORS_LINEAR,
                .help = "linear weights of attention and MLP only, or every matrix"},
               {.name = "multiple",
                .kind = DPT_PARAM_REAL,
                .default_value = 1.0,
                .lower = -1e6,
                .upper = 1e6,
                .help = "factor of the mean magnitude; 1 is BitDelta"},
               {.name = "sample",
                .kind = DPT_PARAM_CHOICE,
                .choices = "none|normal|uniform",
                .default_value = SAMPLE_NONE,
                .help = "magnitudes all alike, or drawn from a distribution with the same mean"},
               {.name = "convention",
                .kind = DPT_PARAM_CHOICE,
                .choices = "paper|code",
                .default_value = CONVENTION_PAPER,
                .help = "differences in fp32 and sign(0) = 0, or as BitDelta's own code: in the "
                        "tensors' type and sign(0) = +1"},
               {.name = "mean",
                .kind = DPT_PARAM_CHOICE,
                .choices = "all|nonzero",
                .default_value = MEAN_ALL,
                .help = "mean magnitude over all entries, which is BitDelta, or over those that "
                        "are not 0"}},
    .check = bitdelta_check,
    .draws = bitdelta_draws,
    .covers = bitdelta_covers,
    .reads = bitdelta_reads,
    .prepare = bitdelta_prepare,
    .apply = bitdelta_apply,
    .fused = bitdelta_fused,
    .bytes = bitdelta_bytes,
    .scale = bitdelta_scale,
    .zeros = bitdelta_zeros,
    .destroy = bitdelta_destroy};
