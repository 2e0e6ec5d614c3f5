#include "../random_drop.h"
#include "../rows.h"

#include "deltapath/base/mem.h"

#include <math.h>
#include <string.h>

/* DELLA's MagPrune (arXiv:2406.11617): within a row of n entries, the entry of rank r by falling
 * magnitude (0: the largest; of equal ones the first) is dropped with probability
 * p - epsilon / 2 + epsilon r / (n - 1), and divided by its own probability of being kept
 * otherwise. The mean of the probabilities is p. */

enum { DELLA_P, DELLA_EPSILON };

static dpt_status della_check(const dpt_edit_stage_spec *spec) {
    double p = dpt_edit_value(spec, DELLA_P);
    double half = 0.5 * dpt_edit_value(spec, DELLA_EPSILON);
    if (p - half < 0.0 || p + half >= 1.0)
        return dpt_error(DPT_ERR_USAGE,
                         "della: epsilon: the probabilities %g .. %g leave [0, 1): lower epsilon, "
                         "which is at most 2 p and below 2 (1 - p)",
                         p - half, p + half);
    return dpt_random_drop_check("della", p - half);
}

static dpt_status della_prepare(dpt_edit_work *work, dpt_edit_stage *stage) {
    dpt_edit_rows *rows = NULL;
    dpt_status st = dpt_edit_rows_create(work, stage, &rows);
    stage->state = rows;
    return st;
}

static void della_destroy(dpt_edit_stage *stage) {
    dpt_edit_rows_destroy(stage->state);
}

/* Factors of a piece whose entries have the given ranks in rows of n, and which are dropped. */
static void della_draw(const dpt_edit_stage *stage, dpt_range piece, int64_t n,
                       const uint32_t *rank, float *factor, uint64_t *dropped) {
    double p = dpt_edit_value(stage->spec, DELLA_P);
    double epsilon = dpt_edit_value(stage->spec, DELLA_EPSILON);
    uint64_t threshold[DPT_EDIT_PIECE];
    for (int64_t i = 0; i < piece.n; i++) {
        double drop = p;
        if (n > 1)
            drop = p - 0.5 * epsilon + epsilon * ((double)rank[i] / (double)(n - 1));
        drop = drop > 0.0 ? drop : 0.0; /* the sum may end just below */
        threshold[i] = dpt_rng_threshold(drop);
        factor[i] = (float)(1.0 / (1.0 - drop));
    }
    dpt_rng_mask_each(dpt_edit_stream(stage, piece.tensor, DPT_RNG_MASK), piece.ig, piece.n,
                      threshold, dropped);
}

/* Word by word of the mask; a factor is dropped by its bits, without a branch. */
static void della_scale_piece(float *delta, int64_t n, const uint64_t *drops, float *factor) {
    for (int64_t from = 0; from < n; from += 32) {
        uint32_t word = (uint32_t)(drops[from / 64] >> (from % 64)), bits[32];
        int length = n - from < 32 ? (int)(n - from) : 32;
        memcpy(bits, factor + from, (size_t)length * sizeof *bits);
        for (int i = 0; i < length; i++)
            bits[i] &= (word >> i & 1) - 1;
        memcpy(factor + from, bits, (size_t)length * sizeof *bits);
        for (int i = 0; i < length; i++)
            delta[from + i] *= factor[from + i];
    }
}

/* Draw for the pieces of a cell: scale them in place, or say which entries are dropped; the other is NULL. */
static void della_draw_cell(const dpt_edit_work *work, const dpt_edit_stage *stage, dpt_range cell,
                            const float *delta, float *scaled, uint8_t *dropped) {
    int64_t n = dpt_edit_row_length(&stage->catalog->tensors[cell.tensor]);
    const uint32_t *rank = dpt_edit_rows_order(stage->state, cell, delta);
#pragma omp parallel for schedule(static) num_threads(work->threads)
    for (int p = 0; p < dpt_edit_pieces(cell); p++) {
        dpt_range piece = dpt_edit_piece(cell, p);
        int64_t at = piece.ig - cell.ig;
        float factor[DPT_EDIT_PIECE];
        uint64_t drops[DPT_EDIT_PIECE / 64];
        della_draw(stage, piece, n, rank + at, factor, drops);
        if (scaled != NULL)
            della_scale_piece(scaled + at, piece.n, drops, factor);
        else
            for (int64_t i = 0; i < piece.n; i++)
                dropped[at + i] = dpt_rng_mask_bit(drops, i);
    }
}

static void della_apply_cell(const dpt_edit_work *work, const dpt_edit_stage *stage, dpt_range cell,
                             float *delta) {
    della_draw_cell(work, stage, cell, delta, delta, NULL);
}

static void della_mask(const dpt_edit_work *work, const dpt_edit_stage *stage, dpt_range cell,
                       const float *delta, uint8_t *dropped) {
    della_draw_cell(work, stage, cell, delta, NULL, dropped);
}

static double della_scale(const dpt_edit_stage *stage, int tensor) {
    (void)tensor;
    return 1.0 / (1.0 - dpt_edit_value(stage->spec, DELLA_P));
}

static bool della_draws(const dpt_edit_stage_spec *spec) {
    return dpt_edit_value(spec, DELLA_P) > 0.0;
}

static double della_bytes(const dpt_edit_stage_spec *spec, const dpt_edit_packed *of) {
    double kept = 1.0 - dpt_edit_value(spec, DELLA_P);
    return dpt_edit_sparse_bytes(of->info, floor(kept * (double)of->info->numel + 0.5));
}

static double della_reads(const dpt_edit_stage_spec *spec) {
    (void)spec;
    return 1.0;
}

const dpt_edit_method dpt_edit_method_della = {
    .name = "della",
    .help = "drop deltas at random, small ones of a row more often, and rescale each kept one",
    .random = true,
    .nparams = 2,
    .params = {{.name = "p",
                .kind = DPT_PARAM_REAL,
                .required = true,
                .lower = 0.0,
                .upper = 1.0,
                .upper_open = true,
                .help = "mean probability of being dropped"},
               {.name = "epsilon",
                .kind = DPT_PARAM_REAL,
                .required = true,
                .lower = 0.0,
                .upper = 1.0,
                .help =
                    "difference of the probabilities of the smallest and the largest of a row"}},
    .check = della_check,
    .draws = della_draws,
    .reads = della_reads,
    .prepare = della_prepare,
    .apply_cell = della_apply_cell,
    .mask = della_mask,
    .bytes = della_bytes,
    .scale = della_scale,
    .destroy = della_destroy};
