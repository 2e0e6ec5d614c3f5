#include "loss_base.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/tensor/shard.h"

#include <inttypes.h>
#include <string.h>

typedef struct loss_lm {
    dpt_loss base;
    dpt_lm_data data;
    int64_t batch_tokens;
    int64_t begin, end;  /* samples of this replica */
    int64_t most_tokens; /* of a batch of this replica */
    int64_t most_samples;
} loss_lm;

/* What one evaluation works with. The results of all samples and tensors lie end to end in `sums`,
 * zero where another replica has them, so that one all-reduce finishes them. */
typedef struct evaluation {
    const loss_lm *lm;
    const dpt_loss_call *call;
    bool speaks; /* one rank of a group brings in what all ranks of it know */
    int tensors;
    double *sums;
    double *losses, *exact, *sample_terms, *terms; /* into sums */
    int64_t *first;
    double *weight, *nll, *batch_terms;
    uint8_t *correct;
} evaluation;

static int64_t scored_tokens(const dpt_lm_data *data, int64_t sample) {
    int64_t n = 0;
    for (int64_t i = data->offsets[sample] + 1; i < data->offsets[sample + 1]; i++)
        n += data->loss_mask[i] != 0;
    return n;
}

static dpt_status check_sample(const dpt_lm_data *data, int64_t s, int64_t vocabulary,
                               int64_t max_positions) {
    int64_t begin = data->offsets[s], end = data->offsets[s + 1];
    if (end <= begin)
        return dpt_error(DPT_ERR_INPUT,
                         "data: offsets do not rise at sample %" PRId64 ": prepare the data again",
                         s);
    if (end - begin > max_positions)
        return dpt_error(DPT_ERR_INPUT,
                         "data: sample %" PRId64 " has %" PRId64
                         " tokens but the model takes %" PRId64 ": shorten it",
                         s, end - begin, max_positions);
    for (int64_t i = begin; i < end; i++)
        if (data->tokens[i] < 0 || data->tokens[i] >= vocabulary)
            return dpt_error(DPT_ERR_INPUT,
                             "data: sample %" PRId64 ": token %d at position %" PRId64
                             " is outside the vocabulary of %" PRId64
                             ": prepare the data with the model's own tokenizer",
                             s, (int)data->tokens[i], i - begin, vocabulary);
    if (scored_tokens(data, s) == 0)
        return dpt_error(DPT_ERR_INPUT,
                         "data: sample %" PRId64 " has no scored token behind its first: set its "
                         "loss_mask or leave it out",
                         s);
    return DPT_OK;
}

static dpt_status check_data(const dpt_lm_data *data, int64_t vocabulary, int64_t max_positions) {
    if (data->samples <= 0)
        return dpt_error(DPT_ERR_INPUT, "data: there are no samples: give at least one");
    if (data->offsets[0] != 0)
        return dpt_error(DPT_ERR_INPUT, "data: the first offset is not 0: prepare the data again");
    dpt_status st = DPT_OK;
    for (int64_t s = 0; s < data->samples && st == DPT_OK; s++)
        st = check_sample(data, s, vocabulary, max_positions);
    return st;
}

/* End of the batch that begins with sample s: as many whole samples as fit, at least one. */
static int64_t batch_end(const loss_lm *lm, int64_t s) {
    int64_t end = s + 1;
    while (end < lm->end && lm->data.offsets[end + 1] - lm->data.offsets[s] <= lm->batch_tokens)
        end++;
    return end;
}

static void evaluation_release(evaluation *e) {
    dpt_mem_free(e->sums);
    dpt_mem_free(e->first);
    dpt_mem_free(e->weight);
    dpt_mem_free(e->nll);
    dpt_mem_free(e->batch_terms);
    dpt_mem_free(e->correct);
}

static int64_t result_count(const evaluation *e) {
    return 3 * e->lm->data.samples + e->tensors;
}

static dpt_status evaluation_prepare(const loss_lm *lm, const dpt_loss_call *call, int tensors,
                                     bool speaks, evaluation *e) {
    *e = (evaluation){.lm = lm, .call = call, .tensors = tensors, .speaks = speaks};
    bool terms = call->mode == DPT_BACKWARD_TERMS;
    int64_t n = lm->data.samples;
    e->sums = dpt_mem_zalloc(result_count(e), sizeof *e->sums, "losses and terms");
    e->first = dpt_mem_alloc(lm->most_samples + 1, sizeof *e->first, "batch offsets");
    e->weight = dpt_mem_alloc(lm->most_tokens, sizeof *e->weight, "token weights");
    e->nll = dpt_mem_alloc(lm->most_tokens, sizeof *e->nll, "token losses");
    e->correct = dpt_mem_alloc(lm->most_tokens, sizeof *e->correct, "token hits");
    e->batch_terms = dpt_mem_alloc(terms ? lm->most_samples * tensors : 0, sizeof *e->batch_terms,
                                   "terms of a batch");
    if (e->sums == NULL || e->first == NULL || e->weight == NULL || e->nll == NULL ||
        e->correct == NULL || e->batch_terms == NULL)
        return DPT_ERR_OUTPUT;
    e->losses = e->sums;
    e->exact = e->losses + n;
    e->sample_terms = e->exact + n;
    e->terms = e->sample_terms + n;
    return DPT_OK;
}

/* d loss / d nll of the tokens of a batch: of each sample's own loss for terms, of the mean over
 * samples for the gradient. */
static void set_weights(const evaluation *e, int64_t begin, int64_t end) {
    const dpt_lm_data *data = &e->lm->data;
    double share = e->call->mode == DPT_BACKWARD_GRADIENT ? 1.0 / (double)data->samples : 1.0;
    for (int64_t s = begin; s < end; s++) {
        double weight = share / (double)scored_tokens(data, s);
        for (int64_t i = data->offsets[s]; i < data->offsets[s + 1]; i++)
            e->weight[i - data->offsets[begin]] = weight;
    }
}

static void take_sample(const evaluation *e, int64_t begin, int64_t s) {
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
    if (e->speaks) {
        e->losses[s] = sum / (double)scored_tokens(data, s);
        e->exact[s] = exact;
    }
    if (e->call->mode != DPT_BACKWARD_TERMS)
        return;
    const double *terms = e->batch_terms + (s - begin) * e->tensors;
    for (int k = 0; k < e->tensors; k++) {
        e->sample_terms[s] += terms[k];
        e->terms[k] += terms[k] / (double)data->samples;
    }
}

static dpt_status run_batch(const evaluation *e, dpt_model *model, int64_t begin, int64_t end) {
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

static void give_results(const evaluation *e) {
    int64_t n = e->lm->data.samples;
    memcpy(e->call->losses, e->losses, (size_t)n * sizeof(double));
    for (int64_t s = 0; e->call->correct != NULL && s < n; s++)
        e->call->correct[s] = e->exact[s] != 0.0;
    if (e->call->mode != DPT_BACKWARD_TERMS)
        return;
    if (e->call->sample_terms != NULL)
        memcpy(e->call->sample_terms, e->sample_terms, (size_t)n * sizeof(double));
    memcpy(e->call->terms, e->terms, (size_t)e->tensors * sizeof(double));
}

static dpt_status evaluate_lm(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model,
                              const dpt_loss_call *call) {
    const loss_lm *lm = (const loss_lm *)loss;
    evaluation e;
    dpt_status st =
        evaluation_prepare(lm, call, dpt_model_catalog(model)->count, mesh->model.rank == 0, &e);
    if (st == DPT_OK)
        st = dpt_agree_fault("loss.evaluate");
    st = dpt_agree(&mesh->world, st);
    if (st != DPT_OK)
        goto done;
    /* Replicas run alone: a failed one stops, the others find out at the end. */
    for (int64_t s = lm->begin; s < lm->end && st == DPT_OK;) {
        int64_t end = batch_end(lm, s);
        st = run_batch(&e, model, s, end);
        s = end;
    }
    st = dpt_agree(&mesh->world, st);
    if (st != DPT_OK)
        goto done;
    st = dpt_agree(&mesh->world, dpt_comm_sum_f64(&mesh->world, e.sums, result_count(&e)));
    if (st == DPT_OK)
        give_results(&e);
done:
    evaluation_release(&e);
    return st;
}

static void destroy_lm(dpt_loss *loss) {
    dpt_mem_free(loss);
}

dpt_status dpt_loss_lm_create(const dpt_lm_data *data, int64_t vocabulary, int64_t max_positions,
                              const dpt_mesh *mesh, int64_t batch_tokens, dpt_loss **out) {
    *out = NULL;
    dpt_status st = check_data(data, vocabulary, max_positions);
    if (st != DPT_OK)
        return st;
    loss_lm *lm = dpt_mem_zalloc(1, sizeof *lm, "loss");
    if (lm == NULL)
        return DPT_ERR_OUTPUT;
    lm->base = (dpt_loss){.samples = data->samples, .evaluate = evaluate_lm, .destroy = destroy_lm};
    lm->data = *data;
    lm->batch_tokens = batch_tokens;
    dpt_shard_split(data->samples, mesh->data.size, mesh->data.rank, &lm->begin, &lm->end);
    for (int64_t s = lm->begin; s < lm->end;) {
        int64_t end = batch_end(lm, s);
        int64_t tokens = data->offsets[end] - data->offsets[s];
        lm->most_tokens = tokens > lm->most_tokens ? tokens : lm->most_tokens;
        lm->most_samples = end - s > lm->most_samples ? end - s : lm->most_samples;
        s = end;
    }
    *out = &lm->base;
    return DPT_OK;
}
