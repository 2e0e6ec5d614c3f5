#ifndef DELTAPATH_SRC_LOSS_SEQUENCES_H
#define DELTAPATH_SRC_LOSS_SEQUENCES_H

#include "loss_base.h"

/** What a loss of token sequences begins with. Sequences [sides s, sides (s + 1)) of the data are those
 * of sample s. */
typedef struct dpt_loss_sequences {
    dpt_loss base;
    dpt_lm_data data;
    int sides;
    int64_t batch_tokens; /**< most tokens of a batch of more than one sample */
} dpt_loss_sequences;

/** Spread the samples over the replicas and cut this one's into batches; sets what all losses of
 * sequences have alike. Local. */
void dpt_loss_sequences_init(dpt_loss_sequences *loss, const dpt_lm_data *data, int sides,
                             const dpt_mesh *mesh, int64_t batch_tokens);

/** The sequences of samples [begin, end). Local. @param[out] first (sequences + 1), borrowed by the
 * batch. */
dpt_batch dpt_loss_sequences_batch(const dpt_loss_sequences *loss, int64_t begin, int64_t end,
                                   int64_t *first);

/** Checks of token data that losses of sequences share; `what` names sequence s, as in "sample 3".
 * Local. Errors: DPT_ERR_INPUT. */
dpt_status dpt_loss_check_sequence(const dpt_lm_data *data, int64_t s, const char *what,
                                   int64_t vocabulary, int64_t max_positions);

/** Tokens of a sequence whose prediction is scored. Local. */
int64_t dpt_loss_scored_tokens(const dpt_lm_data *data, int64_t s);

#endif
