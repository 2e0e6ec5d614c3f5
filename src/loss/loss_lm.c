#include "sequences.h"

#include "deltapath/base/mem.h"

#include <inttypes.h>
#include <stdio.h>

dpt_status dpt_loss_lm_check(const dpt_lm_data *data, int64_t vocabulary, int64_t max_positions) {
    if (data->samples <= 0)
        return dpt_error(DPT_ERR_INPUT, "data: there are no samples: give at least one");
    if (data->offsets[0] != 0)
        return dpt_error(DPT_ERR_INPUT, "data: the first offset is not 0: prepare the data again");
    dpt_status st = DPT_OK;
    for (int64_t s = 0; s < data->samples && st == DPT_OK; s++) {
        char what[48];
        snprintf(what, sizeof what, "sample %" PRId64, s);
        st = dpt_loss_check_sequence(data, s, what, vocabulary, max_positions);
    }
    return st;
}

static void set_weights(dpt_loss_pass *pass, const dpt_lm_data *data, int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; s++)
        dpt_loss_pass_weigh(pass, s - begin,
                            dpt_loss_pass_weight(pass, s, dpt_loss_scored_tokens(data, s)));
}

static void loss_lm_take_sample(dpt_loss_pass *pass, const dpt_batch *batch, int64_t begin,
                                int64_t i) {
    double sum = 0.0;
    int64_t scored = 0;
    bool exact = true;
    for (int64_t at = batch->first[i] + 1; at < batch->first[i + 1]; at++) {
        if (!batch->mask[at])
            continue;
        sum += pass->nll[at];
        exact = exact && pass->correct[at];
        scored++;
    }
    dpt_loss_pass_take(pass, begin, i, sum / (double)scored, exact);
}

static dpt_status loss_lm_run_batch(dpt_loss_pass *pass, int64_t begin, int64_t end) {
    const dpt_loss_sequences *lm = (const dpt_loss_sequences *)pass->loss;
    dpt_batch batch = dpt_loss_sequences_batch(lm, begin, end, pass->first);
    set_weights(pass, &lm->data, begin, end);
    dpt_status st = dpt_loss_pass_model(pass, &batch, lm->data.offsets[begin], pass->call->mode);
    for (int64_t i = 0; i < end - begin && st == DPT_OK; i++)
        loss_lm_take_sample(pass, &batch, begin, i);
    return st;
}

static void destroy_lm(dpt_loss *loss) {
    dpt_mem_free(loss);
}

dpt_status dpt_loss_lm_create(const dpt_lm_data *data, int64_t vocabulary, int64_t max_positions,
                              const dpt_mesh *mesh, int64_t batch_tokens, dpt_loss **out) {
    *out = NULL;
    dpt_status st = dpt_loss_lm_check(data, vocabulary, max_positions);
    if (st != DPT_OK)
        return st;
    dpt_loss_sequences *lm = dpt_mem_zalloc(1, sizeof *lm, "loss");
    if (lm == NULL)
        return DPT_ERR_OUTPUT;
    lm->base = (dpt_loss){
        .hits = true, .draws = true, .run_batch = loss_lm_run_batch, .destroy = destroy_lm};
    dpt_loss_sequences_init(lm, data, 1, mesh, batch_tokens);
    *out = &lm->base;
    return DPT_OK;
}
