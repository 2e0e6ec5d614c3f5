#include "random_drop.h"

#include "deltapath/base/mem.h"

#ifdef __AVX512F__
#include <immintrin.h>
#endif

dpt_status dpt_random_drop_check(const char *method, double p) {
    if (!(p < 1.0) || dpt_rng_threshold(p) >> 32 == 0)
        return DPT_OK;
    return dpt_error(
        DPT_ERR_USAGE,
        "%s: p: %.17g would keep no delta: masks of 32 bits take a probability within "
        "2^-33 of 1 for 1: give at most 0.9999999997, or `drop` with p = 1 to drop all",
        method, p);
}

void dpt_random_drop_destroy(dpt_edit_stage *stage) {
    dpt_random_drop *f = stage->state;
    if (f == NULL)
        return;
    dpt_mem_free(f->threshold);
    dpt_mem_free(f->kept);
    dpt_mem_free(f->scale);
    dpt_mem_free(f);
}

dpt_random_drop *dpt_random_drop_create(dpt_edit_stage *stage, int p) {
    int64_t n = stage->catalog->count;
    dpt_random_drop *f = dpt_mem_zalloc(1, sizeof *f, "drop dpt_random_drop");
    stage->state = f;
    if (f == NULL)
        return NULL;
    f->threshold = dpt_mem_zalloc(n, sizeof *f->threshold, "drop dpt_random_drop");
    f->kept = dpt_mem_zalloc(n, sizeof *f->kept, "drop dpt_random_drop");
    f->scale = dpt_mem_zalloc(n, sizeof *f->scale, "drop dpt_random_drop");
    if (f->threshold == NULL || f->kept == NULL || f->scale == NULL)
        return NULL;
    for (int t = 0; t < n; t++)
        if (stage->covers[t])
            f->threshold[t] = dpt_rng_threshold(dpt_edit_value_of(stage->spec, p, t));
    return f;
}

void dpt_random_drop_draw(const dpt_edit_stage *stage, dpt_range range, uint64_t threshold,
                          dpt_random_drop_piece *mask) {
    dpt_rng_mask(dpt_edit_stream(stage, range.tensor, DPT_RNG_MASK), range.ig, range.n, threshold,
                 mask->bits);
}

void dpt_random_drop_apply(const dpt_edit_stage *stage, dpt_range range, float *delta) {
    const dpt_random_drop *f = stage->state;
    dpt_random_drop_piece mask;
    float kept = f->kept[range.tensor];
    float dropped = f->dropped;
    dpt_random_drop_draw(stage, range, f->threshold[range.tensor], &mask);
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

bool dpt_random_drop_fused(const dpt_edit_stage *stage, dpt_range cell, dpt_edit_fused *rule) {
    const dpt_random_drop *f = stage->state;
    *rule = (dpt_edit_fused){.rule = DPT_EDIT_RULE_MASK,
                             .kept = f->kept[cell.tensor],
                             .dropped = f->dropped,
                             .rng = dpt_edit_stream(stage, cell.tensor, DPT_RNG_MASK),
                             .threshold = f->threshold[cell.tensor]};
    return f->threshold[cell.tensor] >> 32 == 0;
}

void dpt_random_drop_mask(const dpt_edit_work *work, const dpt_edit_stage *stage, dpt_range cell,
                          const float *delta, uint8_t *dropped) {
    const dpt_random_drop *f = stage->state;
    (void)delta;
#pragma omp parallel for schedule(static) num_threads(work->threads)
    for (int p = 0; p < dpt_edit_pieces(cell); p++) {
        dpt_range piece = dpt_edit_piece(cell, p);
        int64_t at = piece.ig - cell.ig;
        dpt_random_drop_piece drops;
        dpt_random_drop_draw(stage, piece, f->threshold[piece.tensor], &drops);
        for (int64_t i = 0; i < piece.n; i++)
            dropped[at + i] = dpt_rng_mask_bit(drops.bits, i);
    }
}

double dpt_random_drop_scale(const dpt_edit_stage *stage, int tensor) {
    return ((const dpt_random_drop *)stage->state)->scale[tensor];
}
