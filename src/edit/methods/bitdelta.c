#include "../stage.h"

#include "deltapath/tensor/role.h"

#include "deltapath/base/mem.h"
#include "deltapath/linalg/reduce.h"

#include <math.h>
#include <string.h>

/* BitDelta: arXiv:2410.13841 Eq. (7)-(9), F(Delta) = mean |Delta| sign(Delta), sign(0) = 0. The mean
 * is over all entries of a tensor, or of a row, or, which is this project's, over those that are not
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
    double *mean;       /* (tensors) */
    double *zeros;      /* (tensors) entries that are 0 */
    int64_t *first_row; /* (tensors + 1) rows of covered tensors end to end; granularity row */
    float *row;         /* (rows) */
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
        return dpt_edit_is_matrix(info);
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
static void bitdelta_sum_rounded(const dpt_edit_stage *stage, dpt_range range, const float *delta,
                                 double *sums) {
    float rounded[DPT_EDIT_PIECE];
    memcpy(rounded, delta, (size_t)range.n * sizeof *rounded);
    bitdelta_round_to_stored(stage, range.tensor, range.n, rounded);
    dpt_edit_sum_abs(stage, range, rounded, sums);
}

/* Over how many entries a mean of n entries is taken; a sum of zeros over none is 0. */
static double bitdelta_count(const dpt_edit_stage *stage, int64_t n, double zeros) {
    if ((int)dpt_edit_value(stage->spec, BITDELTA_MEAN) == MEAN_ALL)
        return (double)n;
    return zeros < (double)n ? (double)n - zeros : 1.0;
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
    int64_t cols = sums->stage->catalog->tensors[cell.tensor].shape[1];
    double *slots =
        sums->slots + (sums->first_slot[cell.tensor] + cell_index) * (int64_t)DPT_EDIT_ABS_SUMS;
    int64_t first = cell.ig / cols;
    int64_t last = (cell.ig + cell.n - 1) / cols;
#pragma omp parallel for schedule(static)
    for (int64_t r = first; r <= last; r++) {
        int64_t begin = r * cols > cell.ig ? r * cols - cell.ig : 0;
        int64_t end = (r + 1) * cols - cell.ig < cell.n ? (r + 1) * cols - cell.ig : cell.n;
        dpt_range part = {.tensor = cell.tensor, .ig = cell.ig + begin, .n = end - begin};
        dpt_edit_sum_abs(sums->stage, part, delta + begin, slots + r * DPT_EDIT_ABS_SUMS);
    }
    return DPT_OK;
}

/* Add the parts of each row in cell order. */
static void bitdelta_finish_rows(const dpt_edit_stage *stage, const int64_t *first_slot,
                                 const double *slots, magnitudes *m) {
    for (int t = 0; t < stage->catalog->count; t++) {
        if (!stage->covers[t])
            continue;
        int64_t cols = stage->catalog->tensors[t].shape[1];
        double total = 0.0, all_zeros = 0.0;
        for (int64_t r = 0; r < stage->catalog->tensors[t].shape[0]; r++) {
            double sum = 0.0, zeros = 0.0;
            for (int64_t c = r * cols / DPT_CELL; c <= ((r + 1) * cols - 1) / DPT_CELL; c++) {
                const double *slot = slots + (first_slot[t] + r + c) * (int64_t)DPT_EDIT_ABS_SUMS;
                sum += slot[DPT_EDIT_ABS];
                zeros += slot[DPT_EDIT_ZEROS];
            }
            m->row[m->first_row[t] + r] = (float)(sum / bitdelta_count(stage, cols, zeros));
            total += sum;
            all_zeros += zeros;
        }
        int64_t numel = stage->catalog->tensors[t].numel;
        m->mean[t] = total / bitdelta_count(stage, numel, all_zeros);
        m->zeros[t] = all_zeros;
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
        rows += catalog->tensors[t].shape[0];
        nslots += catalog->tensors[t].shape[0] + catalog->tensors[t].numel / DPT_CELL + 1;
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
    return st;
}

static dpt_status bitdelta_prepare(dpt_edit_work *work, dpt_edit_stage *stage) {
    int64_t n = stage->catalog->count;
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
    st = dpt_edit_sums(work, stage, DPT_EDIT_ABS_SUMS,
                       code ? bitdelta_sum_rounded : dpt_edit_sum_abs, &totals);
    for (int t = 0; st == DPT_OK && t < n; t++) {
        int64_t numel = stage->catalog->tensors[t].numel;
        const double *sums = totals + (int64_t)t * DPT_EDIT_ABS_SUMS;
        if (!stage->covers[t])
            continue;
        m->zeros[t] = sums[DPT_EDIT_ZEROS];
        m->mean[t] = code ? (double)((float)sums[DPT_EDIT_ABS] / (float)numel)
                          : sums[DPT_EDIT_ABS] / bitdelta_count(stage, numel, sums[DPT_EDIT_ZEROS]);
    }
    dpt_mem_free(totals);
    return st;
}

/* Magnitudes of a run: `mean` times the multiple, times a number of mean 1 that is drawn for each
 * element: 2 u, or 1 + NORMAL_SPREAD z (which may be below 0, so that the mean holds). */
static void bitdelta_draw_sizes(const dpt_edit_stage *stage, dpt_range range, double mean,
                                float *sizes) {
    int sample = (int)dpt_edit_value(stage->spec, BITDELTA_SAMPLE);
    double size = dpt_edit_value(stage->spec, BITDELTA_MULTIPLE) * mean;
    dpt_rng rng = dpt_edit_stream(stage, range.tensor, DPT_RNG_MAGNITUDE);
    if (sample == SAMPLE_NORMAL) {
        dpt_rng_normal(rng, range.ig, range.n, sizes);
        for (int64_t i = 0; i < range.n; i++)
            sizes[i] = (float)(size * (1.0 + NORMAL_SPREAD * (double)sizes[i]));
    } else if (sample == SAMPLE_UNIFORM) {
        uint32_t words[DPT_EDIT_PIECE];
        dpt_rng_words(rng, range.ig, range.n, words);
        for (int64_t i = 0; i < range.n; i++)
            sizes[i] = (float)(size * (2.0 * dpt_rng_uniform(words[i])));
    } else {
        for (int64_t i = 0; i < range.n; i++)
            sizes[i] = (float)size;
    }
}

static void bitdelta_set_sizes(const dpt_edit_stage *stage, dpt_range range, double mean,
                               float *delta) {
    float sizes[DPT_EDIT_PIECE];
    bitdelta_draw_sizes(stage, range, mean, sizes);
    for (int64_t i = 0; i < range.n; i++) {
        float signed_size = delta[i] > 0.0f ? sizes[i] : -sizes[i];
        delta[i] = delta[i] == 0.0f ? 0.0f : signed_size;
    }
}

static void bitdelta_set_sizes_as_code(const dpt_edit_stage *stage, dpt_range range, double mean,
                                       float *delta) {
    float sizes[DPT_EDIT_PIECE];
    bitdelta_draw_sizes(stage, range, mean, sizes);
    for (int64_t i = 0; i < range.n; i++)
        delta[i] = delta[i] < 0.0f ? -sizes[i] : sizes[i];
    bitdelta_round_to_stored(stage, range.tensor, range.n, delta);
}

static void bitdelta_apply(const dpt_edit_stage *stage, dpt_range range, float *delta) {
    const magnitudes *m = stage->state;
    if (bitdelta_follows_code(stage)) {
        bitdelta_set_sizes_as_code(stage, range, m->mean[range.tensor], delta);
        return;
    }
    if (m->row == NULL) {
        bitdelta_set_sizes(stage, range, m->mean[range.tensor], delta);
        return;
    }
    int64_t cols = stage->catalog->tensors[range.tensor].shape[1];
    const float *means = m->row + m->first_row[range.tensor];
    for (int64_t i = 0; i < range.n;) {
        int64_t row = (range.ig + i) / cols;
        int64_t end = (row + 1) * cols - range.ig;
        end = end < range.n ? end : range.n;
        dpt_range part = {.tensor = range.tensor, .ig = range.ig + i, .n = end - i};
        bitdelta_set_sizes(stage, part, (double)means[row], delta + i);
        i = end;
    }
}

static double bitdelta_scale(const dpt_edit_stage *stage, int tensor) {
    double mean = ((const magnitudes *)stage->state)->mean[tensor];
    return dpt_edit_value(stage->spec, BITDELTA_MULTIPLE) * mean;
}

static double bitdelta_zeros(const dpt_edit_stage *stage, int tensor) {
    return ((const magnitudes *)stage->state)->zeros[tensor];
}

static bool bitdelta_fused(const dpt_edit_stage *stage, int tensor, dpt_edit_fused *rule) {
    const magnitudes *m = stage->state;
    *rule =
        (dpt_edit_fused){.rule = DPT_EDIT_RULE_SIGN, .kept = (float)bitdelta_scale(stage, tensor)};
    return m->row == NULL && !bitdelta_follows_code(stage) &&
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
static double bitdelta_bytes(const dpt_edit_stage_spec *spec, const dpt_tensor_info *info,
                             double value) {
    (void)value;
    bool rows = (int)dpt_edit_value(spec, BITDELTA_GRANULARITY) == GRANULARITY_ROW;
    if ((int)dpt_edit_value(spec, BITDELTA_SAMPLE) != SAMPLE_NONE)
        return dpt_edit_dense_bytes(info);
    return ceil((double)info->numel / 8.0) + 4.0 * (rows ? (double)info->shape[0] : 1.0);
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
                .help = "one magnitude for the tensor or one for each row"},
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
    .prepare = bitdelta_prepare,
    .apply = bitdelta_apply,
    .fused = bitdelta_fused,
    .bytes = bitdelta_bytes,
    .scale = bitdelta_scale,
    .zeros = bitdelta_zeros,
    .destroy = bitdelta_destroy};
