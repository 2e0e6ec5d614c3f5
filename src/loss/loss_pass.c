#include "loss_base.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/stop.h"

#include <math.h>
#include <string.h>

dpt_status dpt_loss_pass_create(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model,
                                const dpt_loss_call *call, dpt_loss_pass *out) {
    *out = (dpt_loss_pass){
        .loss = loss, .mesh = mesh, .group = &mesh->model, .model = model, .call = call};
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

/* Whether a batch did not begin because another replica stopped: what came before it is whole. Where all add to a
 * gradient they stop after the same step. */
static bool loss_pass_was_stopped(const dpt_loss_pass *pass, dpt_status st) {
    return st == DPT_INTERRUPTED && dpt_model_is_together(pass->model) && !dpt_loss_adds(pass);
}

/* End of the samples that a pass takes. */
static int64_t loss_pass_last(const dpt_loss_pass *pass) {
    const dpt_loss *loss = pass->loss;
    int64_t few = pass->call->few;
    return few > 0 && few < loss->end - loss->begin ? loss->begin + few : loss->end;
}

int64_t dpt_loss_step(const dpt_loss_pass *pass, dpt_loss_place *place) {
    int64_t begin = place->next, last = loss_pass_last(pass);
    if (begin < last) {
        int64_t end = pass->loss->batch_end(pass->loss, begin);
        place->next = end < last ? end : last;
    }
    DPT_ASSERT(place->next >= begin && place->next <= last);
    place->steps++;
    return place->next;
}

/* Steps that this replica takes, or where all add to a gradient the most that any has batches for. */
static dpt_status loss_pass_count(const dpt_loss_pass *pass, int64_t *steps) {
    dpt_loss_place place = {.next = pass->loss->begin};
    while (place.next < loss_pass_last(pass))
        dpt_loss_step(pass, &place);
    *steps = place.steps;
    return dpt_loss_adds(pass) ? dpt_comm_max_i64(&pass->mesh->data, steps, 1) : DPT_OK;
}

/* The steps from a place on, as far as this rank comes. Replicas run alone: one that fails or stops ends, the others find
 * out at the end, or when all are needed, for the weights of the next batch or to add to a gradient. */
static dpt_status loss_pass_steps(dpt_loss_pass *pass, int64_t steps, dpt_loss_batch_fn run_batch,
                                  dpt_loss_place *place) {
    const dpt_loss *loss = pass->loss;
    dpt_status st = DPT_OK;
    while (place->steps < steps && st == DPT_OK) {
        dpt_loss_place after = *place;
        int64_t end = dpt_loss_step(pass, &after);
        st = run_batch(pass, place->next, end);
        if (st != DPT_OK)
            break;
        if (end > place->next && pass->call->few == 0)
            loss_pass_report(loss, end);
        *place = after;
        dpt_stop_count_work();
        if (place->steps < steps)
            st = dpt_loss_keep_between(pass, *place);
    }
    return st;
}

dpt_status dpt_loss_pass_run(dpt_loss_pass *pass, const dpt_mesh *mesh, dpt_status st,
                             dpt_loss_batch_fn run_batch) {
    const dpt_loss *loss = pass->loss;
    int64_t steps = 0;
    if (st == DPT_OK)
        st = dpt_agree_fault("loss.evaluate");
    st = dpt_agree(&mesh->world, st);
    if (st != DPT_OK)
        return st;
    dpt_loss_place place = {.next = loss->begin};
    st = dpt_loss_keep_restore(pass, &place);
    if (st == DPT_OK)
        st = dpt_agree(&mesh->world, loss_pass_count(pass, &steps));
    if (st == DPT_OK && dpt_loss_adds(pass))
        st = dpt_model_gradient_begin(pass->model, pass->call->gradient);
    if (place.next > loss->begin)
        loss_pass_report(loss, place.next);
    if (st == DPT_OK)
        st = loss_pass_steps(pass, steps, run_batch, &place);
    bool complete = st == DPT_OK || loss_pass_was_stopped(pass, st);
    st = dpt_model_rest(pass->model, st);
    st = dpt_agree(&mesh->world, st);
    if (complete && st != DPT_OK && place.next > loss->begin && !dpt_loss_adds(pass))
        dpt_loss_keep_save(pass, place, true);
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
                                     pass->terms);
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
