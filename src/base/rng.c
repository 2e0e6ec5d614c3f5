#include "deltapath/base/rng.h"

#include "deltapath/base/hash.h"

#include <Random123/philox.h>
#include <math.h>

dpt_rng dpt_rng_make(uint64_t seed, const char *name, uint32_t purpose) {
    uint64_t key = dpt_hash_text(name) ^ (seed * UINT64_C(0x9E3779B97F4A7C15));
    return (dpt_rng){.key = key, .purpose = purpose};
}

static philox4x32_ctr_t block_at(dpt_rng rng, uint64_t index, uint32_t last) {
    philox4x32_ctr_t counter = {{(uint32_t)index, (uint32_t)(index >> 32), rng.purpose, last}};
    philox4x32_key_t key = {{(uint32_t)rng.key, (uint32_t)(rng.key >> 32)}};
    return philox4x32(counter, key);
}

/* A batch of blocks in structure-of-arrays form: ten rounds over independent lanes vectorise. */
enum { LANES = 32 };

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

void dpt_rng_normal(dpt_rng rng, int64_t ig, int64_t n, float *values) {
    for (int64_t i = 0; i < n; i++) {
        philox4x32_ctr_t block = block_at(rng, (uint64_t)(ig + i), 1);
        double radius = sqrt(-2.0 * log(dpt_rng_uniform(block.v[0])));
        double angle = 6.283185307179586476925286766559 * dpt_rng_uniform(block.v[1]);
        values[i] = (float)(radius * cos(angle));
    }
}
