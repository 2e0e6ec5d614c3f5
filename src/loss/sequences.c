#include "sequences.h"

#include "deltapath/tensor/shard.h"

#include <inttypes.h>

int64_t dpt_loss_scored_tokens(const dpt_lm_data *data, int64_t s) {
    int64_t n = 0;
    for (int64_t i = data->offsets[s] + 1; i < data->offsets[s + 1]; i++)
        n += data->loss_mask[i] != 0;
    return n;
}

dpt_status dpt_loss_check_sequence(const dpt_lm_data *data, int64_t s, const char *what,
                                   int64_t vocabulary, int64_t max_positions) {
    int64_t begin = data->offsets[s], end = data->offsets[s + 1];
    if (end <= begin)
        return dpt_error(DPT_ERR_INPUT, "data: offsets do not rise at %s: prepare the data again",
                         what);
    if (end - begin > max_positions)
        return dpt_error(DPT_ERR_INPUT,
                         "data: %s has %" PRId64 " tokens but the model takes %" PRId64
                         ": shorten it",
                         what, end - begin, max_positions);
    for (int64_t i = begin; i < end; i++)
        if (data->tokens[i] < 0 || data->tokens[i] >= vocabulary)
            return dpt_error(DPT_ERR_INPUT,
                             "data: %s: token %d at position %" PRId64
                             " is outside the vocabulary of %" PRId64
                             ": prepare the data with the model's own tokenizer",
                             what, (int)data->tokens[i], i - begin, vocabulary);
    if (dpt_loss_scored_tokens(data, s) == 0)
        return dpt_error(DPT_ERR_INPUT,
                         "data: %s has no scored token after its first: set its loss_mask or "
                         "leave it out",
                         what);
    return DPT_OK;
}

static int64_t tokens_of(const dpt_loss_sequences *loss, int64_t begin, int64_t end) {
    return loss->data.offsets[loss->sides * end] - loss->data.offsets[loss->sides * begin];
}

/* As many whole samples as fit, at least one. */
static int64_t sequences_batch_end(const dpt_loss *base, int64_t s) {
    const dpt_loss_sequences *loss = (const dpt_loss_sequences *)base;
    int64_t end = s + 1;
    while (end < base->end && tokens_of(loss, s, end + 1) <= loss->batch_tokens)
        end++;
    return end;
}

void dpt_loss_sequences_init(dpt_loss_sequences *loss, const dpt_lm_data *data, int sides,
                             const dpt_mesh *mesh, int64_t batch_tokens) {
    dpt_loss *base = &loss->base;
    loss->data = *data;
    loss->sides = sides;
    loss->batch_tokens = batch_tokens;
    base->samples = data->samples / sides;
    base->batch_end = sequences_batch_end;
    dpt_shard_split(base->samples, mesh->data.size, mesh->data.rank, &base->begin, &base->end);
    for (int64_t s = base->begin; s < base->end;) {
        int64_t end = sequences_batch_end(base, s);
        int64_t tokens = tokens_of(loss, s, end), sequences = sides * (end - s);
        base->most_scores = tokens > base->most_scores ? tokens : base->most_scores;
        base->most_sequences = sequences > base->most_sequences ? sequences : base->most_sequences;
        s = end;
    }
}

dpt_batch dpt_loss_sequences_batch(const dpt_loss_sequences *loss, int64_t begin, int64_t end,
                                   int64_t *first) {
    const dpt_lm_data *data = &loss->data;
    int64_t from = loss->sides * begin, at = data->offsets[from], n = loss->sides * (end - begin);
    for (int64_t i = 0; i <= n; i++)
        first[i] = data->offsets[from + i] - at;
    return (dpt_batch){
        .sequences = n, .first = first, .tokens = data->tokens + at, .mask = data->loss_mask + at};
}
