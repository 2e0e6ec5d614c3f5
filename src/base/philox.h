#ifndef DELTAPATH_SRC_BASE_PHILOX_H
#define DELTAPATH_SRC_BASE_PHILOX_H

/* Batches of Philox4x32-10 blocks: ten rounds over independent lanes, with AVX-512 where the build has
 * it. Both forms give the words of the library. Private to src/base. */

#include "deltapath/base/rng.h"

#include <Random123/philox.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

enum { PHILOX_BATCH = 32 }; /* blocks of a batch */

/* One block, by the library. The counter is {index low, index high, purpose, last}. */
static inline philox4x32_ctr_t philox_block(dpt_rng rng, uint64_t index, uint32_t last) {
    philox4x32_ctr_t counter = {{(uint32_t)index, (uint32_t)(index >> 32), rng.purpose, last}};
    philox4x32_key_t key = {{(uint32_t)rng.key, (uint32_t)(rng.key >> 32)}};
    return philox4x32(counter, key);
}

/* The keys of the rounds, for instructions that take them from memory. */
static inline dpt_rng_keys philox_schedule(dpt_rng rng) {
    dpt_rng_keys keys;
    for (uint32_t round = 0; round < DPT_RNG_ROUNDS; round++) {
        keys.k0[round] = (uint32_t)rng.key + round * PHILOX_W32_0;
        keys.k1[round] = (uint32_t)(rng.key >> 32) + round * PHILOX_W32_1;
    }
    return keys;
}

#ifdef __AVX512F__

enum { PHILOX_GROUP = 8, PHILOX_GROUPS = PHILOX_BATCH / PHILOX_GROUP };

/* Four words of the blocks of a batch. A 64-bit lane is a block: its low half holds the word, what is
 * above it is never looked at. Four vectors at a time hide the latency of the multiplications. */
typedef struct philox_lanes {
    __m512i c0[PHILOX_GROUPS], c1[PHILOX_GROUPS], c2[PHILOX_GROUPS], c3[PHILOX_GROUPS];
} philox_lanes;

/* On entry c0 holds the indices of the blocks, of 64 bits. */
static inline __attribute__((always_inline)) void
philox_rounds(dpt_rng rng, const dpt_rng_keys *keys, uint32_t last, philox_lanes *x) {
    const __m512i m0 = _mm512_set1_epi64(PHILOX_M4x32_0), m1 = _mm512_set1_epi64(PHILOX_M4x32_1);
    for (int g = 0; g < PHILOX_GROUPS; g++) {
        x->c1[g] = _mm512_srli_epi64(x->c0[g], 32);
        x->c2[g] = _mm512_set1_epi64(rng.purpose);
        x->c3[g] = _mm512_set1_epi64(last);
    }
    for (int round = 0; round < DPT_RNG_ROUNDS; round++) {
        const __m512i key0 = _mm512_set1_epi64((int64_t)keys->k0[round]);
        const __m512i key1 = _mm512_set1_epi64((int64_t)keys->k1[round]);
        for (int g = 0; g < PHILOX_GROUPS; g++) {
            __m512i p0 = _mm512_mul_epu32(x->c0[g], m0), p1 = _mm512_mul_epu32(x->c2[g], m1);
            x->c0[g] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p1, 32), x->c1[g], key0, 0x96);
            x->c2[g] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p0, 32), x->c3[g], key1, 0x96);
            x->c1[g] = p1;
            x->c3[g] = p0;
        }
    }
}

/* Blocks [index, index + PHILOX_BATCH), the four words of each end to end: 64 bytes, that is 4 blocks,
 * in each vector. */
static inline __attribute__((always_inline)) void philox_batch(dpt_rng rng,
                                                               const dpt_rng_keys *keys,
                                                               uint64_t index,
                                                               __m512i blocks[2 * PHILOX_GROUPS]) {
    const __m512i lane = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i first = _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0);
    const __m512i second = _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4);
    philox_lanes x;
    for (int g = 0; g < PHILOX_GROUPS; g++)
        x.c0[g] = _mm512_add_epi64(_mm512_set1_epi64((int64_t)(index + (uint64_t)g * PHILOX_GROUP)),
                                   lane);
    philox_rounds(rng, keys, 0, &x);
    for (int g = 0; g < PHILOX_GROUPS; g++) {
        __m512i low = _mm512_mask_blend_epi32(0xAAAA, x.c0[g], _mm512_slli_epi64(x.c1[g], 32));
        __m512i high = _mm512_mask_blend_epi32(0xAAAA, x.c2[g], _mm512_slli_epi64(x.c3[g], 32));
        blocks[2 * g] = _mm512_permutex2var_epi64(low, first, high);
        blocks[2 * g + 1] = _mm512_permutex2var_epi64(low, second, high);
    }
}

static inline void philox_blocks(dpt_rng rng, const dpt_rng_keys *keys, uint64_t index,
                                 uint32_t words[4 * PHILOX_BATCH]) {
    __m512i blocks[2 * PHILOX_GROUPS];
    philox_batch(rng, keys, index, blocks);
    for (int v = 0; v < 2 * PHILOX_GROUPS; v++)
        _mm512_storeu_si512(words + 16 * v, blocks[v]);
}

#else

static inline void philox_blocks(dpt_rng rng, const dpt_rng_keys *keys, uint64_t index,
                                 uint32_t words[4 * PHILOX_BATCH]) {
    uint32_t c0[PHILOX_BATCH], c1[PHILOX_BATCH], c2[PHILOX_BATCH], c3[PHILOX_BATCH];
    for (int i = 0; i < PHILOX_BATCH; i++) {
        uint64_t at = index + (uint64_t)i;
        c0[i] = (uint32_t)at;
        c1[i] = (uint32_t)(at >> 32);
        c2[i] = rng.purpose;
        c3[i] = 0;
    }
    for (int round = 0; round < DPT_RNG_ROUNDS; round++) {
        uint32_t k0 = (uint32_t)keys->k0[round], k1 = (uint32_t)keys->k1[round];
        for (int i = 0; i < PHILOX_BATCH; i++) {
            uint64_t m0 = (uint64_t)c0[i] * PHILOX_M4x32_0;
            uint64_t m1 = (uint64_t)c2[i] * PHILOX_M4x32_1;
            c0[i] = (uint32_t)(m1 >> 32) ^ c1[i] ^ k0;
            c2[i] = (uint32_t)(m0 >> 32) ^ c3[i] ^ k1;
            c1[i] = (uint32_t)m1;
            c3[i] = (uint32_t)m0;
        }
    }
    for (int i = 0; i < PHILOX_BATCH; i++) {
        words[4 * i] = c0[i];
        words[4 * i + 1] = c1[i];
        words[4 * i + 2] = c2[i];
        words[4 * i + 3] = c3[i];
    }
}

#endif
#endif
