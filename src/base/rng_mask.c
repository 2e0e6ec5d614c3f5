#include "deltapath/base/rng.h"

#include "philox.h"

#include "deltapath/base/assert.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif
#include <string.h>

/* Masks: the leading byte of nearly every element decides; the other 24 bits of the few elements whose
 * byte is that of the threshold are drawn afterwards, all together. */

enum {
    REST = 0xffffff,
    BLOCK = 16,                /* elements of a block */
    RUN = BLOCK * PHILOX_BATCH /* elements of a batch */
};

/* Bytes of elements [first, first + n), first a multiple of BLOCK. Writes whole batches: room for RUN
 * bytes more is needed. */
static void bytes_at(dpt_rng rng, const dpt_rng_keys *keys, uint64_t first, int64_t n,
                     uint8_t *bytes) {
    DPT_ASSERT(first % BLOCK == 0);
    for (int64_t i = 0; i < n; i += RUN) {
        uint32_t words[4 * PHILOX_BATCH];
        philox_blocks(rng, keys, (first + (uint64_t)i) / BLOCK, words);
        memcpy(bytes + i, words, sizeof words);
    }
}

/* 64 bytes against the leading bits of the threshold: which are below, which are the same. */
static void rng_mask_compare(const uint8_t *bytes, unsigned lead, uint64_t *below, uint64_t *same) {
#ifdef __AVX512BW__
    const __m512i x = _mm512_loadu_si512(bytes), y = _mm512_set1_epi8((char)lead);
    *below = _mm512_cmplt_epu8_mask(x, y);
    *same = _mm512_cmpeq_epi8_mask(x, y);
#elif defined(__AVX2__)
    const __m256i y = _mm256_set1_epi8((char)lead);
    *below = *same = 0;
    for (int i = 0; i < 64; i += 32) {
        __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)(bytes + i));
        __m256i from = _mm256_cmpeq_epi8(_mm256_max_epu8(x, y), x); /* x >= y */
        *below |= (uint64_t)(uint32_t)~_mm256_movemask_epi8(from) << i;
        *same |= (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(x, y)) << i;
    }
#else
    *below = *same = 0;
    for (int i = 0; i < 64; i++) {
        *below |= (uint64_t)(bytes[i] < lead) << i;
        *same |= (uint64_t)(bytes[i] == lead) << i;
    }
#endif
}

/* A batch of elements of each draw, from its next one on. Draws differ in their thresholds. */
static inline __attribute__((always_inline)) void compare_run(int count, dpt_rng_draw *const *draws,
                                                              int64_t at) {
    const dpt_rng_draw *first = draws[0];
    uint64_t ig = first->ig + (uint64_t)at;
    uint8_t bytes[3 * RUN];
#ifdef __AVX512BW__
    if (ig % BLOCK == 0) { /* the bytes need not leave the registers */
        __m512i blocks[2 * PHILOX_GROUPS];
        philox_batch(first->rng, &first->keys, ig / BLOCK, blocks);
        for (int d = 0; d < count; d++) {
            uint64_t *below = draws[d]->mask + at / 64, *same = draws[d]->same + at / 64;
            const __m512i y = _mm512_set1_epi8((char)(draws[d]->threshold >> 24));
            for (int v = 0; v < 2 * PHILOX_GROUPS; v++) {
                below[v] = _mm512_cmplt_epu8_mask(blocks[v], y);
                same[v] = _mm512_cmpeq_epi8_mask(blocks[v], y);
            }
        }
        return;
    }
#endif
    bytes_at(first->rng, &first->keys, ig / BLOCK * BLOCK, RUN + (int64_t)(ig % BLOCK), bytes);
    for (int d = 0; d < count; d++)
        for (int v = 0; v < RUN / 64; v++)
            rng_mask_compare(bytes + ig % BLOCK + 64 * v, (unsigned)(draws[d]->threshold >> 24),
                             draws[d]->mask + at / 64 + v, draws[d]->same + at / 64 + v);
}

void dpt_rng_draw_begin(dpt_rng_draw *draw, dpt_rng rng, int64_t ig, uint64_t threshold) {
    draw->rng = rng;
    draw->ig = (uint64_t)ig;
    draw->threshold = threshold;
    draw->keys = philox_schedule(rng);
    draw->n = 0;
}

/* Runs are compared whole: bits beyond the elements of a draw are none. */
static void draw_end(dpt_rng_draw *draw) {
    if (draw->n % 64 == 0)
        return;
    draw->mask[draw->n / 64] &= (UINT64_C(1) << draw->n % 64) - 1;
    draw->same[draw->n / 64] &= (UINT64_C(1) << draw->n % 64) - 1;
}

static inline __attribute__((always_inline)) void draw_leads(int count, dpt_rng_draw *const *draws,
                                                             int64_t n) {
    const int64_t begin = draws[0]->n;
    /* A step continues where whole words of the mask end. */
    DPT_ASSERT(begin % 64 == 0 && begin + n <= DPT_RNG_DRAW);
    for (int64_t at = begin; at < begin + n; at += RUN)
        compare_run(count, draws, at);
    for (int d = 0; d < count; d++) {
        DPT_ASSERT(draws[d]->threshold >> 32 == 0 && draws[d]->n == begin);
        DPT_ASSERT(draws[d]->ig == draws[0]->ig && draws[d]->rng.key == draws[0]->rng.key);
        draws[d]->n += n;
        draw_end(draws[d]);
    }
}

void dpt_rng_draw_lead(dpt_rng_draw *draw, int64_t n) {
    draw_leads(1, &draw, n); /* a number that the compiler sees */
}

void dpt_rng_draw_leads(int count, dpt_rng_draw *const *draws, int64_t n) {
    draw_leads(count, draws, n);
}

#ifdef __AVX512F__

/* The other bits of up to PHILOX_BATCH elements. */
static void rests_at(const dpt_rng_draw *draw, const uint16_t *at, uint32_t rest[PHILOX_BATCH]) {
    philox_lanes x;
    for (int g = 0; g < PHILOX_GROUPS; g++)
        x.c0[g] = _mm512_add_epi64(
            _mm512_set1_epi64((int64_t)draw->ig),
            _mm512_cvtepu16_epi64(_mm_loadu_si128((const __m128i *)(at + g * PHILOX_GROUP))));
    philox_rounds(draw->rng, &draw->keys, 2, &x);
    for (int g = 0; g < PHILOX_GROUPS; g++)
        _mm256_storeu_si256(
            (__m256i *)(rest + g * PHILOX_GROUP),
            _mm512_cvtepi64_epi32(_mm512_and_si512(x.c0[g], _mm512_set1_epi64(REST))));
}

#else

static void rests_at(const dpt_rng_draw *draw, const uint16_t *at, uint32_t rest[PHILOX_BATCH]) {
    for (int i = 0; i < PHILOX_BATCH; i++)
        rest[i] = philox_block(draw->rng, draw->ig + at[i], 2).v[0] & REST;
}

#endif

/* Which words have a bit set. */
static uint64_t find_words(const uint64_t *same, int words) {
    uint64_t some = 0;
#ifdef __AVX512F__
    for (int w = 0; w < words; w += 8) {
        __m512i eight = _mm512_maskz_loadu_epi64(
            (__mmask8)(0xff >> (words - w < 8 ? w + 8 - words : 0)), same + w);
        some |= (uint64_t)_mm512_test_epi64_mask(eight, eight) << w;
    }
#else
    for (int w = 0; w < words; w++)
        some |= (uint64_t)(same[w] != 0) << w;
#endif
    return some;
}

/* Elements whose leading bits are those of the threshold; how many. Few words have any, and few of those
 * more than one. */
static int find_open(const dpt_rng_draw *draw, uint16_t open[DPT_RNG_DRAW + PHILOX_BATCH]) {
    int count = 0;
    for (uint64_t some = find_words(draw->same, (int)(draw->n + 63) / 64); some != 0;
         some &= some - 1) {
        int w = __builtin_ctzll(some);
        uint64_t same = draw->same[w];
        do {
            open[count++] = (uint16_t)(64 * w + __builtin_ctzll(same));
            same &= same - 1;
        } while (__builtin_expect(same != 0, 0));
    }
    DPT_ASSERT(count <= draw->n);
    memset(open + count, 0, PHILOX_BATCH * sizeof *open);
    return count;
}

/* The open elements against the other bits of the threshold, or of their own where there are some. */
static void settle_open(dpt_rng_draw *draw, const uint32_t *thresholds) {
    uint16_t open[DPT_RNG_DRAW + PHILOX_BATCH];
    int count = find_open(draw, open);
    for (int i = 0; i < count; i += PHILOX_BATCH) {
        uint32_t drawn[PHILOX_BATCH];
        rests_at(draw, open + i, drawn);
        for (int j = 0; i + j < count && j < PHILOX_BATCH; j++) {
            int at = open[i + j];
            uint32_t rest =
                (thresholds != NULL ? thresholds[at] : (uint32_t)draw->threshold) & REST;
            draw->mask[at / 64] |= (uint64_t)(drawn[j] < rest) << (at % 64);
        }
    }
}

void dpt_rng_draw_settle(dpt_rng_draw *draw) {
    if ((draw->threshold & REST) > 0)
        settle_open(draw, NULL);
}

void dpt_rng_mask(dpt_rng rng, int64_t ig, int64_t n, uint64_t threshold, uint64_t *mask) {
    for (int64_t i = 0; i < n; i += DPT_RNG_DRAW) {
        int64_t step = n - i < DPT_RNG_DRAW ? n - i : DPT_RNG_DRAW;
        size_t bytes = (size_t)(step + 63) / 64 * sizeof *mask;
        if (threshold >> 32 != 0) {
            memset(mask + i / 64, 0xff, bytes);
            if (step % 64 != 0)
                mask[(i + step) / 64] = (UINT64_C(1) << step % 64) - 1;
            continue;
        }
        dpt_rng_draw draw;
        dpt_rng_draw_begin(&draw, rng, ig + i, threshold);
        dpt_rng_draw_lead(&draw, step);
        dpt_rng_draw_settle(&draw);
        memcpy(mask + i / 64, draw.mask, bytes);
    }
}

#ifdef __AVX512BW__

static __m512i sixteen_leads(const uint32_t *thresholds, int n) {
    int left = n < 0 ? 0 : n < 16 ? n : 16;
    __mmask16 own = (__mmask16)((UINT32_C(1) << left) - 1);
    return _mm512_srli_epi32(_mm512_maskz_loadu_epi32(own, thresholds), 24);
}

/* 64 bytes against the leading bits of n thresholds, at most 64; 0 beyond. */
static void compare_each(const uint8_t *bytes, const uint32_t *thresholds, int n, uint64_t *below,
                         uint64_t *same) {
    const __m512i turn = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    __m512i first =
        _mm512_packus_epi32(sixteen_leads(thresholds, n), sixteen_leads(thresholds + 16, n - 16));
    __m512i second = _mm512_packus_epi32(sixteen_leads(thresholds + 32, n - 32),
                                         sixteen_leads(thresholds + 48, n - 48));
    __m512i y = _mm512_permutexvar_epi32(turn, _mm512_packus_epi16(first, second));
    const __m512i x = _mm512_loadu_si512(bytes);
    *below = _mm512_cmplt_epu8_mask(x, y);
    *same = _mm512_cmpeq_epi8_mask(x, y);
}

#else

static void compare_each(const uint8_t *bytes, const uint32_t *thresholds, int n, uint64_t *below,
                         uint64_t *same) {
    uint8_t leads[64] = {0};
    for (int i = 0; i < (n < 64 ? n : 64); i++)
        leads[i] = (uint8_t)(thresholds[i] >> 24);
    *below = *same = 0;
#ifdef __AVX2__
    for (int i = 0; i < 64; i += 32) {
        __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)(bytes + i));
        __m256i y = _mm256_loadu_si256((const __m256i *)(const void *)(leads + i));
        __m256i from = _mm256_cmpeq_epi8(_mm256_max_epu8(x, y), x); /* x >= y */
        *below |= (uint64_t)(uint32_t)~_mm256_movemask_epi8(from) << i;
        *same |= (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(x, y)) << i;
    }
#else
    for (int i = 0; i < 64; i++) {
        *below |= (uint64_t)(bytes[i] < leads[i]) << i;
        *same |= (uint64_t)(bytes[i] == leads[i]) << i;
    }
#endif
}

#endif

/* What the leading bits of n elements decide, each with its own threshold. */
static void lead_each(dpt_rng_draw *draw, int64_t n, const uint32_t *thresholds) {
    uint8_t bytes[DPT_RNG_DRAW + BLOCK + RUN + 64];
    uint64_t skip = draw->ig % BLOCK;
    bytes_at(draw->rng, &draw->keys, draw->ig - skip, (int64_t)skip + n, bytes);
    for (int64_t i = 0; i < n; i += 64)
        compare_each(bytes + skip + i, thresholds + i, n - i < 64 ? (int)(n - i) : 64,
                     &draw->mask[i / 64], &draw->same[i / 64]);
    draw->n = n;
    draw_end(draw);
}

void dpt_rng_mask_each(dpt_rng rng, int64_t ig, int64_t n, const uint32_t *thresholds,
                       uint64_t *mask) {
    dpt_rng_draw draw;
    for (int64_t from = 0; from < n; from += DPT_RNG_DRAW) {
        int64_t step = n - from < DPT_RNG_DRAW ? n - from : DPT_RNG_DRAW;
        dpt_rng_draw_begin(&draw, rng, ig + from, 0);
        lead_each(&draw, step, thresholds + from);
        settle_open(&draw, thresholds + from);
        memcpy(mask + from / 64, draw.mask, (size_t)(step + 63) / 64 * sizeof *mask);
    }
}
