#include "leave_out.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"
#include "deltapath/comm/stop.h"
#include "deltapath/path/weighted.h"

#include <math.h>

static void leave_out_find_touched(const dpt_edit_report *report, dpt_leave_out *out) {
    for (int t = 0; t < report->ntensors; t++)
        if (out->groups.group_of[t] >= 0 && report->stats[t].changed > 0)
            out->touched[out->groups.group_of[t]] = true;
}

/* The end of the edit where its tensors of one group stay at W_post, or all others do. */
static dpt_status leave_out_run(dpt_evaluation *ev, int d, const dpt_groups *groups, int group,
                                bool alone, bool *moves, double *losses) {
    int tensors = dpt_model_catalog(ev->model)->count;
    const dpt_model_direction direction = {.moves = moves};
    for (int t = 0; t < tensors; t++)
        moves[t] = (groups->group_of[t] == group) == alone;
    dpt_evaluation_direct(ev, &direction);
    dpt_status st = dpt_evaluation_losses(ev, d, 1.0, losses);
    dpt_evaluation_direct(ev, NULL);
    return st;
}

static dpt_status leave_out_group(dpt_evaluation *ev, int d, int group, bool *moves, double *losses,
                                  dpt_leave_out *out) {
    const dpt_baseline *base = &ev->data[d];
    const double *shares = dpt_loss_shares(base->loss);
    double *without = out->without + group * base->samples;
    dpt_status st = leave_out_run(ev, d, &out->groups, group, false, moves, without);
    if (st != DPT_OK || !ev->inputs->job->proof.alone)
        return st;
    st = leave_out_run(ev, d, &out->groups, group, true, moves, losses);
    if (st == DPT_OK)
        out->alone[group] = dpt_weighted_mean(shares, base->samples, losses) -
                            dpt_weighted_mean(shares, base->samples, base->loss_post);
    return st;
}

static dpt_status leave_out_create(const dpt_inputs *in, int64_t samples,
                                   const dpt_edit_report *report, dpt_leave_out *out) {
    dpt_status st = dpt_groups_create(in, in->job->proof.groups, &out->groups);
    int64_t n = out->groups.count;
    out->touched = dpt_mem_zalloc(n, sizeof *out->touched, "groups that the edit touches");
    out->without = dpt_mem_zalloc(n * samples, sizeof *out->without, "losses without groups");
    out->alone = dpt_mem_zalloc(n, sizeof *out->alone, "changes of groups");
    if (st != DPT_OK || out->touched == NULL || out->without == NULL || out->alone == NULL)
        return DPT_ERR_OUTPUT;
    for (int64_t i = 0; i < n * samples; i++)
        out->without[i] = NAN;
    for (int64_t g = 0; g < n; g++)
        out->alone[g] = NAN;
    leave_out_find_touched(report, out);
    return DPT_OK;
}

dpt_status dpt_leave_out_measure(dpt_evaluation *ev, int d, const dpt_job_edit *edit,
                                 const dpt_edit_report *report, dpt_leave_out *out) {
    int64_t samples = ev->data[d].samples;
    DPT_ASSERT_SAME(&ev->mesh.world, d);
    DPT_ASSERT_SAME_TEXT(&ev->mesh.world, edit->id);
    if (!dpt_job_leaves_out(ev->inputs->job, edit))
        return DPT_OK;
    dpt_status st = leave_out_create(ev->inputs, samples, report, out);
    bool *moves = dpt_mem_zalloc(dpt_model_catalog(ev->model)->count, sizeof *moves, "group");
    double *losses = dpt_mem_zalloc(samples, sizeof *losses, "losses");
    st = dpt_agree(&ev->mesh.world, moves != NULL && losses != NULL ? st : DPT_ERR_OUTPUT);
    for (int g = 0; g < out->groups.count && st == DPT_OK; g++) {
        if (!out->touched[g])
            continue;
        st = dpt_agree(&ev->mesh.world, dpt_stop_check()); /* a pass may be one batch */
        if (st == DPT_OK)
            st = leave_out_group(ev, d, g, moves, losses, out);
    }
    dpt_mem_free(losses);
    dpt_mem_free(moves);
    return st;
}

int64_t dpt_leave_out_passes(const dpt_inputs *in) {
    const dpt_job *job = in->job;
    int64_t edits = 0;
    for (int e = 0; e < job->nedits; e++)
        edits += dpt_job_leaves_out(job, &job->edits[e]);
    return edits * dpt_groups_count(in, job->proof.groups) * (job->proof.alone ? 2 : 1);
}
