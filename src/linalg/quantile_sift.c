#include "quantile_parts.h"

#include "deltapath/base/assert.h"

#ifdef __AVX512F__
#include <immintrin.h>
#endif

/* Values against a bracket: the loop of a bracketed selection that sees all of them. */

enum { INFINITE = 0x7f800000 }; /* magnitudes from here on are infinite or NaN */

/* Count a run of values against a bracket; magnitudes strictly inside go to found. Without a
 * branch on the values: x - first < width as unsigned numbers is low < x < high in one comparison, and
 * width 0 makes it false for an empty or reversed inside. */
int dpt_quantile_sift(const float *values, int n, bracket *b, uint32_t found[DPT_QUANTILE_RUN]) {
    const uint32_t first = (uint32_t)b->low + 1;
    const uint32_t width = b->low < b->high ? (uint32_t)b->high - first : 0;
    int count = 0, i = 0, above = 0, at_high = 0, at_low = 0;
#ifdef __AVX512F__ /* few are inside: their bits are walked through afterwards */
    const __m512i all = _mm512_set1_epi32(0x7fffffff), high = _mm512_set1_epi32(b->high);
    const __m512i low = _mm512_set1_epi32(b->low), one = _mm512_set1_epi32(1);
    const __m512i from = _mm512_set1_epi32((int)first), span = _mm512_set1_epi32((int)width);
    __m512i over = _mm512_setzero_si512(), top = over, bottom = over;
    for (; i + 64 <= n; i += 64) {
        uint64_t inside = 0;
        for (int j = 0; j < 64; j += 16) {
            __m512i x = _mm512_and_si512(_mm512_loadu_si512(values + i + j), all);
            __mmask16 in = _mm512_cmplt_epu32_mask(_mm512_sub_epi32(x, from), span);
            over = _mm512_mask_add_epi32(over, _mm512_cmpgt_epi32_mask(x, high), over, one);
            top = _mm512_mask_add_epi32(top, _mm512_cmpeq_epi32_mask(x, high), top, one);
            bottom = _mm512_mask_add_epi32(bottom, _mm512_cmpeq_epi32_mask(x, low), bottom, one);
            inside |= (uint64_t)in << j;
        }
        for (; inside != 0; inside &= inside - 1)
            found[count++] = magnitude(values[i + __builtin_ctzll(inside)]);
    }
    above = _mm512_reduce_add_epi32(over);
    at_high = _mm512_reduce_add_epi32(top);
    at_low = _mm512_reduce_add_epi32(bottom);
#endif
    for (; i < n; i++) {
        uint32_t x = magnitude(values[i]);
        above += (int32_t)x > b->high;
        at_high += (int32_t)x == b->high;
        at_low += (int32_t)x == b->low;
        if (x - first < width)
            found[count++] = x;
    }
    DPT_ASSERT(above >= 0 && at_high >= 0 && at_low >= 0 && above + at_high + count <= n);
    b->above += above;
    b->at_high += at_high;
    b->at_low += b->low < b->high ? at_low : 0;
    b->inside += count;
    return count;
}

#ifdef __AVX512F__
enum { UNIT = 32, AHEAD = 2048 };

/* Counts in lanes, and the largest magnitude. */
typedef struct sifted {
    __m512i over, top, bottom, largest;
    int count;
} sifted;

static inline __attribute__((always_inline)) void sift_lanes(__m512 value, __m512i low,
                                                             __m512i high, __m512i from,
                                                             __m512i span, sifted *s,
                                                             uint32_t *found) {
    const __m512i one = _mm512_set1_epi32(1);
    __m512i x = _mm512_and_si512(_mm512_castps_si512(value), _mm512_set1_epi32(0x7fffffff));
    __mmask16 in = _mm512_cmplt_epu32_mask(_mm512_sub_epi32(x, from), span);
    s->largest = _mm512_max_epi32(s->largest, x);
    s->over = _mm512_mask_add_epi32(s->over, _mm512_cmpgt_epi32_mask(x, high), s->over, one);
    s->top = _mm512_mask_add_epi32(s->top, _mm512_cmpeq_epi32_mask(x, high), s->top, one);
    s->bottom = _mm512_mask_add_epi32(s->bottom, _mm512_cmpeq_epi32_mask(x, low), s->bottom, one);
    _mm512_storeu_si512(found + s->count, _mm512_maskz_compress_epi32(in, x));
    s->count += __builtin_popcount(in);
}

/* Whole units, the even and then the odd elements of each: two bf16 make a word, and each half of it becomes a
 * float by one instruction. @return elements that are done, 0 when one is not finite. */
static int sift_units(const uint16_t *before, const uint16_t *after, int n, bracket *b,
                      uint32_t *found) {
    const __m512i low = _mm512_set1_epi32(b->low), high = _mm512_set1_epi32(b->high);
    const __m512i from = _mm512_set1_epi32(b->low + 1), half = _mm512_set1_epi32(-65536);
    const __m512i span =
        _mm512_set1_epi32((int)(b->low < b->high ? (uint32_t)b->high - (uint32_t)b->low - 1 : 0));
    sifted s = {.count = 0};
    int i = 0;
    for (; i + UNIT <= n; i += UNIT) {
        __m512i x = _mm512_loadu_si512(before + i), y = _mm512_loadu_si512(after + i);
        __builtin_prefetch(before + i + AHEAD);
        __builtin_prefetch(after + i + AHEAD);
        __m512 even = _mm512_sub_ps(_mm512_castsi512_ps(_mm512_slli_epi32(y, 16)),
                                    _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)));
        __m512 odd = _mm512_sub_ps(_mm512_castsi512_ps(_mm512_and_si512(y, half)),
                                   _mm512_castsi512_ps(_mm512_and_si512(x, half)));
        sift_lanes(even, low, high, from, span, &s, found);
        sift_lanes(odd, low, high, from, span, &s, found);
    }
    if (_mm512_reduce_max_epi32(s.largest) >= INFINITE)
        return 0;
    b->above += _mm512_reduce_add_epi32(s.over);
    b->at_high += _mm512_reduce_add_epi32(s.top);
    b->at_low += b->low < b->high ? _mm512_reduce_add_epi32(s.bottom) : 0;
    b->inside += s.count;
    return i;
}
#else
static int sift_units(const uint16_t *before, const uint16_t *after, int n, bracket *b,
                      uint32_t *found) {
    (void)before, (void)after, (void)n, (void)b, (void)found;
    return 0;
}
#endif

static float quantile_widen(uint16_t stored) {
    uint32_t bits = (uint32_t)stored << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

int dpt_quantile_sift_pair(const uint16_t *before, const uint16_t *after, int n, bracket *b,
                           uint32_t found[DPT_QUANTILE_RUN]) {
    float rest[DPT_QUANTILE_RUN];
    bracket kept = *b;
    uint32_t largest = 0;
    int done = sift_units(before, after, n, b, found), count = (int)(b->inside - kept.inside);
    for (int i = done; i < n; i++) {
        rest[i - done] = quantile_widen(after[i]) - quantile_widen(before[i]);
        uint32_t size = magnitude(rest[i - done]);
        largest = size > largest ? size : largest;
    }
    if (largest < INFINITE)
        return count + dpt_quantile_sift(rest, n - done, b, found + count);
    *b = kept;
    return -1;
}
