#include "loss_base.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/tensor/shard.h"

#include <inttypes.h>
#include <stdio.h>

typedef struct loss_lm {
    dpt_loss base;
    dpt_lm_data data;
    int64_t batch_tokens;
    int64_t most_tokens; /* of a batch of this replica */
    int64_t most_samples;
} loss_lm;

/* What one evaluation works with. */
typedef struct evaluation {
    const loss_lm *lm;
    const dpt_loss_call *call;
    dpt_loss_sums sums;
    int64_t *first;
    double *weight, *nll, *batch_terms;
    uint8_t *correct;
} evaluation;

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
                         "data: %s has no scored token behind its first: set its loss_mask or "
                         "leave it out",
                         what);
    return DPT_OK;
}

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

/* End of the batch that begins with sample s: as many whole samples as fit, at least one. */
static int64_t batch_end(const loss_lm *lm, int64_t s) {
    int64_t end = s + 1;
    while (end < lm->base.end &&
           lm->data.offsets[end + 1] - lm->data.offsets[s] <= lm->batch_tokens)
        end++;
    return end;
}

static void evaluation_release(evaluation *e) {
    dpt_loss_sums_destroy(&e->sums);
    dpt_mem_free(e->first);
    dpt_mem_free(e->weight);
    dpt_mem_free(e->nll);
    dpt_mem_free(e->batch_terms);
    dpt_mem_free(e->correct);
}

static dpt_status evaluation_prepare(const loss_lm *lm, const dpt_mesh *mesh,
                                     const dpt_model *model, const dpt_loss_call *call,
                                     evaluation *e) {
    *e = (evaluation){.lm = lm, .call = call};
    dpt_status st = dpt_loss_sums_create(&lm->base, mesh, model, call, &e->sums);
    int64_t terms =
        call->mode == DPT_BACKWARD_TERMS ? lm->most_samples * dpt_model_catalog(model)->count : 0;
    e->first = dpt_mem_alloc(lm->most_samples + 1, sizeof *e->first, "batch offsets");
    e->weight = dpt_mem_alloc(lm->most_tokens, sizeof *e->weight, "token weights");
    e->nll = dpt_mem_alloc(lm->most_tokens, sizeof *e->nll, "token losses");
    e->correct = dpt_mem_alloc(lm->most_tokens, sizeof *e->correct, "token hits");
    e->batch_terms = dpt_mem_alloc(terms, sizeof *e->batch_terms, "terms of a batch");
    if (e->first == NULL || e->weight == NULL || e->nll == NULL || e->correct == NULL ||
        e->batch_terms == NULL)
        st = DPT_ERR_OUTPUT;
    return st;
}

/* d loss / d nll of the tokens of a batch: of each sample's own loss for terms, of the mean over
 * samples for the gradient. */
static void set_weights(const evaluation *e, int64_t begin, int64_t end) {
    const dpt_lm_data *data = &e->lm->data;
    bool mean = e->call->mode == DPT_BACKWARD_GRADIENT;
    for (int64_t s = begin; s < end; s++) {
        double share = mean ? dpt_loss_share(&e->lm->base, s) : 1.0;
        double weight = share / (double)dpt_loss_scored_tokens(data, s);
        for (int64_t i = data->offsets[s]; i < data->offsets[s + 1]; i++)
            e->weight[i - data->offsets[begin]] = weight;
    }
}

static void take_sample(evaluation *e, int64_t begin, int64_t s) {
    const dpt_lm_data *data = &e->lm->data;
    int64_t at = data->offsets[s] - data->offsets[begin], length;
    length = data->offsets[s + 1] - data->offsets[s];
    double sum = 0.0;
    bool exact = true;
    for (int64_t i = 1; i < length; i++) {
        if (!data->loss_mask[data->offsets[s] + i])
            continue;
        sum += e->nll[at + i];
        exact = exact && e->correct[at + i];
    }
    dpt_loss_sums_take(&e->sums, s, sum / (double)dpt_loss_scored_tokens(data, s), exact);
    if (e->call->mode == DPT_BACKWARD_TERMS)
        dpt_loss_sums_take_terms(&e->sums, s, 1.0, e->batch_terms + (s - begin) * e->sums.tensors);
}

static dpt_status run_batch(evaluation *e, dpt_model *model, int64_t begin, int64_t end) {
    const dpt_lm_data *data = &e->lm->data;
    int64_t at = data->offsets[begin];
    for (int64_t s = begin; s <= end; s++)
        e->first[s - begin] = data->offsets[s] - at;
    dpt_batch batch = {.sequences = end - begin,
                       .first = e->first,
                       .tokens = data->tokens + at,
                       .mask = data->loss_mask + at};
    set_weights(e, begin, end);
    dpt_status st = dpt_model_run(model, &batch, e->call->t, e->call->mode,
                                  e->call->mode == DPT_BACKWARD_NONE ? NULL : e->weight, e->nll,
                                  e->correct, e->batch_terms, e->call->gradient);
    for (int64_t s = begin; s < end && st == DPT_OK; s++)
        take_sample(e, begin, s);
    return st;
}

static dpt_status evaluate_lm(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model,
                              const dpt_loss_call *call) {
    const loss_lm *lm = (const loss_lm *)loss;
    evaluation e;
    dpt_status st = evaluation_prepare(lm, mesh, model, call, &e);
    if (st == DPT_OK)
        st = dpt_agree_fault("loss.evaluate");
    st = dpt_agree(&mesh->world, st);
    if (st == DPT_OK) {
        /* Replicas run alone: a failed one stops, the others find out at the end. */
        for (int64_t s = loss->begin; s < loss->end && st == DPT_OK;) {
            int64_t end = batch_end(lm, s);
            st = run_batch(&e, model, s, end);
            dpt_loss_report(loss, end);
            s = end;
        }
        st = dpt_loss_sums_finish(&e.sums, mesh, st);
    }
    evaluation_release(&e);
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
    loss_lm *lm = dpt_mem_zalloc(1, sizeof *lm, "loss");
    if (lm == NULL)
        return DPT_ERR_OUTPUT;
    lm->base = (dpt_loss){.samples = data->samples, .evaluate = evaluate_lm, .destroy = destroy_lm};
    lm->data = *data;
    lm->batch_tokens = batch_tokens;
    dpt_shard_split(data->samples, mesh->data.size, mesh->data.rank, &lm->base.begin,
                    &lm->base.end);
    for (int64_t s = lm->base.begin; s < lm->base.end;) {
        int64_t end = batch_end(lm, s);
        int64_t tokens = data->offsets[end] - data->offsets[s];
        lm->most_tokens = tokens > lm->most_tokens ? tokens : lm->most_tokens;
        lm->most_samples = end - s > lm->most_samples ? end - s : lm->most_samples;
        s = end;
    }
    *out = &lm->base;
    return DPT_OK;
}
