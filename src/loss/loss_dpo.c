#include "loss_base.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/tensor/shard.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const double ROUNDING = 1e-6; /* of a log-probability, relative */

/* Sequences 2 s and 2 s + 1 of the data are the sides of sample s. */
typedef struct loss_dpo {
    dpt_loss base;
    dpt_dpo_data data;
    double *reference; /* (samples, 2) log-probabilities; NULL until they are set */
    int64_t batch_tokens;
    int64_t most_tokens; /* of a batch of this replica */
    int64_t most_samples;
} loss_dpo;

/* What one pass over the batches works with. */
typedef struct evaluation {
    const loss_dpo *dpo;
    int tensors;
    double t;
    int64_t *first;       /* (2 most_samples + 1) */
    double *weight, *nll; /* (most_tokens) */
    double *logp;         /* (most_samples, 2) of the batch */
    double *batch_terms;  /* (most_samples, 2, tensors) */
} evaluation;

dpt_status dpt_loss_dpo_check(const dpt_dpo_data *data, int64_t vocabulary, int64_t max_positions) {
    const dpt_lm_data *pairs = &data->pairs;
    if (pairs->samples <= 0 || pairs->samples % 2 != 0)
        return dpt_error(DPT_ERR_INPUT, "data: there are no pairs: give at least one");
    if (!(data->beta > 0.0) || isinf(data->beta))
        return dpt_error(DPT_ERR_INPUT, "data: beta is %g: it is finite and above 0", data->beta);
    if (pairs->offsets[0] != 0)
        return dpt_error(DPT_ERR_INPUT, "data: the first offset is not 0: prepare the data again");
    dpt_status st = DPT_OK;
    for (int64_t s = 0; s < pairs->samples && st == DPT_OK; s++) {
        char what[64];
        snprintf(what, sizeof what, "the %s of sample %" PRId64, s % 2 ? "rejected" : "chosen",
                 s / 2);
        st = dpt_loss_check_sequence(pairs, s, what, vocabulary, max_positions);
    }
    return st;
}

static int64_t tokens_of(const loss_dpo *dpo, int64_t begin, int64_t end) {
    return dpo->data.pairs.offsets[2 * end] - dpo->data.pairs.offsets[2 * begin];
}

/* End of the batch that begins with sample s: as many whole samples as fit, at least one. */
static int64_t batch_end(const loss_dpo *dpo, int64_t s) {
    int64_t end = s + 1;
    while (end < dpo->base.end && tokens_of(dpo, s, end + 1) <= dpo->batch_tokens)
        end++;
    return end;
}

static void evaluation_release(evaluation *e) {
    dpt_mem_free(e->first);
    dpt_mem_free(e->weight);
    dpt_mem_free(e->nll);
    dpt_mem_free(e->logp);
    dpt_mem_free(e->batch_terms);
}

static dpt_status evaluation_prepare(const loss_dpo *dpo, const dpt_model *model, double t,
                                     dpt_model_backward mode, evaluation *e) {
    *e = (evaluation){.dpo = dpo, .tensors = dpt_model_catalog(model)->count, .t = t};
    int64_t n = dpo->most_samples;
    e->first = dpt_mem_alloc(2 * n + 1, sizeof *e->first, "batch offsets");
    e->weight = dpt_mem_alloc(dpo->most_tokens, sizeof *e->weight, "token weights");
    e->nll = dpt_mem_alloc(dpo->most_tokens, sizeof *e->nll, "token losses");
    e->logp = dpt_mem_alloc(2 * n, sizeof *e->logp, "log-probabilities");
    e->batch_terms = dpt_mem_alloc(mode == DPT_BACKWARD_TERMS ? 2 * n * e->tensors : 0,
                                   sizeof *e->batch_terms, "terms of a batch");
    bool whole = e->first != NULL && e->weight != NULL && e->nll != NULL && e->logp != NULL &&
                 e->batch_terms != NULL;
    return whole ? DPT_OK : DPT_ERR_OUTPUT;
}

/* Run the model over samples [begin, end); leaves logp of both sides of each. */
static dpt_status run_batch(const evaluation *e, dpt_model *model, dpt_model_backward mode,
                            int64_t begin, int64_t end, dpt_model_gradient *gradient) {
    const dpt_lm_data *pairs = &e->dpo->data.pairs;
    int64_t at = pairs->offsets[2 * begin];
    for (int64_t s = 2 * begin; s <= 2 * end; s++)
        e->first[s - 2 * begin] = pairs->offsets[s] - at;
    dpt_batch batch = {.sequences = 2 * (end - begin),
                       .first = e->first,
                       .tokens = pairs->tokens + at,
                       .mask = pairs->loss_mask + at};
    dpt_status st =
        dpt_model_run(model, &batch, e->t, mode, mode == DPT_BACKWARD_NONE ? NULL : e->weight,
                      e->nll, NULL, e->batch_terms, gradient);
    for (int64_t s = 0; s < batch.sequences && st == DPT_OK; s++) {
        e->logp[s] = 0.0;
        for (int64_t i = e->first[s]; i < e->first[s + 1]; i++)
            e->logp[s] -= e->nll[i]; /* 0 where a token is not scored */
    }
    return st;
}

/* d loss / d nll of the tokens of sequence s of a batch, the same for all. */
static void fill_weight(const evaluation *e, int64_t s, double weight) {
    for (int64_t i = e->first[s]; i < e->first[s + 1]; i++)
        e->weight[i] = weight;
}

/* Reward margin of sample begin + i, from logp of the batch. */
static double margin_of(const evaluation *e, int64_t begin, int64_t i) {
    const double *logp = e->logp + 2 * i;
    const double *reference = e->dpo->reference + 2 * (begin + i);
    return e->dpo->data.beta * ((logp[0] - reference[0]) - (logp[1] - reference[1]));
}

/* Whether the chosen is preferred: a margin within the rounding of the log-probabilities is none, as
 * that of a model which is its own reference, at whatever number of ranks. */
static bool prefers(const evaluation *e, int64_t i, double margin) {
    double size = fabs(e->logp[2 * i]) + fabs(e->logp[2 * i + 1]);
    return margin > ROUNDING * e->dpo->data.beta * size;
}

/* -log sigmoid(m), without overflow. */
static double loss_of(double margin) {
    return margin > 0.0 ? log1p(exp(-margin)) : log1p(exp(margin)) - margin;
}

/* d loss / d nll of the chosen, that of the rejected is its opposite: beta sigmoid(-m). */
static double slope_of(double beta, double margin) {
    return margin > 0.0 ? beta * exp(-margin) / (1.0 + exp(-margin)) : beta / (1.0 + exp(margin));
}

/* The derivative of a sample's loss is slope * (that of the chosen's nll - that of the rejected's), so
 * that terms of the nll alone serve: one pass, although the slope is known only behind it. */
static void take_batch(const evaluation *e, dpt_loss_sums *sums, int64_t begin, int64_t end) {
    for (int64_t i = 0; i < end - begin; i++) {
        double margin = margin_of(e, begin, i);
        double slope = slope_of(e->dpo->data.beta, margin);
        const double *terms = e->batch_terms + 2 * i * e->tensors;
        dpt_loss_sums_take(sums, begin + i, loss_of(margin), prefers(e, i, margin));
        if (sums->call->mode != DPT_BACKWARD_TERMS)
            continue;
        dpt_loss_sums_take_terms(sums, begin + i, slope, terms);
        dpt_loss_sums_take_terms(sums, begin + i, -slope, terms + e->tensors);
    }
}

/* A gradient cannot be weighed behind the pass: the slopes come from a pass of their own. */
static dpt_status add_gradient(const evaluation *e, dpt_model *model, int64_t begin, int64_t end,
                               dpt_model_gradient *gradient) {
    for (int64_t i = 0; i < end - begin; i++) {
        double slope = slope_of(e->dpo->data.beta, margin_of(e, begin, i));
        slope *= dpt_loss_share(&e->dpo->base, begin + i);
        fill_weight(e, 2 * i, slope);
        fill_weight(e, 2 * i + 1, -slope);
    }
    return run_batch(e, model, DPT_BACKWARD_GRADIENT, begin, end, gradient);
}

static dpt_status evaluate_batch(const evaluation *e, dpt_loss_sums *sums, dpt_model *model,
                                 int64_t begin, int64_t end) {
    bool terms = sums->call->mode == DPT_BACKWARD_TERMS;
    for (int64_t i = 0; terms && i < tokens_of(e->dpo, begin, end); i++)
        e->weight[i] = 1.0;
    dpt_status st =
        run_batch(e, model, terms ? DPT_BACKWARD_TERMS : DPT_BACKWARD_NONE, begin, end, NULL);
    if (st != DPT_OK)
        return st;
    take_batch(e, sums, begin, end);
    if (sums->call->mode == DPT_BACKWARD_GRADIENT)
        st = add_gradient(e, model, begin, end, sums->call->gradient);
    return st;
}

static dpt_status evaluate_dpo(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model,
                               const dpt_loss_call *call) {
    const loss_dpo *dpo = (const loss_dpo *)loss;
    evaluation e;
    dpt_loss_sums sums;
    dpt_status st = evaluation_prepare(dpo, model, call->t, call->mode, &e);
    st = dpt_status_worse(st, dpt_loss_sums_create(loss, mesh, model, call, &sums));
    if (st == DPT_OK && dpo->reference == NULL)
        st = dpt_error(DPT_ERR_INTERNAL, "dpo: the reference is not set");
    if (st == DPT_OK)
        st = dpt_agree_fault("loss.evaluate");
    st = dpt_agree(&mesh->world, st);
    if (st == DPT_OK) {
        /* Replicas run alone: a failed one stops, the others find out at the end. */
        for (int64_t s = loss->begin; s < loss->end && st == DPT_OK;) {
            int64_t end = batch_end(dpo, s);
            st = evaluate_batch(&e, &sums, model, s, end);
            dpt_loss_report(loss, end);
            s = end;
        }
        st = dpt_loss_sums_finish(&sums, mesh, st);
    }
    dpt_loss_sums_destroy(&sums);
    evaluation_release(&e);
    return st;
}

dpt_status dpt_loss_dpo_measure(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model,
                                double *logp) {
    const loss_dpo *dpo = (const loss_dpo *)loss;
    evaluation e;
    dpt_status st = evaluation_prepare(dpo, model, 0.0, DPT_BACKWARD_NONE, &e);
    if (st == DPT_OK)
        st = dpt_agree_fault("loss.evaluate");
    st = dpt_agree(&mesh->world, st);
    memset(logp, 0, (size_t)(2 * loss->samples) * sizeof *logp);
    if (st == DPT_OK) {
        for (int64_t s = loss->begin; s < loss->end && st == DPT_OK;) {
            int64_t end = batch_end(dpo, s);
            st = run_batch(&e, model, DPT_BACKWARD_NONE, s, end, NULL);
            if (st == DPT_OK && mesh->model.rank == 0)
                memcpy(logp + 2 * s, e.logp, (size_t)(2 * (end - s)) * sizeof *logp);
            s = end;
        }
        st = dpt_agree(&mesh->world, st);
    }
    if (st == DPT_OK)
        st = dpt_agree(&mesh->world, dpt_comm_sum_f64(&mesh->world, logp, 2 * loss->samples));
    evaluation_release(&e);
    return st;
}

dpt_status dpt_loss_dpo_set_reference(dpt_loss *loss, const double *logp) {
    loss_dpo *dpo = (loss_dpo *)loss;
    for (int64_t i = 0; i < 2 * loss->samples; i++)
        if (!isfinite(logp[i]))
            return dpt_error(DPT_ERR_INPUT,
                             "data: the reference gives sample %" PRId64
                             " a log-probability of %g: take another reference model",
                             i / 2, logp[i]);
    double *copy = dpt_mem_alloc(2 * loss->samples, sizeof *copy, "reference log-probabilities");
    if (copy == NULL)
        return DPT_ERR_OUTPUT;
    memcpy(copy, logp, (size_t)(2 * loss->samples) * sizeof *copy);
    dpt_mem_free(dpo->reference);
    dpo->reference = copy;
    return DPT_OK;
}

static void destroy_dpo(dpt_loss *loss) {
    dpt_mem_free(((loss_dpo *)loss)->reference);
    dpt_mem_free(loss);
}

dpt_status dpt_loss_dpo_create(const dpt_dpo_data *data, int64_t vocabulary, int64_t max_positions,
                               const dpt_mesh *mesh, int64_t batch_tokens, dpt_loss **out) {
    *out = NULL;
    dpt_status st = dpt_loss_dpo_check(data, vocabulary, max_positions);
    if (st != DPT_OK)
        return st;
    loss_dpo *dpo = dpt_mem_zalloc(1, sizeof *dpo, "loss");
    if (dpo == NULL)
        return DPT_ERR_OUTPUT;
    dpo->base = (dpt_loss){
        .samples = data->pairs.samples / 2, .evaluate = evaluate_dpo, .destroy = destroy_dpo};
    dpo->data = *data;
    dpo->batch_tokens = batch_tokens;
    dpt_shard_split(dpo->base.samples, mesh->data.size, mesh->data.rank, &dpo->base.begin,
                    &dpo->base.end);
    for (int64_t s = dpo->base.begin; s < dpo->base.end;) {
        int64_t end = batch_end(dpo, s);
        int64_t tokens = tokens_of(dpo, s, end);
        dpo->most_tokens = tokens > dpo->most_tokens ? tokens : dpo->most_tokens;
        dpo->most_samples = end - s > dpo->most_samples ? end - s : dpo->most_samples;
        s = end;
    }
    *out = &dpo->base;
    return DPT_OK;
}
