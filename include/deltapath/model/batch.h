#ifndef DELTAPATH_MODEL_BATCH_H
#define DELTAPATH_MODEL_BATCH_H

#include <stdint.h>

/** Packed sequences: sequence s has the tokens [first[s], first[s + 1]). Positions restart at 0. */
typedef struct dpt_batch {
    int64_t sequences;
    const int64_t *first;  /**< (sequences + 1) */
    const int32_t *tokens; /**< (first[sequences]) */
    const uint8_t *mask;   /**< (first[sequences]) 1: the prediction of this token is scored; the
                                  mask of a sequence's first token is ignored */
} dpt_batch;

#endif
