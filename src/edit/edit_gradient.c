#include "stage.h"

#include "deltapath/base/mem.h"
#include "deltapath/linalg/reduce.h"

#include <math.h>
#include <string.h>

/* What an edit takes from the gradient g at W_post: the factor that calibrates it, and the correlation
 * of its mask with g * Delta. Sums are over pieces or cells in order. */

enum { PIECES = DPT_CELL / DPT_EDIT_PIECE };

const float *dpt_edit_gradient(const dpt_edit_input *input, dpt_range range) {
    return input->gradient->view(input->gradient->ctx, range);
}

/* Calibration: one factor s for each tensor with <g, s F(Delta) - Delta> = 0. The method's ordinary
 * factor is 1, so s stays within [0.5, 2]. It is 1 where the sums have different signs, for no positive
 * factor helps then, where <g, F> is lost in the rounding of g and F, and, for DPT_CALIBRATE_SIGNIFICANT, where
 * samples do not tell it from 0. */
static const double LEAST_SCALE = 0.5, MOST_SCALE = 2.0, LEAST_COSINE = 1e-6;

enum { WITH_DELTA, WITH_EDIT, SQUARE_G, SQUARE_EDIT, ZEROS, SUMS };

/* What calibration knows of each tensor. */
typedef struct calibration {
    double scale;
    double zeros; /* entries of Delta that are 0 */
} calibration;

/* @param[in] slope over samples; NULL: it is not asked for. */
static dpt_edit_calibrated calibration_judge(const dpt_edit_slope *slope, const double *sums) {
    if (sums[WITH_DELTA] == 0.0 && sums[WITH_EDIT] == 0.0)
        return DPT_CALIBRATED_ZERO; /* without calibration, as where there is no delta */
    if (!(fabs(sums[WITH_EDIT]) > LEAST_COSINE * sqrt(sums[SQUARE_G]) * sqrt(sums[SQUARE_EDIT])))
        return DPT_CALIBRATED_LOST;
    if (slope != NULL && !slope->significant)
        return DPT_CALIBRATED_CHANCE;
    double s = sums[WITH_DELTA] / sums[WITH_EDIT];
    if (!(s > 0.0))
        return DPT_CALIBRATED_SIGN;
    return s < LEAST_SCALE  ? DPT_CALIBRATED_LEAST
           : s > MOST_SCALE ? DPT_CALIBRATED_MOST
                            : DPT_CALIBRATED_ZERO;
}

static double scale_for(dpt_edit_calibrated judged, const double *sums) {
    switch (judged) {
    case DPT_CALIBRATED_LEAST:
        return LEAST_SCALE;
    case DPT_CALIBRATED_MOST:
        return MOST_SCALE;
    case DPT_CALIBRATED_ZERO:
        return sums[WITH_EDIT] != 0.0 ? sums[WITH_DELTA] / sums[WITH_EDIT] : 1.0;
    default:
        return 1.0;
    }
}

/* Sums of the own cells. Local. @param[out] cells (own cells, SUMS). */
static dpt_status sum_cells(dpt_edit_work *work, const dpt_edit_stage *stage, double *cells) {
    float *delta = dpt_mem_alloc(DPT_CELL, sizeof *delta, "deltas of a cell");
    float *edited = dpt_mem_alloc(DPT_CELL, sizeof *edited, "edited deltas of a cell");
    dpt_status st = delta != NULL && edited != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    for (int64_t c = work->first; st == DPT_OK && c < work->last; c++) {
        dpt_range cell = dpt_shard_cell(work->input->shard, c);
        if (!stage->covers[cell.tensor])
            continue;
        st = dpt_edit_original(work, cell, delta);
        if (st == DPT_OK)
            st = dpt_edit_delta(work, stage->index, cell, edited);
        if (st != DPT_OK)
            break;
        const float *g = dpt_edit_gradient(work->input, cell);
        double *sums = cells + (c - work->first) * SUMS;
        sums[WITH_DELTA] = dpt_reduce_dot(g, delta, cell.n);
        sums[WITH_EDIT] = dpt_reduce_dot(g, edited, cell.n);
        sums[SQUARE_G] = dpt_reduce_square(g, cell.n);
        sums[SQUARE_EDIT] = dpt_reduce_square(edited, cell.n);
        for (int64_t i = 0; i < cell.n; i++)
            sums[ZEROS] += delta[i] == 0.0f;
    }
    dpt_mem_free(edited);
    dpt_mem_free(delta);
    return st;
}

/* The state is a calibration (tensors). */
static dpt_status calibration_prepare(dpt_edit_work *work, dpt_edit_stage *stage) {
    int64_t n = stage->catalog->count;
    double *cells = dpt_mem_zalloc((work->last - work->first) * SUMS, sizeof *cells, "calibration");
    double *totals = dpt_mem_zalloc(n * SUMS, sizeof *totals, "calibration");
    calibration *made_of = dpt_mem_zalloc(n, sizeof *made_of, "calibration");
    stage->state = made_of;
    bool made = cells != NULL && totals != NULL && made_of != NULL;
    dpt_status st = made ? sum_cells(work, stage, cells) : DPT_ERR_OUTPUT;
    st = dpt_agree(work->input->comm, st);
    if (st == DPT_OK)
        st = dpt_edit_reduce_cells(work, SUMS, cells, totals);
    bool asks = work->spec->calibrate == DPT_CALIBRATE_SIGNIFICANT;
    for (int t = 0; st == DPT_OK && t < n; t++) {
        if (!stage->covers[t])
            continue;
        const double *sums = totals + (int64_t)t * SUMS;
        const dpt_edit_slope *slope = asks ? &work->input->slopes[t] : NULL;
        work->stats[t].calibrated = calibration_judge(slope, sums);
        work->stats[t].slope = sums[WITH_EDIT];
        work->stats[t].slope_se = slope != NULL ? slope->se : NAN;
        made_of[t] =
            (calibration){.scale = scale_for(work->stats[t].calibrated, sums),
                          .zeros = sums[ZEROS] - (double)dpt_edit_left_out(work->input, t)};
    }
    dpt_mem_free(totals);
    dpt_mem_free(cells);
    return st;
}

static double scale(const dpt_edit_stage *stage, int tensor) {
    return ((const calibration *)stage->state)[tensor].scale;
}

static double zeros(const dpt_edit_stage *stage, int tensor) {
    return ((const calibration *)stage->state)[tensor].zeros;
}

static void apply(const dpt_edit_stage *stage, dpt_range range, float *delta) {
    float factor = (float)scale(stage, range.tensor);
    for (int64_t i = 0; i < range.n; i++)
        delta[i] *= factor;
}

const dpt_edit_method dpt_edit_calibration = {
    .prepare = calibration_prepare, .apply = apply, .scale = scale, .zeros = zeros};

/* Correlation: sums of the mask m, of x = g * Delta, and of their products. */
enum { SUM_M, SUM_X, SUM_MX, SUM_XX, MOMENTS };

static void add_moments(int64_t n, const uint8_t *m, const float *g, const float *delta,
                        double *sums) {
    for (int j = 0; j < MOMENTS; j++)
        sums[j] = 0.0;
    for (int64_t i = 0; i < n; i++) {
        double x = (double)g[i] * (double)delta[i];
        sums[SUM_M] += m[i];
        sums[SUM_X] += x;
        sums[SUM_MX] += m[i] ? x : 0.0;
        sums[SUM_XX] += x * x;
    }
}

typedef struct correlation {
    dpt_edit_work *work;
    const dpt_edit_stage *stage;
    uint8_t *dropped; /* (DPT_CELL) */
    double *cells;    /* (own cells, MOMENTS) */
} correlation;

static dpt_status add_cell(void *ctx, dpt_range cell, int64_t cell_index, const float *delta) {
    correlation *k = ctx;
    double pieces[PIECES][MOMENTS];
    const dpt_shard *shard = k->work->input->shard;
    int64_t own = shard->first_cell[cell.tensor] + cell_index - k->work->first;
    const float *g = dpt_edit_gradient(k->work->input, cell);
    k->stage->method->mask(k->work, k->stage, cell, delta, k->dropped);
    const dpt_pair *pair = k->work->input->pair;
    for (int64_t at = 0, n = 0; pair != NULL && dpt_pair_next_left_out(pair, cell, &at, &n);)
        memset(k->dropped + at, 0, (size_t)n);
#pragma omp parallel for schedule(static) num_threads(k->work->threads)
    for (int p = 0; p < dpt_edit_pieces(cell); p++) {
        dpt_range piece = dpt_edit_piece(cell, p);
        int64_t at = piece.ig - cell.ig;
        add_moments(piece.n, k->dropped + at, g + at, delta + at, pieces[p]);
    }
    for (int p = 0; p < dpt_edit_pieces(cell); p++)
        for (int j = 0; j < MOMENTS; j++)
            k->cells[own * MOMENTS + j] += pieces[p][j];
    return DPT_OK;
}

static dpt_edit_correlation pearson(double n, const double *sums) {
    double both = sums[SUM_MX] - sums[SUM_M] * sums[SUM_X] / n;
    double mask = sums[SUM_M] - sums[SUM_M] * sums[SUM_M] / n;
    double product = sums[SUM_XX] - sums[SUM_X] * sums[SUM_X] / n;
    bool vary = mask > 0.0 && product > 0.0;
    return (dpt_edit_correlation){.r = vary ? both / (sqrt(mask) * sqrt(product)) : NAN,
                                  .n = n,
                                  .mask_sd = sqrt(fmax(mask, 0.0) / n),
                                  .product_sd = sqrt(fmax(product, 0.0) / n)};
}

/* Of each tensor, and of all entries as one. @param[in] totals (tensors, MOMENTS). */
static void correlate_totals(const dpt_edit_work *work, const dpt_edit_stage *stage,
                             const double *totals, dpt_edit_correlation *all, double *tensors) {
    double sums[MOMENTS] = {0.0}, n = 0.0;
    for (int t = 0; t < work->catalog->count; t++) {
        const double *own = totals + (int64_t)t * MOMENTS;
        double numel = (double)dpt_edit_numel(work->input, t);
        if (!stage->covers[t])
            continue;
        tensors[t] = pearson(numel, own).r;
        for (int j = 0; j < MOMENTS; j++)
            sums[j] += own[j];
        n += numel;
    }
    if (all != NULL)
        *all = pearson(n, sums);
}

dpt_status dpt_edit_correlate(dpt_edit_work *work, const dpt_edit_stage *stage,
                              dpt_edit_correlation *all, double *tensors) {
    const dpt_catalog *catalog = work->catalog;
    int64_t own = work->last - work->first;
    correlation k = {.work = work, .stage = stage};
    double *totals = dpt_mem_zalloc((int64_t)catalog->count * MOMENTS, sizeof *totals, "moments");
    k.dropped = dpt_mem_alloc(DPT_CELL, sizeof *k.dropped, "mask of a cell");
    k.cells = dpt_mem_zalloc(own * MOMENTS, sizeof *k.cells, "moments");
    bool made = totals != NULL && k.dropped != NULL && k.cells != NULL;
    dpt_status st = made ? dpt_edit_visit(work, stage, add_cell, &k) : DPT_ERR_OUTPUT;
    st = dpt_agree(work->input->comm, st);
    if (st == DPT_OK)
        st = dpt_edit_reduce_cells(work, MOMENTS, k.cells, totals);
    if (st == DPT_OK)
        correlate_totals(work, stage, totals, all, tensors);
    dpt_mem_free(k.cells);
    dpt_mem_free(k.dropped);
    dpt_mem_free(totals);
    return st;
}
