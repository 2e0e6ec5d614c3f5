#ifndef DELTAPATH_SRC_EDIT_KERNEL_H
#define DELTAPATH_SRC_EDIT_KERNEL_H

/* The two ends of an edit, fused for speed: stored values to deltas, and edited deltas to stored
 * values. Private to src/edit. */

#include "stage.h"

/** What a run of stored elements looks like. */
typedef struct dpt_edit_types {
    dpt_dtype pre, post, out;
} dpt_edit_types;

/** delta = post - pre of a piece, and the sum of its squares (1e-6 relative).
 * @param[in]  pre, post (n) stored; @param[out] delta (n); @param[out] square or NULL.
 * @param      spare (n) scratch.
 * @param[in]  out    where the piece will be stored soon, prefetched; or NULL.
 * @return false when a delta is NaN or infinite. Local. */
bool dpt_edit_kernel_delta(dpt_edit_types types, const void *pre, const void *post, int64_t n,
                           float *delta, float *spare, double *square, const void *out);

/** Sum of |post - pre| of a piece of bf16, with the bits of dpt_reduce_abs, and how many of these are 0.
 * @param[in] n a multiple of DPT_EDIT_UNIT, at most 2^30. @return NaN or infinite when a delta is. Local. */
enum { DPT_EDIT_UNIT = 32 };
double dpt_edit_kernel_abs(const uint16_t *pre, const uint16_t *post, int64_t n, double *zeros);

/** out = round(pre + delta) of a piece. Sets of its sums the squares of E = out - post (1e-6 relative), how
 * many are not zero, how many values another type than post's rounds to 0, and the sizes of E before and after it is
 * rounded.
 * @param[in,out] delta (n) edited deltas, overwritten; @param spare (2, n) scratch.
 * @return false when a value of E is NaN or infinite. Local. */
bool dpt_edit_kernel_store(dpt_edit_types types, const void *pre, const void *post, int64_t n,
                           float *delta, void *out, float *spare, double sums[DPT_EDIT_SUMS]);

/** Both ends and the edit at once, for an edit that is one rule for each delta, bf16 in and out.
 * @param[in]  ig  index of the first element; @param[in] pre, post (n) stored; @param[out] out (n).
 * @param[out] sums (pieces) of each piece of DPT_EDIT_PIECE elements.
 * @param[out] done (pieces) false: the piece must be done by the other kernels. That is so where float
 *             cannot hold its sums, and for a last piece that does not end with a vector.
 * Local. */
void dpt_edit_kernel_fused(const dpt_edit_fused *edit, int64_t ig, int64_t n, const void *pre,
                           const void *post, void *out, double (*sums)[DPT_EDIT_SUMS], bool *done);

/** One of several edits with masks, of which nothing is kept but its sums. */
typedef struct dpt_edit_summed {
    const dpt_edit_fused *edit;
    double (*sums)[DPT_EDIT_SUMS]; /**< (pieces) out, to the bit those of dpt_edit_kernel_fused */
    bool *done;                    /**< (pieces) out, as there */
} dpt_edit_summed;

/** The sums of up to DPT_EDIT_SUMMED edits at once, bf16 in and out, each with DPT_EDIT_RULE_MASK.
 * @param[in] ig, n, pre, post  as of dpt_edit_kernel_fused. Local. */
enum { DPT_EDIT_SUMMED = 4 };
void dpt_edit_kernel_summed(int count, const dpt_edit_summed *edits, int64_t ig, int64_t n,
                            const void *pre, const void *post);

#endif
