#ifndef DELTAPATH_BASE_RNG_H
#define DELTAPATH_BASE_RNG_H

#include <stdbool.h>
#include <stdint.h>

/** One random stream: a pure function from a 64-bit element index to 32 random bits.
 * Philox4x32-10 (Salmon et al., SC 2011) with key = {low, high} words of `key` and
 * counter = {low, high} words of ig / 4, `purpose`, 0; element ig takes word ig % 4. */
typedef struct dpt_rng {
    uint64_t key;
    uint32_t purpose;
} dpt_rng;

enum { /**< what a stream is drawn for, so that two uses of one seed and name never meet */
       DPT_RNG_MASK = 0,
       DPT_RNG_MAGNITUDE = 1,
       DPT_RNG_SKETCH = 2,
       DPT_RNG_BOOTSTRAP = 3,
       DPT_RNG_LABEL = 4,
       DPT_RNG_CHOOSE = 5,
       DPT_RNG_SIGN = 6,
       DPT_RNG_SYNTHETIC = 7,
       DPT_RNG_SYNTHETIC_DELTA = 8
};

/** Stream of (seed, name, purpose): key = XXH3-64(name) xor (seed * 0x9E3779B97F4A7C15). Local.
 * Determinism: depends on its arguments alone; never on ranks, order or machine. */
dpt_rng dpt_rng_make(uint64_t seed, const char *name, uint32_t purpose);

/** Words of elements [ig, ig + n). @param[out] words (n). Local. */
void dpt_rng_words(dpt_rng rng, int64_t ig, int64_t n, uint32_t *words);

/** Which of the elements [ig, ig + n) an event of probability threshold / 2^32 happens to. It happens
 * when the element's 32-bit uniform u is below the threshold. The leading 8 bits of u are byte ig % 16
 * of the Philox block of counter {low, high of ig / 16, purpose, 0} (its four words end to end, little
 * endian); the other 24 are the low bits of word 0 of the block of counter {low, high of ig, purpose,
 * 2}, which is needed only where the leading bits are those of the threshold. So 16 elements share a
 * block, and the probability is exact, 0 and 1 too.
 * @param[in]  threshold  dpt_rng_threshold(p), in [0, 2^32].
 * @param[out] mask       ((n + 63) / 64) bit i % 64 of word i / 64 belongs to element ig + i; the bits
 *                        beyond n are 0.
 * Local. */
void dpt_rng_mask(dpt_rng rng, int64_t ig, int64_t n, uint64_t threshold, uint64_t *mask);

/** Keys of the rounds of Philox. */
enum { DPT_RNG_ROUNDS = 10 };
typedef struct dpt_rng_keys {
    uint64_t k0[DPT_RNG_ROUNDS], k1[DPT_RNG_ROUNDS];
} dpt_rng_keys;

/** A mask under way, of elements from ig on. */
enum { DPT_RNG_DRAW = 4096 };
typedef struct dpt_rng_draw {
    dpt_rng rng;
    uint64_t ig, threshold;
    dpt_rng_keys keys;
    int64_t n;                            /**< elements so far */
    uint64_t same[DPT_RNG_DRAW / 64 + 8]; /**< whose leading bits are those of the threshold */
    uint64_t mask[DPT_RNG_DRAW / 64 + 8]; /**< as of dpt_rng_mask, once it is known */
} dpt_rng_draw;

/** dpt_rng_mask in steps, for a caller that has other work to put between: begin; append the bits
 * that the leading bits of the next n elements decide, up to DPT_RNG_DRAW in all, n being a multiple
 * of 64 but for the last ones; and settle the open elements.
 * @param[in] threshold below 2^32. Local. */
void dpt_rng_draw_begin(dpt_rng_draw *draw, dpt_rng rng, int64_t ig, uint64_t threshold);
void dpt_rng_draw_lead(dpt_rng_draw *draw, int64_t n);
void dpt_rng_draw_settle(dpt_rng_draw *draw);

/** dpt_rng_draw_lead for several masks at once whose draws differ in their thresholds alone: what is random is drawn once.
 * @param[in,out] draws (count) of one stream, element and length. Local. */
void dpt_rng_draw_leads(int count, dpt_rng_draw *const *draws, int64_t n);

/** Begin again at another element. Local. */
static inline void dpt_rng_draw_move(dpt_rng_draw *draw, int64_t ig) {
    draw->ig = (uint64_t)ig;
    draw->n = 0;
}

/** The same draw with a threshold for each element, below 2^32. @param[in] thresholds (n). Local. */
void dpt_rng_mask_each(dpt_rng rng, int64_t ig, int64_t n, const uint32_t *thresholds,
                       uint64_t *mask);

/** Bit i of a mask. */
static inline bool dpt_rng_mask_bit(const uint64_t *mask, int64_t i) {
    return mask[i / 64] >> (i % 64) & 1;
}

/** Word w as a number in (0, 1): (w + 0.5) / 2^32, exact in double. */
static inline double dpt_rng_uniform(uint32_t word) {
    return ((double)word + 0.5) * 0x1p-32;
}

/** Threshold of an event of probability p in [0, 1]: round(p * 2^32). */
static inline uint64_t dpt_rng_threshold(double p) {
    return (uint64_t)(p * 0x1p32 + 0.5);
}

/** Standard normal values of elements [ig, ig + n), by the inverse error function free Box-Muller
 * form on two words of a counter of their own: radius from word 0, angle from word 1 of
 * counter {ig low, ig high, purpose, 1}. @param[out] values (n). Local. */
void dpt_rng_normal(dpt_rng rng, int64_t ig, int64_t n, float *values);

#endif
