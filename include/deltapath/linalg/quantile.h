#ifndef DELTAPATH_LINALG_QUANTILE_H
#define DELTAPATH_LINALG_QUANTILE_H

#include "deltapath/comm/comm.h"
#include "deltapath/tensor/part.h"
#include "deltapath/tensor/shard.h"

#include <stdbool.h>
#include <stdint.h>

/** Total order of the entries of a group by falling magnitude, equal magnitudes by rising position
 * (tensor, then element index): "before" means larger or earlier. A cut splits it exactly. */
typedef struct dpt_cut {
    uint32_t bits; /**< |value| as fp32 bits: entries with larger bits are before the cut */
    int tensor;    /**< equal entries are before the cut up to and including this position */
    int64_t ig;    /**< -1 in the first tensor of the group when no equal entry is */
} dpt_cut;

/** Whether an entry is among the `count` largest that the cut was made for. Local. */
static inline int dpt_cut_keeps(const dpt_cut *cut, uint32_t bits, int tensor, int64_t ig) {
    if (bits != cut->bits)
        return bits > cut->bits;
    return tensor < cut->tensor || (tensor == cut->tensor && ig <= cut->ig);
}

/** One selection: the cut after the `count` largest magnitudes of the group. */
typedef struct dpt_quantile_target {
    int group;     /**< tensors, or parts, with that group_of take part */
    int64_t count; /**< 0 .. elements of the group */
} dpt_quantile_target;

/** Gives the values of a run of an own cell. Local. @param[out] values (range.n) fp32. */
typedef dpt_status (*dpt_quantile_values_fn)(void *ctx, dpt_range range, float *values);

/** Gives two runs of bf16 of which the values of a run of an own cell are the differences, after - before in fp32, where they
 * are that: they are then taken in registers. Local. @param[out] before, after (range.n), valid until the next call of either
 * function; NULL: the values are something else. */
typedef dpt_status (*dpt_quantile_pair_fn)(void *ctx, dpt_range range, const uint16_t **before,
                                           const uint16_t **after);

/** Where values come from. */
typedef struct dpt_quantile_source {
    dpt_quantile_values_fn values;
    dpt_quantile_pair_fn pair; /**< NULL: the values are no such differences */
    void *ctx;
} dpt_quantile_source;

/** Exact distributed selection without gathering the values. A sample of the values, 512 of each 32768,
 * tells between which two magnitudes each cut falls; one pass over all values counts what is above and
 * keeps the few magnitudes that are strictly inside; histograms of their bits, in three steps of
 * 11 + 10 + 10, find the cut, and then the position of the last equal entry (that of the last element
 * of the group when all equal entries are before the cut). Where the sample misled or what is inside is
 * more than a quarter of the values or than half of the memory left, the histograms are taken of all
 * values instead, in three passes.
 *
 * Collective over comm (same: parts, targets, group_of). Each rank reads its own cells once, the sample, and the
 * cell of a cut once more. A count of 0 gives the bits of the largest entry and ig = -1.
 * @param[in]  parts    NULL: groups are of tensors; else of parts, each in a group of its own.
 * @param[in]  group_of (tensors of shard's catalog, or parts) group of each, or -1: takes no part.
 * @param[out] cuts     (targets) the same bits on all ranks and at any number of ranks.
 * Errors: DPT_ERR_INTERNAL for a count out of range; what the source returns, agreed; `values` is asked for a pair's
 * differences that are not finite.
 */
dpt_status dpt_quantile_select(const dpt_comm *comm, const dpt_shard *shard, const dpt_parts *parts,
                               const int *group_of, int64_t ntargets,
                               const dpt_quantile_target *targets,
                               const dpt_quantile_source *source, dpt_cut *cuts);

#define DPT_QUANTILE_ONE_OF 64 /**< of so many values one is in the sample */
/** Share of the values that are read for the sample; how often all of them are read where it finds all brackets, and
 * where it misleads one of the searches, as it does for embeddings, of which training moves some rows alone. */
#define DPT_QUANTILE_SAMPLED (1.0 / DPT_QUANTILE_ONE_OF)
#define DPT_QUANTILE_READS   (DPT_QUANTILE_SAMPLED + 1.0)
#define DPT_QUANTILE_MISLED  3.0 /* more */

/** Bytes that the rank with the most needs for a selection: an estimate, as what lies between the magnitudes of the sample
 * depends on the values. Local.
 * @param[in] covers   (tensors) those that take part; NULL: all.
 * @param[in] together whether they are one group; else each is its own. @param[in] targets of each group. */
int64_t dpt_quantile_bytes(const dpt_shard *shard, const bool *covers, bool together, int targets);

#endif
