#include "checks.h"

#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"
#include "deltapath/edit/edit.h"
#include "deltapath/model/model.h"
#include "losses.h"
#include "outputs.h"
#include "precision.h"

#include <stdio.h>

static dpt_status check_data(const dpt_inputs *in) {
    dpt_status st = DPT_OK;
    for (int d = 0; dpt_inputs_needs_model(in) && d < in->job->ndata && st == DPT_OK; d++)
        st = dpt_losses_check(in, d);
    return st;
}

/* Both models run with the configuration of the post-trained one. A pair whose configurations differ,
 * as one whose post-training changed the rotary base, is legal; that its pre-trained losses are not
 * those of the model as published has to be said. */
static void compare_configs(const dpt_inputs *in) {
    const char *pre = dpt_store_config(in->pre);
    char text[DPT_MESSAGE_MAX / 2];
    if (!dpt_inputs_needs_model(in) || pre == NULL)
        return;
    dpt_status st =
        dpt_model_config_compare(pre, dpt_store_config(in->post), in->catalog, text, sizeof text);
    if (st != DPT_OK)
        snprintf(text, sizeof text, "%.400s", dpt_error_message());
    dpt_error_clear();
    if (text[0] != '\0')
        dpt_log(DPT_LOG_WARN,
                "%s: the configuration differs from that of %s, with which both are run: %s",
                in->job->pre, in->job->post, text);
}

static void warn_of_unknown(const dpt_store *store) {
    char text[DPT_MESSAGE_MAX / 2];
    if (store == NULL || dpt_store_config(store) == NULL)
        return;
    if (dpt_model_config_unknown(dpt_store_config(store), text, sizeof text) != DPT_OK)
        dpt_error_clear(); /* said where the model is made */
    else if (text[0] != '\0')
        dpt_log(
            DPT_LOG_WARN,
            "%s: config.json has keys that are not known here and are taken to change no loss: %s",
            dpt_store_path(store), text);
}

static void warn_of_all_unknown(const dpt_inputs *in) {
    if (!dpt_inputs_needs_model(in))
        return;
    warn_of_unknown(in->pre);
    warn_of_unknown(in->post);
    for (int d = 0; d < in->job->njudged; d++)
        warn_of_unknown(in->reference[d]);
}

enum { IDLE_LISTED = 5 };

/* Edits that change nothing are legal; each is said, or their number when they are many. */
static void warn_of_idle(const dpt_job *job, const dpt_edit_input *input) {
    int idle = 0, first = -1;
    for (int e = 0; e < job->nedits; e++)
        if (!dpt_edit_covers_any(&job->edits[e].spec, input)) {
            first = first < 0 ? e : first;
            idle++;
        }
    if (idle > IDLE_LISTED) {
        dpt_log(DPT_LOG_WARN,
                "edit %s and %d more: their methods cover none of the selected tensors: they leave "
                "the post-trained model as it is",
                job->edits[first].id, idle - 1);
        return;
    }
    for (int e = 0; e < job->nedits && idle > 0; e++)
        if (!dpt_edit_covers_any(&job->edits[e].spec, input))
            dpt_log(DPT_LOG_WARN,
                    "edit %s: its methods cover none of the selected tensors: it leaves the "
                    "post-trained model as it is",
                    job->edits[e].id);
}

/* An allocation counts all entries of a tensor. */
static dpt_status check_allocated_rows(const dpt_inputs *in) {
    for (int t = 0; t < in->catalog->count; t++)
        if (in->selected[t] && dpt_pair_shared(&in->pair, t) < in->catalog->tensors[t].numel)
            return dpt_error(DPT_ERR_USAGE,
                             "allocate does not know tensors of which some rows pair (on_mismatch: "
                             "rows): name '%.200s' in select: {exclude: [...]}",
                             in->catalog->tensors[t].name);
    return DPT_OK;
}

static dpt_status check_edits(dpt_inputs *in, int ranks) {
    dpt_edit_input input = {.pre = dpt_pair_source(&in->pair),
                            .post = dpt_store_source(in->post),
                            .parts = &in->parts,
                            .comparable = in->pair.comparable,
                            .pair = &in->pair,
                            .selected = in->selected};
    dpt_status st = DPT_OK;
    if (in->job->svd_group > ranks)
        st = dpt_error(DPT_ERR_USAGE,
                       "svd_group: %d ranks cannot share a matrix, there are %d: lower it or start "
                       "more ranks",
                       in->job->svd_group, ranks);
    for (int e = 0; e < in->job->nedits && st == DPT_OK; e++) {
        const dpt_job_edit *edit = &in->job->edits[e];
        st = dpt_job_locate_edit(in->job, edit, dpt_edit_check(&edit->spec, &input));
        if (st == DPT_OK && dpt_job_is_allocated(edit))
            st = dpt_job_locate_edit(in->job, edit, check_allocated_rows(in));
    }
    if (st == DPT_OK)
        warn_of_idle(in->job, &input);
    return st;
}

static dpt_status check_precision(const dpt_comm *comm, dpt_status st, const dpt_job *job) {
    st = dpt_agree(comm, st);
    return st == DPT_OK ? dpt_precision_check(comm, job->precision) : st;
}

dpt_status dpt_checks_run(const dpt_comm *comm, dpt_inputs *inputs, const dpt_resources *resources,
                          const dpt_study_options *options) {
    DPT_ASSERT_SAME(comm, inputs->fingerprint);
    DPT_ASSERT_SAME(comm, resources->ranks);
    DPT_ASSERT_SAME(comm, resources->tensor_parallel);
    DPT_ASSERT_SAME(comm, resources->batch_tokens);
    DPT_ASSERT_SAME(comm, options->resume);
    DPT_ASSERT_SAME(comm, options->dry_run);
    dpt_status st = dpt_agree_fault("study.check");
    if (dpt_inputs_needs_model(inputs) && options->machine == NULL) /* else it will run elsewhere */
        st = check_precision(comm, st, inputs->job);
    if (st == DPT_OK)
        st = check_data(inputs);
    if (st == DPT_OK)
        compare_configs(inputs);
    if (st == DPT_OK)
        warn_of_all_unknown(inputs);
    if (st == DPT_OK)
        st = check_edits(inputs, resources->ranks);
    if (st == DPT_OK && comm->rank == 0)
        st = dpt_outputs_check(inputs, resources, options);
    return dpt_agree(comm, st);
}
