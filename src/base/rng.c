#include "deltapath/base/rng.h"

#include "deltapath/base/hash.h"

#include <Random123/philox.h>
#include <math.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

dpt_rng dpt_rng_make(uint64_t seed, const char *name, uint32_t purpose) {
    uint64_t key = dpt_hash_text(name) ^ (seed * UINT64_C(0x9E3779B97F4A7C15));
    return (dpt_rng){.key = key, .purpose = purpose};
}

static philox4x32_ctr_t block_at(dpt_rng rng, uint64_t index, uint32_t last) {
    philox4x32_ctr_t counter = {{(uint32_t)index, (uint32_t)(index >> 32), rng.purpose, last}};
    philox4x32_key_t key = {{(uint32_t)rng.key, (uint32_t)(rng.key >> 32)}};
    return philox4x32(counter, key);
}

/* A batch of blocks: ten rounds over independent lanes. Both forms give the words of the library. */
enum { LANES = 32, REST = 0xffffff };

#ifdef __AVX512F__

enum { GROUPS = 4, GROUP = LANES / GROUPS }; /* 8 blocks, one to a 64-bit lane, in a vector */

/* The low half of each lane holds a word; what is above it is never looked at. Four vectors at a
 * time hide the latency of the multiplications. */
static inline __attribute__((always_inline)) void rounds_512(dpt_rng rng, __m512i c0[GROUPS],
                                                             __m512i c1[GROUPS], __m512i c2[GROUPS],
                                                             __m512i c3[GROUPS]) {
    const __m512i m0 = _mm512_set1_epi64(PHILOX_M4x32_0), m1 = _mm512_set1_epi64(PHILOX_M4x32_1);
    uint32_t k0 = (uint32_t)rng.key, k1 = (uint32_t)(rng.key >> 32);
    for (int round = 0; round < 10; round++) {
        const __m512i key0 = _mm512_set1_epi64(k0), key1 = _mm512_set1_epi64(k1);
        for (int g = 0; g < GROUPS; g++) {
            __m512i p0 = _mm512_mul_epu32(c0[g], m0), p1 = _mm512_mul_epu32(c2[g], m1);
            c0[g] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p1, 32), c1[g], key0, 0x96);
            c2[g] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p0, 32), c3[g], key1, 0x96);
            c1[g] = p1;
            c3[g] = p0;
        }
        k0 += PHILOX_W32_0;
        k1 += PHILOX_W32_1;
    }
}

static inline __attribute__((always_inline)) void start_512(dpt_rng rng, uint32_t last,
                                                            __m512i c0[GROUPS], __m512i c1[GROUPS],
                                                            __m512i c2[GROUPS],
                                                            __m512i c3[GROUPS]) {
    for (int g = 0; g < GROUPS; g++) {
        c1[g] = _mm512_srli_epi64(c0[g], 32);
        c2[g] = _mm512_set1_epi64(rng.purpose);
        c3[g] = _mm512_set1_epi64(last);
    }
    rounds_512(rng, c0, c1, c2, c3);
}

static void rests_at(dpt_rng rng, const uint64_t ig[LANES], uint32_t rest[LANES]) {
    __m512i c0[GROUPS], c1[GROUPS], c2[GROUPS], c3[GROUPS];
    for (int g = 0; g < GROUPS; g++)
        c0[g] = _mm512_loadu_si512(ig + g * GROUP);
    start_512(rng, 2, c0, c1, c2, c3);
    for (int g = 0; g < GROUPS; g++)
        _mm256_storeu_si256((__m256i *)(rest + g * GROUP), _mm512_cvtepi64_epi32(_mm512_and_si512(
                                                               c0[g], _mm512_set1_epi64(REST))));
}

static void blocks_at(dpt_rng rng, uint64_t index, uint32_t words[4 * LANES]) {
    const __m512i lane = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i first = _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0);
    const __m512i second = _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4);
    __m512i c0[GROUPS], c1[GROUPS], c2[GROUPS], c3[GROUPS];
    for (int g = 0; g < GROUPS; g++)
        c0[g] = _mm512_add_epi64(_mm512_set1_epi64((int64_t)(index + (uint64_t)g * GROUP)), lane);
    start_512(rng, 0, c0, c1, c2, c3);
    for (int g = 0; g < GROUPS; g++) {
        __m512i low = _mm512_mask_blend_epi32(0xAAAA, c0[g], _mm512_slli_epi64(c1[g], 32));
        __m512i high = _mm512_mask_blend_epi32(0xAAAA, c2[g], _mm512_slli_epi64(c3[g], 32));
        _mm512_storeu_si512(words + 32 * g, _mm512_permutex2var_epi64(low, first, high));
        _mm512_storeu_si512(words + 32 * g + 16, _mm512_permutex2var_epi64(low, second, high));
    }
}

#else

static void blocks_at(dpt_rng rng, uint64_t index, uint32_t words[4 * LANES]) {
    uint32_t c0[LANES], c1[LANES], c2[LANES], c3[LANES];
    for (int i = 0; i < LANES; i++) {
        uint64_t at = index + (uint64_t)i;
        c0[i] = (uint32_t)at;
        c1[i] = (uint32_t)(at >> 32);
        c2[i] = rng.purpose;
        c3[i] = 0;
    }
    uint32_t k0 = (uint32_t)rng.key;
    uint32_t k1 = (uint32_t)(rng.key >> 32);
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < LANES; i++) {
            uint64_t m0 = (uint64_t)c0[i] * PHILOX_M4x32_0;
            uint64_t m1 = (uint64_t)c2[i] * PHILOX_M4x32_1;
            c0[i] = (uint32_t)(m1 >> 32) ^ c1[i] ^ k0;
            c2[i] = (uint32_t)(m0 >> 32) ^ c3[i] ^ k1;
            c1[i] = (uint32_t)m1;
            c3[i] = (uint32_t)m0;
        }
        k0 += PHILOX_W32_0;
        k1 += PHILOX_W32_1;
    }
    for (int i = 0; i < LANES; i++) {
        words[4 * i] = c0[i];
        words[4 * i + 1] = c1[i];
        words[4 * i + 2] = c2[i];
        words[4 * i + 3] = c3[i];
    }
}

static void rests_at(dpt_rng rng, const uint64_t ig[LANES], uint32_t rest[LANES]) {
    for (int i = 0; i < LANES; i++)
        rest[i] = block_at(rng, ig[i], 2).v[0] & REST;
}

#endif

void dpt_rng_words(dpt_rng rng, int64_t ig, int64_t n, uint32_t *words) {
    int64_t i = 0;
    while (i < n) {
        uint64_t at = (uint64_t)(ig + i);
        if (at % 4 == 0 && n - i >= 4 * LANES) {
            blocks_at(rng, at / 4, words + i);
            i += 4 * LANES;
            continue;
        }
        philox4x32_ctr_t block = block_at(rng, at / 4, 0);
        for (unsigned lane = (unsigned)(at % 4); lane < 4 && i < n; lane++)
            words[i++] = block.v[lane];
    }
}

enum { BLOCK = 16, STEP = 4096, FEW = LANES / 4 };

/* Bytes of elements [first, first + n), both multiples of BLOCK. Writes whole batches: room for
 * BLOCK * LANES bytes more is needed. */
static void bytes_at(dpt_rng rng, uint64_t first, int64_t n, uint8_t *bytes) {
    for (int64_t i = 0; i < n;) {
        uint64_t index = (first + (uint64_t)i) / BLOCK;
        if (n - i > FEW * BLOCK) {
            uint32_t words[4 * LANES];
            blocks_at(rng, index, words);
            memcpy(bytes + i, words, sizeof words);
            i += BLOCK * LANES;
        } else {
            philox4x32_ctr_t block = block_at(rng, index, 0);
            memcpy(bytes + i, block.v, BLOCK);
            i += BLOCK;
        }
    }
}

/* The other 24 bits of an element. */
static uint32_t rest_at(dpt_rng rng, uint64_t ig) {
    return block_at(rng, ig, 2).v[0] & REST;
}

/* Up to 64 bytes against the leading bits of the threshold: which are below, which are the same. */
static void compare(const uint8_t *bytes, int n, unsigned lead, uint64_t *below, uint64_t *same) {
    uint64_t wanted = n < 64 ? (UINT64_C(1) << n) - 1 : UINT64_MAX;
#ifdef __AVX512BW__
    const __m512i x = _mm512_loadu_si512(bytes), y = _mm512_set1_epi8((char)lead);
    *below = _mm512_cmplt_epu8_mask(x, y) & wanted;
    *same = _mm512_cmpeq_epi8_mask(x, y) & wanted;
#else
    *below = *same = 0;
    for (int i = 0; i < 64; i++) {
        *below |= (uint64_t)(bytes[i] < lead) << i;
        *same |= (uint64_t)(bytes[i] == lead) << i;
    }
    *below &= wanted;
    *same &= wanted;
#endif
}

/* Elements whose leading bits are those of the threshold, until there are enough for a batch. */
typedef struct waiting {
    uint64_t ig[LANES];
    int64_t at[LANES];
    int count;
} waiting;

static void settle(dpt_rng rng, waiting *w, uint32_t rest, uint64_t *mask) {
    uint32_t drawn[LANES];
    if (w->count > 0)
        rests_at(rng, w->ig, drawn);
    for (int i = 0; i < w->count; i++)
        mask[w->at[i] / 64] |= (uint64_t)(drawn[i] < rest) << (w->at[i] % 64);
    w->count = 0;
}

/* A mask of up to STEP elements. */
static void mask_step(dpt_rng rng, uint64_t ig, int64_t n, uint64_t threshold, uint64_t *mask) {
    uint8_t bytes[STEP + BLOCK + BLOCK * LANES + 64];
    uint64_t from = ig / BLOCK * BLOCK;
    int64_t skip = (int64_t)(ig - from);
    unsigned lead = (unsigned)(threshold >> 24);
    uint32_t rest = threshold & REST;
    waiting w = {.count = 0};
    bytes_at(rng, from, (skip + n + BLOCK - 1) / BLOCK * BLOCK, bytes);
    for (int64_t i = 0; i < n; i += 64) {
        uint64_t same;
        compare(bytes + skip + i, n - i < 64 ? (int)(n - i) : 64, lead, &mask[i / 64], &same);
        for (same = rest > 0 ? same : 0; same != 0; same &= same - 1) {
            w.at[w.count] = i + __builtin_ctzll(same);
            w.ig[w.count] = ig + (uint64_t)w.at[w.count];
            if (++w.count == LANES)
                settle(rng, &w, rest, mask);
        }
    }
    settle(rng, &w, rest, mask);
}

void dpt_rng_mask(dpt_rng rng, int64_t ig, int64_t n, uint64_t threshold, uint64_t *mask) {
    for (int64_t i = 0; i < n; i += STEP) {
        int64_t step = n - i < STEP ? n - i : STEP;
        if (threshold >> 32 == 0) {
            mask_step(rng, (uint64_t)(ig + i), step, threshold, mask + i / 64);
            continue;
        }
        memset(mask + i / 64, 0xff, (size_t)(step + 63) / 64 * sizeof *mask);
        if (step % 64 != 0)
            mask[(i + step) / 64] = (UINT64_C(1) << step % 64) - 1;
    }
}

void dpt_rng_mask_each(dpt_rng rng, int64_t ig, int64_t n, const uint64_t *thresholds,
                       uint64_t *mask) {
    uint8_t bytes[STEP + BLOCK + BLOCK * LANES];
    memset(mask, 0, (size_t)(n + 63) / 64 * sizeof *mask);
    for (int64_t i = 0; i < n; i++) {
        uint64_t at = (uint64_t)(ig + i), from = (uint64_t)(ig + i / STEP * STEP) / BLOCK * BLOCK;
        if (i % STEP == 0) {
            int64_t last = n - i < STEP ? n : i + STEP;
            bytes_at(rng, from, (ig + last - (int64_t)from + BLOCK - 1) / BLOCK * BLOCK, bytes);
        }
        uint64_t lead = bytes[at - from], wanted = thresholds[i] >> 24;
        bool hit = lead < wanted || (lead == wanted && (thresholds[i] & REST) > 0 &&
                                     rest_at(rng, at) < (thresholds[i] & REST));
        mask[i / 64] |= (uint64_t)hit << (i % 64);
    }
}

void dpt_rng_normal(dpt_rng rng, int64_t ig, int64_t n, float *values) {
    for (int64_t i = 0; i < n; i++) {
        philox4x32_ctr_t block = block_at(rng, (uint64_t)(ig + i), 1);
        double radius = sqrt(-2.0 * log(dpt_rng_uniform(block.v[0])));
        double angle = 6.283185307179586476925286766559 * dpt_rng_uniform(block.v[1]);
        values[i] = (float)(radius * cos(angle));
    }
}
