#include "finished.h"

#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"

dpt_status dpt_finished_create(const dpt_job *job, dpt_finished *out) {
    *out = (dpt_finished){.count = 0};
    out->edits = dpt_mem_zalloc(job->nedits, sizeof *out->edits, "finished edits");
    return out->edits != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

void dpt_finished_destroy(dpt_finished *finished) {
    dpt_mem_free(finished->edits);
    *finished = (dpt_finished){.count = 0};
}

dpt_status dpt_finished_compare(const dpt_inputs *in, const dpt_finished *finished,
                                const uint64_t found[2]) {
    const char *const names[] = {in->job->pre, in->job->post};
    for (int i = 0; i < 2; i++)
        if (finished->digests[i] != 0 && found[i] != 0 && finished->digests[i] != found[i])
            return dpt_error(
                DPT_ERR_INPUT,
                "%s: is not the model of the results that %s keeps: tensors have other "
                "values since: bring that model back, or give output.overwrite=true "
                "in place of --resume",
                names[i], in->job->directory);
    return DPT_OK;
}

/* Of another unit. */
static dpt_status finished_keep(const dpt_inputs *in, dpt_finished *finished,
                                const uint64_t found[2]) {
    dpt_status st = dpt_finished_compare(in, finished, found);
    for (int i = 0; i < 2 && st == DPT_OK; i++)
        finished->digests[i] = found[i] != 0 ? found[i] : finished->digests[i];
    return st;
}

/* Whether all units of an edit and its model are there. */
static dpt_status finished_find_edit(const dpt_comm *comm, const dpt_inputs *in,
                                     const dpt_outputs *outputs, int units, int e,
                                     dpt_finished *finished) {
    const dpt_job_edit *edit = &in->job->edits[e];
    dpt_status st = DPT_OK;
    uint64_t model = 0;
    bool found = true;
    if (in->job->checkpoint != DPT_STORE_NONE)
        st = dpt_outputs_has_model(comm, in, edit, &found, &model);
    for (int u = 0; u < units && found && st == DPT_OK; u++) {
        int d = dpt_outputs_unit_data(in, u);
        if (!dpt_job_judges(edit, d))
            continue;
        dpt_results_study header = dpt_outputs_unit_study(outputs, in, edit, d);
        header.model = model;
        uint64_t inputs[2];
        st = dpt_results_load_unit(comm, &header, edit->id, dpt_outputs_data_name(in->job, d),
                                   &found, inputs, NULL);
        if (st == DPT_OK && found)
            st = finished_keep(in, finished, inputs);
    }
    finished->edits[e] = found;
    finished->count += found;
    return st;
}

dpt_status dpt_finished_find(const dpt_comm *comm, const dpt_inputs *in, const dpt_outputs *outputs,
                             int units, dpt_finished *finished) {
    DPT_ASSERT_SAME(comm, units);
    const dpt_job *job = in->job;
    dpt_status st = DPT_OK;
    for (int e = 0; e < job->nedits && st == DPT_OK; e++)
        st = finished_find_edit(comm, in, outputs, units, e, finished);
    if (st == DPT_OK)
        st = dpt_finished_compare(in, finished, in->digest);
    if (st != DPT_OK)
        return st;
    if (finished->count == job->nedits)
        dpt_log(DPT_LOG_INFO, "%s: all %d edits were finished before: none is made again",
                job->directory, job->nedits);
    if (finished->count > 0 && job->checkpoint != DPT_STORE_NONE)
        dpt_log(DPT_LOG_INFO,
                "%s: the weights of %d edited models that are finished are not read again: "
                "`deltapath verify %s` checks them",
                job->directory, finished->count, job->directory);
    return DPT_OK;
}
