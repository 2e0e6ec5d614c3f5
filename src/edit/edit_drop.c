#include "stage.h"

#include "deltapath/base/mem.h"

#ifdef __AVX512F__
#include <immintrin.h>
#endif
#include <math.h>

/* Random dropping: arXiv:2410.13841 Eq. (2)-(3) and section 4.2 (DARE with k), and dropping alone.
 * A delta is in the dropped set M when the stage's mask stream says so at probability p. */

enum { DARE_P, DARE_K, DARE_RESCALE };
enum { RESCALE_EXACT, RESCALE_L1, RESCALE_NONE };

typedef struct factors {
    uint64_t threshold;
    float dropped; /* factor where the mask is set */
    float *kept;   /* (tensors) factor elsewhere */
    double *scale; /* (tensors) the same before rounding */
} factors;

static void destroy(dpt_edit_stage *stage) {
    factors *f = stage->state;
    if (f == NULL)
        return;
    dpt_mem_free(f->kept);
    dpt_mem_free(f->scale);
    dpt_mem_free(f);
}

static factors *create(dpt_edit_stage *stage, double p) {
    int64_t n = stage->catalog->count;
    factors *f = dpt_mem_zalloc(1, sizeof *f, "drop factors");
    stage->state = f;
    if (f == NULL)
        return NULL;
    f->threshold = dpt_rng_threshold(p);
    f->kept = dpt_mem_zalloc(n, sizeof *f->kept, "drop factors");
    f->scale = dpt_mem_zalloc(n, sizeof *f->scale, "drop factors");
    return f->kept != NULL && f->scale != NULL ? f : NULL;
}

/* The dropped set of a piece. */
typedef struct piece_mask {
    uint64_t bits[DPT_EDIT_PIECE / 64];
} piece_mask;

static void draw(const dpt_edit_stage *stage, dpt_range range, uint64_t threshold,
                 piece_mask *mask) {
    dpt_rng_mask(dpt_edit_stream(stage, range.tensor, DPT_RNG_MASK), range.ig, range.n, threshold,
                 mask->bits);
}

static void apply(const dpt_edit_stage *stage, dpt_range range, float *delta) {
    const factors *f = stage->state;
    piece_mask mask;
    float kept = f->kept[range.tensor];
    float dropped = f->dropped;
    draw(stage, range, f->threshold, &mask);
    int64_t i = 0;
#ifdef __AVX512F__ /* a bit for each lane, which the compiler does not find by itself */
    const __m512 factor = _mm512_set1_ps(kept), other = _mm512_set1_ps(dropped);
    for (; i + 16 <= range.n; i += 16) {
        __mmask16 bits = (__mmask16)(mask.bits[i / 64] >> (i % 64));
        __m512 scaled =
            _mm512_mul_ps(_mm512_loadu_ps(delta + i), _mm512_mask_blend_ps(bits, factor, other));
        _mm512_storeu_ps(delta + i, scaled);
    }
#endif
    for (; i < range.n; i++)
        delta[i] *= dpt_rng_mask_bit(mask.bits, i) ? dropped : kept;
}

static bool fused(const dpt_edit_stage *stage, int tensor, dpt_edit_fused *rule) {
    const factors *f = stage->state;
    *rule = (dpt_edit_fused){.rule = DPT_EDIT_RULE_MASK,
                             .kept = f->kept[tensor],
                             .dropped = f->dropped,
                             .rng = dpt_edit_stream(stage, tensor, DPT_RNG_MASK),
                             .threshold = f->threshold};
    return f->threshold >> 32 == 0;
}

static void mask(const dpt_edit_work *work, const dpt_edit_stage *stage, dpt_range cell,
                 const float *delta, uint8_t *dropped) {
    const factors *f = stage->state;
    (void)delta;
#pragma omp parallel for schedule(static) num_threads(work->threads)
    for (int p = 0; p < dpt_edit_pieces(cell); p++) {
        dpt_range piece = dpt_edit_piece(cell, p);
        int64_t at = piece.ig - cell.ig;
        piece_mask drops;
        draw(stage, piece, f->threshold, &drops);
        for (int64_t i = 0; i < piece.n; i++)
            dropped[at + i] = dpt_rng_mask_bit(drops.bits, i);
    }
}

static double scale(const dpt_edit_stage *stage, int tensor) {
    return ((const factors *)stage->state)->scale[tensor];
}

/* Sums of |delta| over all and over the kept deltas of a piece. */
static void kept_sums(const dpt_edit_stage *stage, dpt_range range, const float *delta,
                      double *sums) {
    const factors *f = stage->state;
    piece_mask mask;
    draw(stage, range, f->threshold, &mask);
    sums[0] = sums[1] = 0.0;
    for (int64_t i = 0; i < range.n; i++) {
        double size = fabs((double)delta[i]);
        sums[0] += size;
        sums[1] += dpt_rng_mask_bit(mask.bits, i) ? 0.0 : size;
    }
}

static dpt_status dare_prepare(dpt_edit_work *work, dpt_edit_stage *stage) {
    double p = dpt_edit_value(stage->spec, DARE_P);
    double k = dpt_edit_value(stage->spec, DARE_K);
    int rescale = (int)dpt_edit_value(stage->spec, DARE_RESCALE);
    factors *f = create(stage, p);
    dpt_status st = dpt_agree(stage->input->comm, f != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    if (st != DPT_OK)
        return st;
    f->dropped = (float)k;
    double *totals = NULL;
    if (rescale == RESCALE_L1) {
        st = dpt_edit_sums(work, stage, 2, kept_sums, &totals);
        if (st != DPT_OK)
            return st;
    }
    for (int t = 0; t < stage->catalog->count; t++) {
        f->scale[t] = rescale == RESCALE_EXACT ? (1.0 - k * p) / (1.0 - p) : 1.0;
        if (rescale == RESCALE_L1 && totals[2 * t + 1] > 0.0)
            f->scale[t] = totals[2 * t] / totals[2 * t + 1];
        f->kept[t] = (float)f->scale[t];
    }
    dpt_mem_free(totals);
    return DPT_OK;
}

static dpt_status dare_check(const dpt_edit_stage_spec *spec) {
    if ((int)dpt_edit_value(spec, DARE_RESCALE) == RESCALE_L1 &&
        dpt_edit_value(spec, DARE_K) != 0.0)
        return dpt_error(DPT_ERR_USAGE, "dare: k: rescale l1 is defined for k = 0 only: set k to 0 "
                                        "or rescale to exact");
    return DPT_OK;
}

const dpt_edit_method dpt_edit_method_dare = {
    .name = "dare",
    .class_name = "competitive",
    .help = "drop deltas at random, or scale them by k, and rescale the others to keep the mean",
    .random = true,
    .nparams = 3,
    .params = {{.name = "p",
                .kind = DPT_PARAM_REAL,
                .required = true,
                .least = 0.0,
                .most = 1.0,
                .most_open = true,
                .help = "share of the deltas that is dropped; p = 1 would keep none: use a p below "
                        "1, or drop"},
               {.name = "k",
                .kind = DPT_PARAM_REAL,
                .fallback = 0.0,
                .least = -1e6,
                .most = 1e6,
                .help = "factor of the dropped set; 0 is DARE, 1 the identity"},
               {.name = "rescale",
                .kind = DPT_PARAM_CHOICE,
                .choices = "exact|l1|none",
                .fallback = RESCALE_EXACT,
                .help = "kept deltas times (1 - k p) / (1 - p), by the ratio of L1 norms, or as "
                        "they are"}},
    .check = dare_check,
    .prepare = dare_prepare,
    .apply = apply,
    .fused = fused,
    .mask = mask,
    .scale = scale,
    .destroy = destroy};

static dpt_status drop_prepare(dpt_edit_work *work, dpt_edit_stage *stage) {
    (void)work;
    factors *f = create(stage, dpt_edit_value(stage->spec, DARE_P));
    dpt_status st = dpt_agree(stage->input->comm, f != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    if (st != DPT_OK)
        return st;
    for (int t = 0; t < stage->catalog->count; t++) {
        f->scale[t] = 1.0;
        f->kept[t] = 1.0f;
    }
    return DPT_OK;
}

const dpt_edit_method dpt_edit_method_drop = {
    .name = "drop",
    .class_name = "decreased",
    .help = "drop deltas at random and leave the others as they are",
    .random = true,
    .nparams = 1,
    .params = {{.name = "p",
                .kind = DPT_PARAM_REAL,
                .required = true,
                .least = 0.0,
                .most = 1.0,
                .help = "share of the deltas that is dropped"}},
    .prepare = drop_prepare,
    .apply = apply,
    .fused = fused,
    .mask = mask,
    .scale = scale,
    .destroy = destroy};
