#include "loss_base.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/stop.h"

#include <string.h>

/* The state of a pass between two batches: what this rank has summed up of the samples before. */

dpt_status dpt_loss_keep_create(dpt_loss_pass *pass) {
    const dpt_loss *loss = pass->loss;
    dpt_loss_sums *sums = &pass->sums;
    if (loss->keeper == NULL || sums->values == NULL || pass->call->few > 0)
        return DPT_OK;
    const dpt_model_gradient *gradient =
        pass->call->mode == DPT_BACKWARD_GRADIENT ? pass->call->gradient : NULL;
    int blocks = gradient != NULL ? dpt_model_gradient_count(gradient) : 0;
    pass->parts = dpt_mem_alloc(6 + blocks, sizeof *pass->parts, "state of a pass");
    if (pass->parts == NULL)
        return DPT_ERR_OUTPUT;
    int64_t own = (loss->end - loss->begin) * (int64_t)sizeof(double);
    pass->parts[pass->nparts++] = (dpt_loss_part){sums->losses + loss->begin, own};
    pass->parts[pass->nparts++] = (dpt_loss_part){sums->hits + loss->begin, own};
    if (pass->call->mode == DPT_BACKWARD_TERMS) {
        int64_t terms = sums->columns * (int64_t)sizeof(double);
        pass->parts[pass->nparts++] = (dpt_loss_part){sums->sample_terms + loss->begin, own};
        pass->parts[pass->nparts++] = (dpt_loss_part){sums->terms, terms};
    }
    if (sums->classes > 0)
        pass->parts[pass->nparts++] =
            (dpt_loss_part){sums->logits + loss->begin * sums->classes, own * sums->classes};
    if (sums->tensor_terms != NULL)
        pass->parts[pass->nparts++] =
            (dpt_loss_part){sums->tensor_terms + loss->begin * sums->tensors, own * sums->tensors};
    for (int i = 0; i < blocks; i++) {
        int64_t numel;
        float *block = dpt_model_gradient_rows(gradient, i, &numel);
        if (numel > 0)
            pass->parts[pass->nparts++] = (dpt_loss_part){block, numel * (int64_t)sizeof *block};
    }
    return DPT_OK;
}

/* Ranks whose states must be of the same batch. */
static const dpt_comm *keep_ranks(const dpt_loss_pass *pass) {
    return dpt_loss_adds(pass) ? &pass->mesh->world : pass->group;
}

/* What a state is known by: the first sample that is not in it, or the steps that are. */
static int64_t keep_number(const dpt_loss_pass *pass, dpt_loss_place place) {
    return dpt_loss_adds(pass) ? place.steps : place.next;
}

/* The place of a state. */
static dpt_loss_place keep_place(const dpt_loss_pass *pass, int64_t number) {
    dpt_loss_place place = {.next = pass->loss->begin};
    while (keep_number(pass, place) < number)
        dpt_loss_step(pass, &place);
    return place;
}

/* The last state that these ranks have in common; none: that before the first sample. */
static dpt_status common_state(const dpt_loss_pass *pass, int64_t found[2], int64_t none,
                               int64_t *common) {
    const dpt_loss *loss = pass->loss;
    for (int i = 0; i < 2; i++)
        if (found[i] <= none || (!dpt_loss_adds(pass) && found[i] > loss->end))
            found[i] = none;
    int64_t latest = -(found[0] > found[1] ? found[0] : found[1]);
    dpt_status st = dpt_comm_max_i64(keep_ranks(pass), &latest, 1);
    *common = -latest;
    return st;
}

dpt_status dpt_loss_keep_restore(dpt_loss_pass *pass, dpt_loss_place *place) {
    const dpt_loss *loss = pass->loss;
    const dpt_mesh *mesh = pass->mesh;
    const dpt_loss_keeper *keeper = loss->keeper;
    int64_t found[2] = {-1, -1}, failed = 0, none = keep_number(pass, *place), common = none;
    if (keeper == NULL || !keeper->resumes)
        return DPT_OK;
    keeper->find(keeper->ctx, found);
    dpt_status st = common_state(pass, found, none, &common);
    if (st == DPT_OK && common > none) {
        bool has = common == found[0] || common == found[1];
        failed = !has || !keeper->load(keeper->ctx, common, pass->parts, pass->nparts);
        st = dpt_comm_max_i64(keep_ranks(pass), &failed, 1);
    }
    for (int i = 0; failed && i < pass->nparts; i++)
        memset(pass->parts[i].bytes, 0, (size_t)pass->parts[i].n);
    if (!failed)
        *place = keep_place(pass, common);
    int64_t taken = place->next - loss->begin;
    if (st == DPT_OK)
        st = dpt_comm_sum_i64(&mesh->data, &taken, 1);
    if (st == DPT_OK && taken > 0)
        keeper->taken(keeper->ctx, taken);
    return dpt_agree(&mesh->world, st);
}

void dpt_loss_keep_save(dpt_loss_pass *pass, dpt_loss_place place, bool stops) {
    const dpt_loss_keeper *keeper = pass->loss->keeper;
    if (keeper != NULL)
        keeper->save(keeper->ctx, keep_number(pass, place), pass->parts, pass->nparts, stops);
}

dpt_status dpt_loss_keep_between(dpt_loss_pass *pass, dpt_loss_place place) {
    const dpt_comm *ranks = keep_ranks(pass);
    const dpt_loss_keeper *keeper = pass->loss->keeper;
    enum { STOPS, SAVES, FLAGS };
    dpt_status st = dpt_agree_fault("loss.batch");
    int64_t flags[FLAGS] = {dpt_stop_asked()};
    /* The first of them has the watch. */
    flags[SAVES] =
        keeper != NULL && ranks->rank == 0 && keeper->due(keeper->ctx, dpt_loss_adds(pass));
    st = dpt_status_worse(st, dpt_comm_max_i64(ranks, flags, FLAGS));
    if (ranks->size > 1)
        st = dpt_agree(ranks, st);
    if (st != DPT_OK)
        return st;
    if (flags[STOPS] || flags[SAVES])
        dpt_loss_keep_save(pass, place, flags[STOPS] != 0);
    return flags[STOPS] ? dpt_stop_error() : DPT_OK;
}
