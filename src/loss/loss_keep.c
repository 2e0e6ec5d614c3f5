#include "loss_base.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/stop.h"

#include <string.h>

/* The state of a pass between two batches: what this rank has summed up of the samples before. */

dpt_status dpt_loss_keep_create(dpt_loss_pass *pass) {
    const dpt_loss *loss = pass->loss;
    dpt_loss_sums *sums = &pass->sums;
    if (loss->keeper == NULL || sums->values == NULL)
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
        float *block = dpt_model_gradient_block(gradient, i, &numel);
        if (numel > 0)
            pass->parts[pass->nparts++] = (dpt_loss_part){block, numel * (int64_t)sizeof *block};
    }
    return DPT_OK;
}

/* The last sample that the states of all ranks of the group have in common; begin when there is none. */
static dpt_status common_state(const dpt_loss_pass *pass, int64_t found[2], int64_t *next) {
    const dpt_loss *loss = pass->loss;
    for (int i = 0; i < 2; i++)
        if (found[i] <= loss->begin || found[i] > loss->end)
            found[i] = loss->begin;
    int64_t latest = -(found[0] > found[1] ? found[0] : found[1]);
    dpt_status st = dpt_comm_max_i64(pass->group, &latest, 1);
    *next = -latest;
    return st;
}

dpt_status dpt_loss_keep_restore(dpt_loss_pass *pass, const dpt_mesh *mesh, int64_t *next) {
    const dpt_loss *loss = pass->loss;
    const dpt_loss_keeper *keeper = loss->keeper;
    int64_t found[2] = {-1, -1}, failed = 0;
    *next = loss->begin;
    if (keeper == NULL || !keeper->resumes)
        return DPT_OK;
    keeper->find(keeper->ctx, found);
    dpt_status st = common_state(pass, found, next);
    if (st == DPT_OK && *next > loss->begin) {
        bool has = *next == found[0] || *next == found[1];
        failed = !has || !keeper->load(keeper->ctx, *next, pass->parts, pass->nparts);
        st = dpt_comm_max_i64(pass->group, &failed, 1);
    }
    for (int i = 0; failed && i < pass->nparts; i++)
        memset(pass->parts[i].bytes, 0, (size_t)pass->parts[i].n);
    if (failed)
        *next = loss->begin;
    int64_t taken = *next - loss->begin;
    if (st == DPT_OK)
        st = dpt_comm_sum_i64(&mesh->data, &taken, 1);
    if (st == DPT_OK && taken > 0)
        keeper->taken(keeper->ctx, taken);
    return dpt_agree(&mesh->world, st);
}

void dpt_loss_keep_save(dpt_loss_pass *pass, int64_t next, bool stops) {
    const dpt_loss_keeper *keeper = pass->loss->keeper;
    if (keeper != NULL)
        keeper->save(keeper->ctx, next, pass->parts, pass->nparts, stops);
}

dpt_status dpt_loss_keep_between(dpt_loss_pass *pass, int64_t next) {
    const dpt_comm *group = pass->group;
    const dpt_loss_keeper *keeper = pass->loss->keeper;
    enum { STOPS, SAVES, FLAGS };
    dpt_status st = dpt_agree_fault("loss.batch");
    int64_t flags[FLAGS] = {dpt_stop_asked()};
    /* The first rank of a group has the watch. */
    flags[SAVES] = keeper != NULL && group->rank == 0 &&
                   keeper->due(keeper->ctx, pass->call->mode == DPT_BACKWARD_GRADIENT);
    st = dpt_status_worse(st, dpt_comm_max_i64(group, flags, FLAGS));
    if (group->size > 1)
        st = dpt_agree(group, st);
    if (st != DPT_OK)
        return st;
    if (flags[STOPS] || flags[SAVES])
        dpt_loss_keep_save(pass, next, flags[STOPS] != 0);
    return flags[STOPS] ? dpt_stop_error() : DPT_OK;
}
