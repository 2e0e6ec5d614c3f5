#include "transformer.h"

#include <inttypes.h>
#include <limits.h>

/* Whether a batch is one that the model can take. */

static dpt_status batch_check_images(const dpt_model *model, const dpt_batch *batch) {
    const dpt_arch *arch = &model->arch;
    int64_t classes = arch->length[DPT_AXIS_VOCABULARY];
    if (batch->sequences < 0 || batch->sequences > INT_MAX / 2 / arch->image_tokens)
        return dpt_error(DPT_ERR_INTERNAL, "model: a batch has too many images");
    for (int64_t s = 0; s < batch->sequences; s++)
        if (batch->labels[s] < 0 || batch->labels[s] >= classes)
            return dpt_error(DPT_ERR_INPUT,
                             "model: label %d of image %" PRId64
                             " of a batch is outside the %" PRId64 " classes: use the model's own",
                             (int)batch->labels[s], s, classes);
    int text = dpt_arch_index(arch, 0, DPT_SLOT_TEXT);
    if (text >= 0 && model->params.items[text].has_delta)
        return dpt_error(DPT_ERR_INPUT,
                         "model: tensor %s differs between the models: the head of class texts is "
                         "fixed; give both models the same and leave it out of the edits",
                         arch->row[DPT_SLOT_TEXT]->name);
    return DPT_OK;
}

static dpt_status batch_check_sequences(const dpt_arch *arch, const dpt_batch *batch,
                                        int64_t *longest) {
    if (batch->sequences < 0 || batch->first[0] != 0 ||
        batch->first[batch->sequences] > INT_MAX / 2)
        return dpt_error(DPT_ERR_INTERNAL,
                         "model: a batch does not start at token 0 or is too long");
    for (int64_t s = 0; s < batch->sequences; s++) {
        int64_t length = batch->first[s + 1] - batch->first[s];
        if (length < 0)
            return dpt_error(DPT_ERR_INTERNAL, "model: the sequences of a batch overlap");
        if (length > arch->max_positions)
            return dpt_error(DPT_ERR_INPUT,
                             "model: a sequence of %" PRId64 " tokens is longer than the %" PRId64
                             " positions of the model: shorten it",
                             length, arch->max_positions);
        *longest = length > *longest ? length : *longest;
    }
    return DPT_OK;
}

static dpt_status batch_check_tokens(const dpt_arch *arch, const dpt_batch *batch) {
    int64_t vocabulary = arch->length[DPT_AXIS_VOCABULARY];
    for (int64_t i = 0; i < batch->first[batch->sequences]; i++)
        if (batch->tokens[i] < 0 || batch->tokens[i] >= vocabulary)
            return dpt_error(DPT_ERR_INPUT,
                             "model: token %d at position %" PRId64
                             " of a batch is outside the vocabulary of %" PRId64
                             ": use the model's own tokenizer",
                             (int)batch->tokens[i], i, vocabulary);
    return DPT_OK;
}

dpt_status dpt_batch_check(const dpt_model *model, const dpt_batch *batch, int64_t *tokens,
                           int64_t *longest) {
    const dpt_arch *arch = &model->arch;
    *tokens = *longest = 0;
    if (arch->side > 0) {
        dpt_status st = batch_check_images(model, batch);
        *longest = arch->image_tokens;
        *tokens = st == DPT_OK ? batch->sequences * *longest : 0;
        return st;
    }
    dpt_status st = batch_check_sequences(arch, batch, longest);
    if (st == DPT_OK)
        st = batch_check_tokens(arch, batch);
    *tokens = st == DPT_OK ? batch->first[batch->sequences] : 0;
    return st;
}
