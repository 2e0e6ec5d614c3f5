#include "deltapath/base/rng.h"

#include "philox.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/hash.h"

#include <math.h>

dpt_rng dpt_rng_make(uint64_t seed, const char *name, uint32_t purpose) {
    uint64_t key = dpt_hash_string(name) ^ (seed * UINT64_C(0x9E3779B97F4A7C15));
    return (dpt_rng){.key = key, .purpose = purpose};
}

void dpt_rng_words(dpt_rng rng, int64_t ig, int64_t n, uint32_t *words) {
    DPT_ASSERT(ig >= 0 && n <= INT64_MAX - ig);
    dpt_rng_keys keys = philox_schedule(rng);
    int64_t i = 0;
    while (i < n) {
        uint64_t at = (uint64_t)(ig + i);
        if (at % 4 == 0 && n - i >= 4 * PHILOX_BATCH) {
            philox_blocks(rng, &keys, at / 4, words + i);
            i += 4 * PHILOX_BATCH;
            continue;
        }
        philox4x32_ctr_t block = philox_block(rng, at / 4, 0);
        for (unsigned lane = (unsigned)(at % 4); lane < 4 && i < n; lane++)
            words[i++] = block.v[lane];
    }
}

void dpt_rng_normal(dpt_rng rng, int64_t ig, int64_t n, float *values) {
    DPT_ASSERT(ig >= 0 && n <= INT64_MAX - ig);
    for (int64_t i = 0; i < n; i++) {
        philox4x32_ctr_t block = philox_block(rng, (uint64_t)(ig + i), 1);
        double radius = sqrt(-2.0 * log(dpt_rng_uniform(block.v[0])));
        double angle = 6.283185307179586476925286766559 * dpt_rng_uniform(block.v[1]);
        values[i] = (float)(radius * cos(angle));
    }
}
