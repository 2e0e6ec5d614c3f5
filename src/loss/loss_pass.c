#include "loss_base.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/stop.h"

#include <math.h>
#include <string.h>

dpt_status dpt_loss_pass_create(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model,
                                const dpt_loss_call *call, dpt_loss_pass *out) {
    *out = (dpt_loss_pass){.loss = loss, .group = &mesh->model, .model = model, .call = call};
    int64_t columns = call->mode == DPT_BACKWARD_TERMS ? dpt_model_columns(model) : 0;
    int64_t scores = loss->most_scores, hits = loss->hits ? scores : 0;
    dpt_status st = dpt_loss_sums_create(loss, mesh, model, call, &out->sums);
    out->first = dpt_mem_alloc(loss->most_sequences + 1, sizeof *out->first, "batch offsets");
    out->weight = dpt_mem_alloc(scores, sizeof *out->weight, "weights of a batch");
    out->nll = dpt_mem_alloc(scores, sizeof *out->nll, "losses of a batch");
    out->correct = dpt_mem_alloc(hits, sizeof *out->correct, "hits of a batch");
    out->terms =
        dpt_mem_alloc(loss->most_sequences * columns, sizeof *out->terms, "terms of a batch");
    out->extra = dpt_mem_alloc(loss->extra_bytes, 1, "data of a batch");
    if (dpt_loss_keep_create(out) != DPT_OK)
        st = DPT_ERR_OUTPUT;
    if (out->first == NULL || out->weight == NULL || out->nll == NULL || out->correct == NULL ||
        out->terms == NULL || out->extra == NULL)
        st = DPT_ERR_OUTPUT;
    return st;
}

void dpt_loss_pass_destroy(dpt_loss_pass *pass) {
    dpt_loss_sums_destroy(&pass->sums);
    dpt_mem_free(pass->first);
    dpt_mem_free(pass->weight);
    dpt_mem_free(pass->nll);
    dpt_mem_free(pass->correct);
    dpt_mem_free(pass->terms);
    dpt_mem_free(pass->extra);
    dpt_mem_free(pass->parts);
}

/* Tell the caller that the samples of this replica before `end` are done. */
static void loss_pass_report(const dpt_loss *loss, int64_t end) {
    if (loss->progress != NULL)
        loss->progress(loss->progress_ctx,
                       (double)(end - loss->begin) / (double)(loss->end - loss->begin));
}

/* Whether a batch did not begin because another replica stopped: what came before it is whole. A gradient of pairs takes
 * two runs a batch. */
static bool loss_pass_was_stopped(const dpt_loss_pass *pass, dpt_status st) {
    return st == DPT_INTERRUPTED && dpt_model_is_together(pass->model) &&
           pass->call->mode != DPT_BACKWARD_GRADIENT;
}

dpt_status dpt_loss_pass_run(dpt_loss_pass *pass, const dpt_mesh *mesh, dpt_status st,
                             dpt_loss_batch_fn run_batch) {
    const dpt_loss *loss = pass->loss;
    if (st == DPT_OK)
        st = dpt_agree_fault("loss.evaluate");
    st = dpt_agree(&mesh->world, st);
    if (st != DPT_OK)
        return st;
    int64_t next = loss->begin;
    st = dpt_loss_keep_restore(pass, mesh, &next);
    if (next > loss->begin)
        loss_pass_report(loss, next);
    /* Replicas run alone: one that fails or stops ends, the others find out at the end, or when the weights of the next
     * batch have to be gathered by all. */
    while (next < loss->end && st == DPT_OK) {
        int64_t end = loss->batch_end(loss, next);
        DPT_ASSERT(end > next && end <= loss->end);
        st = run_batch(pass, next, end);
        if (st != DPT_OK)
            break;
        loss_pass_report(loss, end);
        next = end;
        dpt_stop_count_work();
        if (st == DPT_OK && next < loss->end)
            st = dpt_loss_keep_between(pass, next);
    }
    bool complete = st == DPT_OK || loss_pass_was_stopped(pass, st);
    st = dpt_model_rest(pass->model, st);
    st = dpt_agree(&mesh->world, st);
    if (complete && st != DPT_OK && next > loss->begin)
        dpt_loss_keep_save(pass, next, true);
    return st;
}

double dpt_loss_pass_weight(const dpt_loss_pass *pass, int64_t sample, int64_t scored) {
    bool mean = pass->call->mode == DPT_BACKWARD_GRADIENT;
    double weight = (mean ? dpt_loss_share(pass->loss, sample) : 1.0) / (double)scored;
    return pass->call->labels != NULL ? sqrt(weight) : weight;
}

dpt_status dpt_loss_pass_model(dpt_loss_pass *pass, const dpt_batch *batch, int64_t place,
                               dpt_model_backward mode) {
    if (pass->call->labels != NULL) {
        dpt_model_draw draw = {.rng = *pass->call->labels, .place = place};
        memset(pass->correct, 0,
               (size_t)dpt_batch_scores(batch)); /* of drawn labels nothing is right */
        return dpt_model_run_drawn(pass->model, batch, pass->call->t, &draw, pass->weight,
                                   pass->nll, pass->call->gradient);
    }
    if (pass->call->squares) {
        memset(pass->correct, 0, (size_t)dpt_batch_scores(batch));
        return dpt_model_run_squares(pass->model, batch, pass->call->t, pass->weight, pass->nll,
                                     pass->terms, pass->call->gradient);
    }
    if (pass->call->logits != NULL)
        return dpt_model_run_logits(pass->model, batch, pass->call->t, pass->nll, pass->correct,
                                    pass->sums.logits + place * pass->sums.classes);
    return dpt_model_run(pass->model, batch, pass->call->t, mode,
                         mode == DPT_BACKWARD_NONE ? NULL : pass->weight, pass->nll,
                         pass->loss->hits ? pass->correct : NULL, pass->terms,
                         mode == DPT_BACKWARD_GRADIENT ? pass->call->gradient : NULL);
}

void dpt_loss_pass_take(dpt_loss_pass *pass, int64_t begin, int64_t i, double loss, bool hit) {
    dpt_loss_sums *sums = &pass->sums;
    dpt_loss_sums_take(sums, begin + i, loss, hit);
    double scale = pass->call->squares ? exp(-loss) : 1.0; /* the model's own p of the label */
    if (pass->call->mode == DPT_BACKWARD_TERMS)
        dpt_loss_sums_take_terms(sums, begin + i, scale, pass->terms + i * sums->columns);
}
