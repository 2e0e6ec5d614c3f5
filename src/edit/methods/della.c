#include "../random_drop.h"
#include "../rows.h"

#include "deltapath/base/mem.h"

#include <math.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

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

/* What an entry of a rank gets, in the rows of one length. */
typedef struct della_rank {
    uint32_t threshold; /* of being dropped */
    float factor;       /* when it is kept; 0: it never is */
} della_rank;

typedef struct della_table {
    int64_t n;         /* entries of the row */
    int64_t filled;    /* ranks below it are set, at most DPT_CELL */
    della_rank *ranks; /* (filled) */
} della_table;

typedef struct della_state {
    dpt_edit_rows *rows;
    della_table table;
} della_state;

static void della_destroy(dpt_edit_stage *stage) {
    della_state *d = stage->state;
    if (d == NULL)
        return;
    dpt_edit_rows_destroy(d->rows);
    dpt_mem_free(d->table.ranks);
    dpt_mem_free(d);
}

static dpt_status della_prepare(dpt_edit_work *work, dpt_edit_stage *stage) {
    int64_t longest = 0;
    for (int t = 0; t < stage->catalog->count; t++) {
        int64_t n = stage->covers[t] ? dpt_edit_row_length(&stage->catalog->tensors[t]) : 0;
        longest = n > longest ? n : longest;
    }
    longest = longest < DPT_CELL ? longest : DPT_CELL;
    della_state *d = dpt_mem_zalloc(1, sizeof *d, "probabilities of ranks");
    stage->state = d;
    if (d != NULL)
        d->table.ranks = dpt_mem_alloc(longest, sizeof *d->table.ranks, "ranks");
    bool made = d != NULL && d->table.ranks != NULL;
    dpt_status st = dpt_agree(work->input->comm, made ? DPT_OK : DPT_ERR_OUTPUT);
    return st == DPT_OK ? dpt_edit_rows_create(work, stage, &d->rows) : st;
}

/* What a rank gets in rows of n. */
static della_rank della_of_rank(const dpt_edit_stage *stage, int64_t n, uint32_t rank) {
    double drop = dpt_edit_value(stage->spec, DELLA_P);
    double epsilon = dpt_edit_value(stage->spec, DELLA_EPSILON);
    if (n > 1)
        drop = drop - 0.5 * epsilon + epsilon * ((double)rank / (double)(n - 1));
    drop = drop > 0.0 ? drop : 0.0; /* the sum may end just below */
    uint64_t wanted = dpt_rng_threshold(drop);
    if (wanted >> 32 != 0)
        return (della_rank){.threshold = UINT32_MAX};
    return (della_rank){.threshold = (uint32_t)wanted, .factor = (float)(1.0 / (1.0 - drop))};
}

/* The table for rows of n; without ranks where rows are longer than a cell, for few entries have these. */
static void della_fill_table(const dpt_edit_work *work, const dpt_edit_stage *stage, int64_t n) {
    della_table *table = &((della_state *)stage->state)->table;
    if (table->n == n)
        return;
    table->n = n;
    table->filled = n <= DPT_CELL ? n : 0;
#pragma omp parallel for schedule(static) num_threads(work->threads)
    for (int64_t i = 0; i < table->filled; i++)
        table->ranks[i] = della_of_rank(stage, n, (uint32_t)i);
}

/* Thresholds and factors of a piece whose entries have the given ranks. */
static void della_look_up(const dpt_edit_stage *stage, const uint32_t *rank, int64_t n,
                          uint32_t *threshold, float *factor) {
    const della_table *table = &((const della_state *)stage->state)->table;
    int64_t i = 0;
#ifdef __AVX512F__ /* which the compiler does not find by itself */
    const __m512i even =
        _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    for (; i + 16 <= n && table->filled > 0; i += 16) {
        __m512i at = _mm512_loadu_si512(rank + i);
        __m512i low = _mm512_i32gather_epi64(_mm512_castsi512_si256(at), table->ranks, 8);
        __m512i high = _mm512_i32gather_epi64(_mm512_extracti64x4_epi64(at, 1), table->ranks, 8);
        _mm512_storeu_si512(threshold + i, _mm512_permutex2var_epi32(low, even, high));
        _mm512_storeu_si512(factor + i, _mm512_permutex2var_epi32(low, odd, high));
    }
#endif
    for (; i < n; i++) {
        della_rank one =
            table->filled > 0 ? table->ranks[rank[i]] : della_of_rank(stage, table->n, rank[i]);
        threshold[i] = one.threshold;
        factor[i] = one.factor;
    }
}

/* Word by word of the mask; a factor is dropped by its bits, without a branch. */
static void della_scale_piece(float *delta, int64_t n, const uint64_t *drops, float *factor) {
    int64_t from = 0;
#ifdef __AVX512F__
    for (; from + 16 <= n; from += 16) {
        __mmask16 kept = (__mmask16) ~(drops[from / 64] >> (from % 64));
        _mm512_storeu_ps(delta + from, _mm512_mul_ps(_mm512_loadu_ps(delta + from),
                                                     _mm512_maskz_loadu_ps(kept, factor + from)));
    }
#endif
    for (; from < n; from += 32) {
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

/* Drawing for a cell: scale it in place, or say which entries are dropped; the other is NULL. */
typedef struct della_job {
    const dpt_edit_stage *stage;
    int64_t ig; /* of the cell */
    float *scaled;
    uint8_t *dropped;
} della_job;

static void della_draw(void *ctx, dpt_range piece, const uint32_t *rank) {
    const della_job *job = ctx;
    int64_t at = piece.ig - job->ig;
    uint32_t threshold[DPT_EDIT_PIECE];
    float factor[DPT_EDIT_PIECE];
    uint64_t drops[DPT_EDIT_PIECE / 64];
    della_look_up(job->stage, rank, piece.n, threshold, factor);
    dpt_rng_mask_each(dpt_edit_stream(job->stage, piece.tensor, DPT_RNG_MASK), piece.ig, piece.n,
                      threshold, drops);
    if (job->scaled != NULL)
        della_scale_piece(job->scaled + at, piece.n, drops, factor);
    else
        for (int64_t i = 0; i < piece.n; i++)
            job->dropped[at + i] = dpt_rng_mask_bit(drops, i) || factor[i] == 0.0f;
}

static void della_draw_cell(const dpt_edit_work *work, const dpt_edit_stage *stage, dpt_range cell,
                            const float *delta, float *scaled, uint8_t *dropped) {
    const della_state *d = stage->state;
    della_job job = {.stage = stage, .ig = cell.ig, .scaled = scaled, .dropped = dropped};
    della_fill_table(work, stage, dpt_edit_row_length(&stage->catalog->tensors[cell.tensor]));
    dpt_edit_rows_order(d->rows, cell, delta, della_draw, &job);
}

static void della_apply_cell(const dpt_edit_work *work, const dpt_edit_stage *stage, dpt_range cell,
                             float *delta) {
    della_draw_cell(work, stage, cell, delta, delta, NULL);
}

/* A cell that passes. */
typedef struct della_pass {
    const dpt_edit_stage *stage;
    const dpt_edit_flow *flow;
} della_pass;

static bool della_load(void *ctx, dpt_range run, bool own, float *delta) {
    const dpt_edit_flow *flow = ((const della_pass *)ctx)->flow;
    return flow->load(flow->ctx, run, own, delta);
}

static bool della_store(void *ctx, dpt_range piece, const uint32_t *rank, float *delta) {
    const della_pass *pass = ctx;
    della_job job = {.stage = pass->stage, .ig = piece.ig, .scaled = delta};
    della_draw(&job, piece, rank);
    return pass->flow->store(pass->flow->ctx, piece, delta);
}

static bool della_pass_cell(const dpt_edit_work *work, const dpt_edit_stage *stage, dpt_range cell,
                            const dpt_edit_flow *flow) {
    const della_state *d = stage->state;
    della_pass pass = {.stage = stage, .flow = flow};
    della_fill_table(work, stage, dpt_edit_row_length(&stage->catalog->tensors[cell.tensor]));
    return dpt_edit_rows_pass(
        d->rows, cell,
        &(dpt_edit_rows_flow){.load = della_load, .store = della_store, .ctx = &pass});
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
    .prepare = della_prepare,
    .apply_cell = della_apply_cell,
    .pass_cell = della_pass_cell,
    .mask = della_mask,
    .bytes = della_bytes,
    .scale = della_scale,
    .destroy = della_destroy};
