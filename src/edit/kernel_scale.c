#include "kernel.h"

#include "lanes.h"

/* Edits that are one factor for each delta, from the stored values to the stored values without a
 * stop, in runs whose mask stays near. */

enum { RUN = 2048, UNIT = 2 * WIDTH };

/* Sums of a piece, in lanes. */
typedef struct lane_sums {
    floats delta[2], edit[2];
    ints changed;
} lane_sums;

/* One vector to its place, and the sums of delta and E. */
static inline void edit_vector(const uint16_t *pre, const uint16_t *post, floats factor,
                               uint16_t *out, floats *delta, floats *edit, ints *changed) {
    floats before = load_bf16(pre, 0), after = load_bf16(post, 0);
    floats d = after - before;
    floats e = store_bf16(before + d * factor, out, 0) - after;
    *delta += d * d;
    *edit += e * e;
    *changed -= (ints)(e != 0.0f);
}

/* A run of n elements, a multiple of UNIT, with a bit of the mask for each. */
static void edit_run(const uint16_t *pre, const uint16_t *post, int64_t n, const uint64_t *mask,
                     floats kept, floats dropped, uint16_t *out, lane_sums *sums) {
    lane_sums s = *sums;
    for (int64_t i = 0; i < n; i += UNIT) {
        uint64_t bits = mask[i / 64] >> (i % 64);
        edit_vector(pre + i, post + i, choose(bits, kept, dropped), out + i, &s.delta[0],
                    &s.edit[0], &s.changed);
        edit_vector(pre + i + WIDTH, post + i + WIDTH, choose(bits >> WIDTH, kept, dropped),
                    out + i + WIDTH, &s.delta[1], &s.edit[1], &s.changed);
    }
    *sums = s;
}

bool dpt_edit_kernel_scale(const dpt_edit_factors *factors, int64_t ig, int64_t n, const void *pre,
                           const void *post, void *out, double sums[DPT_EDIT_SUMS]) {
    if (n % UNIT != 0)
        return false;
    uint64_t mask[RUN / 64] = {0};
    floats kept = (floats){0} + factors->kept, dropped = (floats){0} + factors->dropped;
    lane_sums lanes = {.changed = {0}};
    for (int64_t at = 0; at < n; at += RUN) {
        int64_t run = n - at < RUN ? n - at : RUN;
        if (factors->threshold > 0)
            dpt_rng_mask(factors->rng, ig + at, run, factors->threshold, mask);
        edit_run((const uint16_t *)pre + at, (const uint16_t *)post + at, run, mask, kept, dropped,
                 (uint16_t *)out + at, &lanes);
    }
    int changed = 0;
    for (int l = 0; l < WIDTH; l++)
        changed += lanes.changed[l];
    sums[DPT_EDIT_SUM_DELTA] = fold(lanes.delta[0]) + fold(lanes.delta[1]);
    sums[DPT_EDIT_SUM_EDIT] = fold(lanes.edit[0]) + fold(lanes.edit[1]);
    sums[DPT_EDIT_SUM_CHANGED] = (double)changed;
    return trusted(sums[DPT_EDIT_SUM_DELTA]) &&
           (trusted(sums[DPT_EDIT_SUM_EDIT]) || (changed == 0 && sums[DPT_EDIT_SUM_EDIT] == 0.0));
}
