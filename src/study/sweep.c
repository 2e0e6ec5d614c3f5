#include "sweep.h"

#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/phase.h"
#include "deltapath/comm/same.h"
#include "guards.h"

#include <stdio.h>

/* Edited models that are written at a time. With eight the pair is an eighth of the bytes of each, and of large ones a stop
 * is to lose little. */
static const int WRITTEN_MOST = 8;
static const double WRITTEN_BYTES = 5e11;

int dpt_sweep_most(const dpt_inputs *in) {
    if (in->job->checkpoint == DPT_STORE_NONE)
        return DPT_SWEEP_MOST;
    double models = WRITTEN_BYTES / ((double)dpt_inputs_output_bytes(in) + 1.0);
    return models < 1.0 ? 1 : models < (double)WRITTEN_MOST ? (int)models : WRITTEN_MOST;
}

int dpt_sweep_group_at(const dpt_job *job, int limit, const bool *finished, int first,
                       dpt_sweep_group *group) {
    *group = (dpt_sweep_group){.count = 1, .edits = {first}};
    int e = first + 1;
    bool joins = dpt_edit_joins(&job->edits[first].spec);
    for (; joins && e < job->nedits && group->count < limit; e++) {
        if (finished != NULL && finished[e])
            continue;
        if (!dpt_edit_joins(&job->edits[e].spec))
            break;
        group->edits[group->count++] = e;
    }
    return e;
}

/* A group at work. */
typedef struct sweep_work {
    const dpt_sweep *sweep;
    int count;
    dpt_sweep_made made[DPT_SWEEP_MOST];
    dpt_store_writer *writers[DPT_SWEEP_MOST]; /* NULL: it keeps no model */
    char names[DPT_SWEEP_MOST][DPT_MESSAGE_MAX / 4];
} sweep_work;

static const dpt_job_edit *sweep_edit(const sweep_work *w, int i) {
    return &w->sweep->inputs->job->edits[w->made[i].edit];
}

/* The places of all models, before the first is worked on. */
static dpt_status sweep_create(sweep_work *w) {
    const dpt_sweep *s = w->sweep;
    dpt_status st = DPT_OK;
    for (int i = 0; i < w->count && st == DPT_OK; i++) {
        const dpt_job_edit *edit = sweep_edit(w, i);
        st = dpt_agree(s->comm, dpt_agree_fault("study.edit"));
        if (st == DPT_OK && s->inputs->job->checkpoint != DPT_STORE_NONE)
            st = dpt_outputs_create_model(s->comm, s->inputs, edit, &edit->spec, s->input->shard,
                                          NULL, &w->writers[i]);
    }
    return st;
}

static dpt_status sweep_make(sweep_work *w) {
    dpt_edit_task tasks[DPT_SWEEP_MOST];
    for (int i = 0; i < w->count; i++) {
        snprintf(w->names[i], sizeof w->names[i], "edit %s", sweep_edit(w, i)->id);
        tasks[i] = (dpt_edit_task){.name = w->names[i],
                                   .spec = &sweep_edit(w, i)->spec,
                                   .sink = w->writers[i] != NULL
                                               ? dpt_store_writer_sink(w->writers[i])
                                               : dpt_edit_sink_none(&w->sweep->inputs->out_catalog),
                                   .report = &w->made[i].report};
    }
    return dpt_edit_run_many(w->count, tasks, w->sweep->input);
}

/* The model of an edit gets its name, or goes. Collective, agreed. @param[in] agreed  how the group ended. */
static dpt_status sweep_finish(sweep_work *w, int i, dpt_status agreed) {
    const dpt_sweep *s = w->sweep;
    dpt_status st = agreed;
    if (w->writers[i] == NULL)
        return st;
    if (st == DPT_OK)
        st = dpt_outputs_replace(s->comm, s->outputs);
    st = dpt_agree(s->comm, dpt_store_finish_digest(w->writers[i], st, &w->made[i].model));
    dpt_outputs_conclude(s->outputs, st);
    return st;
}

dpt_status dpt_sweep_run(const dpt_sweep *sweep, const dpt_sweep_group *group) {
    DPT_ASSERT_SAME(sweep->comm, group->count);
    double begun = dpt_log_seconds();
    sweep_work *w = dpt_mem_zalloc(1, sizeof *w, "edits that are made together");
    dpt_status st = dpt_agree(sweep->comm, w != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    if (st != DPT_OK) {
        dpt_mem_free(w);
        return st;
    }
    dpt_comm_phase("edit");
    w->sweep = sweep;
    w->count = group->count;
    for (int i = 0; i < w->count; i++)
        w->made[i].edit = group->edits[i];
    st = sweep_create(w);
    if (st == DPT_OK)
        st = sweep_make(w);
    st = sweep->check(sweep->ctx, st);
    double each = (dpt_log_seconds() - begun) / w->count;
    for (int i = 0; i < w->count; i++) {
        begun = dpt_log_seconds();
        st = sweep_finish(w, i, st);
        w->made[i].seconds = each + dpt_log_seconds() - begun;
        if (st == DPT_OK)
            dpt_guards_warn(sweep->inputs, sweep_edit(w, i)->id, &w->made[i].report);
        if (st == DPT_OK)
            st = sweep->save(sweep->ctx, &w->made[i]);
        dpt_edit_report_destroy(&w->made[i].report);
    }
    dpt_mem_free(w);
    return st;
}
