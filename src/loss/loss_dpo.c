#include "sequences.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const double ROUNDING = 1e-6; /* of a log-probability, relative */

/* Sequences 2 s and 2 s + 1 of the data are the sides of sample s. */
typedef struct loss_dpo {
    dpt_loss_sequences of; /* two sides */
    double beta;
    double *reference; /* (samples, 2) log-probabilities; NULL until they are set */
} loss_dpo;

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

static const loss_dpo *dpo_of(const dpt_loss_pass *pass) {
    return (const loss_dpo *)pass->loss;
}

/* (samples, 2) of the batch */
static double *logp_of(const dpt_loss_pass *pass) {
    return pass->extra;
}

/* Run the model over samples [begin, end); leaves logp of both sides of each. */
static dpt_status run_model(dpt_loss_pass *pass, dpt_model_backward mode, int64_t begin,
                            int64_t end) {
    dpt_batch batch = dpt_loss_sequences_batch(&dpo_of(pass)->of, begin, end, pass->first);
    dpt_status st = dpt_loss_pass_model(pass, &batch, 0, mode);
    double *logp = logp_of(pass);
    for (int64_t s = 0; s < batch.sequences && st == DPT_OK; s++) {
        logp[s] = 0.0;
        for (int64_t i = batch.first[s]; i < batch.first[s + 1]; i++)
            logp[s] -= pass->nll[i]; /* 0 where a token is not scored */
    }
    return st;
}

/* Reward margin of sample begin + i, from logp of the batch. */
static double margin_of(const dpt_loss_pass *pass, int64_t begin, int64_t i) {
    const double *logp = logp_of(pass) + 2 * i;
    const double *reference = dpo_of(pass)->reference + 2 * (begin + i);
    return dpo_of(pass)->beta * ((logp[0] - reference[0]) - (logp[1] - reference[1]));
}

/* Whether the chosen is preferred: a margin within the rounding of the log-probabilities is none, as
 * that of a model which is its own reference, at whatever number of ranks. */
static bool prefers(const dpt_loss_pass *pass, int64_t i, double margin) {
    const double *logp = logp_of(pass) + 2 * i;
    return margin > ROUNDING * dpo_of(pass)->beta * (fabs(logp[0]) + fabs(logp[1]));
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
 * that terms of the nll alone serve: one pass, although the slope is known only after it. */
static void take_batch(dpt_loss_pass *pass, int64_t begin, int64_t end) {
    dpt_loss_sums *sums = &pass->sums;
    for (int64_t i = 0; i < end - begin; i++) {
        double margin = margin_of(pass, begin, i);
        double slope = slope_of(dpo_of(pass)->beta, margin);
        const double *terms = pass->terms + 2 * i * sums->columns;
        dpt_loss_sums_take(sums, begin + i, loss_of(margin), prefers(pass, i, margin));
        if (pass->call->mode != DPT_BACKWARD_TERMS)
            continue;
        dpt_loss_sums_take_terms(sums, begin + i, slope, terms);
        dpt_loss_sums_take_terms(sums, begin + i, -slope, terms + sums->columns);
    }
}

/* A gradient cannot be weighed after the pass: the slopes come from a pass of their own. */
static dpt_status add_gradient(dpt_loss_pass *pass, int64_t begin, int64_t end) {
    for (int64_t i = 0; i < end - begin; i++) {
        double slope = slope_of(dpo_of(pass)->beta, margin_of(pass, begin, i));
        slope *= dpt_loss_share(pass->loss, begin + i);
        dpt_loss_pass_weigh(pass, 2 * i, slope);
        dpt_loss_pass_weigh(pass, 2 * i + 1, -slope);
    }
    return run_model(pass, DPT_BACKWARD_GRADIENT, begin, end);
}

static dpt_status loss_dpo_run_batch(dpt_loss_pass *pass, int64_t begin, int64_t end) {
    bool terms = pass->call->mode == DPT_BACKWARD_TERMS;
    for (int64_t i = 0; terms && i < pass->loss->most_scores; i++)
        pass->weight[i] = 1.0;
    dpt_status st = run_model(pass, terms ? DPT_BACKWARD_TERMS : DPT_BACKWARD_NONE, begin, end);
    if (st != DPT_OK)
        return st;
    take_batch(pass, begin, end);
    if (pass->call->mode == DPT_BACKWARD_GRADIENT)
        st = add_gradient(pass, begin, end);
    return st;
}

static dpt_status ready(const dpt_loss *loss) {
    if (((const loss_dpo *)loss)->reference == NULL)
        return dpt_error(DPT_ERR_INTERNAL, "dpo: the reference is not set");
    return DPT_OK;
}

/* A measuring pass sums up the log-probabilities of both sides in place of losses and hits. */
static dpt_status measure_batch(dpt_loss_pass *pass, int64_t begin, int64_t end) {
    dpt_status st = run_model(pass, DPT_BACKWARD_NONE, begin, end);
    const double *logp = logp_of(pass);
    for (int64_t i = 0; i < end - begin && st == DPT_OK && pass->sums.is_root; i++) {
        pass->sums.losses[begin + i] = logp[2 * i];
        pass->sums.hits[begin + i] = logp[2 * i + 1];
    }
    return st;
}

dpt_status dpt_loss_dpo_measure(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model,
                                double *logp) {
    dpt_loss_call call = {.t = 0.0, .mode = DPT_BACKWARD_NONE};
    dpt_loss_pass pass;
    dpt_status st = dpt_loss_pass_create(loss, mesh, model, &call, &pass);
    st = dpt_loss_pass_run(&pass, mesh, st, measure_batch);
    dpt_loss_sums *sums = &pass.sums;
    if (st == DPT_OK)
        st = dpt_agree(&mesh->world,
                       dpt_comm_sum_f64(&mesh->world, sums->losses, 2 * loss->samples));
    for (int64_t i = 0; i < loss->samples && st == DPT_OK; i++) {
        logp[2 * i] = sums->losses[i];
        logp[2 * i + 1] = sums->hits[i];
    }
    dpt_loss_pass_destroy(&pass);
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
    dpt_loss *base = &dpo->of.base;
    *base = (dpt_loss){.ready = ready, .run_batch = loss_dpo_run_batch, .destroy = destroy_dpo};
    dpo->beta = data->beta;
    dpt_loss_sequences_init(&dpo->of, &data->pairs, 2, mesh, batch_tokens);
    base->extra_bytes = base->most_sequences * (int64_t)sizeof(double);
    *out = base;
    return DPT_OK;
}
