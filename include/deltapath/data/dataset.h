#ifndef DELTAPATH_DATA_DATASET_H
#define DELTAPATH_DATA_DATASET_H

#include "deltapath/base/file.h"
#include "deltapath/comm/comm.h"
#include "deltapath/store/tokenizer.h"

#include <stdint.h>

/** What a data-set file holds: X(constant, attribute `kind` of the file). Each may have `weights` (float)
 * and `cluster` (integers) [samples] too.
 *   TOKENS: `tokens` int32 [total], `loss_mask` uint8 [total], `offsets` int64 [n+1];
 *   PAIRS: the same in each of the groups `chosen` and `rejected`;
 *   IMAGES: `images` float32 [n, c, h, w], `labels` int32 [n]. */
#define DPT_DATASET_LIST(X) X(TOKENS, lm) X(PAIRS, dpo) X(IMAGES, class)

#define DPT_DATASET_CONSTANT(constant, name) DPT_DATASET_##constant,
typedef enum dpt_dataset_kind {
    DPT_DATASET_LIST(DPT_DATASET_CONSTANT) DPT_DATASET_COUNT
} dpt_dataset_kind;

struct dpt_dataset_images;

/** A data-set file, whole on every rank but for its images: tokens are small against a model. */
typedef struct dpt_dataset {
    dpt_dataset_kind kind;
    int64_t samples;

    int64_t
        sequences;    /**< of tokens: samples, or twice that: chosen and rejected of each in turn */
    int64_t *offsets; /**< (sequences + 1) rising from 0 to the number of tokens */
    int32_t *tokens;  /**< (offsets[sequences]) */
    uint8_t *loss_mask; /**< (offsets[sequences]) 1: the prediction of this token is scored */

    int64_t channels, height, width;
    int32_t *labels;                   /**< (samples) at least 0 */
    struct dpt_dataset_images *images; /**< open for dpt_dataset_read_images */

    double *weights; /**< (samples) at least 0, sum above 0; NULL: all count alike */
    int64_t *rows;   /**< (samples) place of each in the file; NULL: their order */
    int64_t *
        clusters; /**< (samples) which samples belong together: numbers from 0 in the order in which they
                            first occur; NULL: none do */
    uint64_t *image_hashes; /**< (samples) of each image; NULL without images */
    int64_t repeats;        /**< samples with weight that are equal to an earlier one */
    double
        effective; /**< how many independent samples repeats and weights leave in effect: (sum w)^2 /
                           sum w^2, w being the weight of all copies of a sample; NaN: not counted */
    uint64_t hash;           /**< XXH3 of all values, for provenance */
    uint64_t whole;          /**< that of the data set of which this is a part; else the same */
    dpt_tokenizer tokenizer; /**< with which the file says that it was made; not part of hash */
    int64_t vocabulary;      /**< the file says that its tokens are below it; 0: does not say */
    dpt_file_identity file;  /**< as rank 0 read it */
    void *block;             /**< what the arrays point into */
} dpt_dataset;

/** Read and check an HDF5 file of this kind.
 *
 * Rank 0 reads and checks, in a child process; the others receive all but the images, which each reads
 * from the file for itself later.
 * Collective over comm (same: path, kind).
 * Errors: DPT_ERR_INPUT naming the file and what is wrong: another SHA-256 than its seal has, no HDF5 file, a missing or empty data
 * set, another type or number of dimensions, lengths that differ, offsets that do not rise from 0 to
 * the number of tokens, a token or label that int32 does not hold, a mask other than 0 and 1, a negative
 * label, a pixel that is not finite, a weight that is negative or not finite, weights of sum 0 or infinite;
 * attributes that say another kind, or a newer version. out is empty on error.
 */
dpt_status dpt_dataset_read(const dpt_comm *comm, const char *path, dpt_dataset_kind kind,
                            dpt_dataset *out);

/** Check that a file whose images are still read is the one that was opened; the other kinds are whole in
 * memory. Collective over comm, agreed. @param[in] path  that was read.
 * Errors: DPT_ERR_INPUT naming the file: "changed while it was read". */
dpt_status dpt_dataset_check_unchanged(const dpt_comm *comm, const dpt_dataset *dataset,
                                       const char *path);

/** Keep the first n samples alone: the data set is then another one, with a hash of its own. Local.
 * Errors: DPT_ERR_INPUT when it has fewer, or no weight among them; the data set is unchanged.
 * @param[in] path  for the message. */
dpt_status dpt_dataset_keep_first(dpt_dataset *dataset, int64_t n, const char *path);

/** Take a share of the samples away, so that what they choose can be judged on the others: `dataset` keeps the others,
 * in their order, `chosen` has these; each is a data set with a hash of its own. Local; the same on all ranks.
 * Computes: samples that are equal (as of dpt_dataset_count_repeats) stay together. Groups are taken in the order of
 *           the word of their first sample in dpt_rng_make(seed, "choose", DPT_RNG_CHOOSE), element = its place among
 *           the samples, until they are round(share n) samples or more, and one group is left.
 * @param[in] share above 0, below 1. @param[in] path  for messages.
 * Errors: DPT_ERR_INPUT when all samples are one group, or a part has no weight; DPT_ERR_OUTPUT without memory. Then
 *         `dataset` is unchanged and `chosen` empty.
 * Determinism: depends on the samples, share and seed alone. */
dpt_status dpt_dataset_split(dpt_dataset *dataset, double share, uint64_t seed, const char *path,
                             dpt_dataset *chosen);

/** Share of the samples, by weight, that have no equal in another data set. Local.
 * Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_dataset_share_apart(const dpt_dataset *dataset, const dpt_dataset *other,
                                   double *share);

/** Count the samples that repeat others, and those in effect, into repeats and effective. Samples are equal
 * when their tokens and masks are, or their images and labels, by XXH3; samples of weight 0 are none.
 * Local. Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_dataset_count_repeats(dpt_dataset *dataset);

void dpt_dataset_destroy(dpt_dataset *dataset); /**< Local; an empty one is allowed. */

/** Images [first, first + n) as (n, channels, height, width) fp32. Local.
 * Errors: DPT_ERR_INPUT naming the file when it cannot be read any more. */
dpt_status dpt_dataset_read_images(const dpt_dataset *dataset, int64_t first, int64_t n,
                                   float *out);

#endif
