#ifndef DELTAPATH_MODEL_BATCH_H
#define DELTAPATH_MODEL_BATCH_H

#include <stddef.h>
#include <stdint.h>

/** Samples of one pass: packed sequences of tokens, or images. Sequence s has the tokens
 * [first[s], first[s + 1]). Positions restart at 0. With images there is one prediction a sample, and
 * first, tokens and mask are not used. */
typedef struct dpt_batch {
    int64_t sequences;
    const int64_t *first;  /**< (sequences + 1) */
    const int32_t *tokens; /**< (first[sequences]) */
    const uint8_t *mask;   /**< (first[sequences]) 1: the prediction of this token is scored; the
                                  mask of a sequence's first token is ignored */
    const float *images;   /**< (sequences, channels, height, width), or NULL: tokens */
    const int32_t *labels; /**< (sequences) class of each image */
} dpt_batch;

/** Predictions of a batch that have a score: its tokens, or its images. */
static inline int64_t dpt_batch_scores(const dpt_batch *batch) {
    return batch->images != NULL ? batch->sequences : batch->first[batch->sequences];
}

#endif
