#include "recipe.h"

#include "deltapath/base/hash.h"
#include "deltapath/base/log.h"
#include "deltapath/base/version.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

uint64_t dpt_recipe_of(const dpt_inputs *in, const dpt_job_edit *edit) {
    const dpt_job *job = in->job;
    dpt_hash hash;
    dpt_hash_begin(&hash);
    dpt_hash_update(&hash, DPT_VERSION, sizeof DPT_VERSION);
    dpt_hash_update(&hash, &in->fingerprint, sizeof in->fingerprint);
    dpt_hash_update(&hash, in->selected, (size_t)in->catalog->count * sizeof *in->selected);
    dpt_job_hash_for_models(job, &hash);
    dpt_job_hash_edit(edit, &hash);
    const int data[] = {edit->gradient_data, edit->auto_data};
    for (int i = 0; i < 2; i++) {
        uint64_t key =
            data[i] >= 0 && dpt_inputs_needs_model(in) ? dpt_inputs_data_key(in, data[i]) : 0;
        dpt_hash_update(&hash, &key, sizeof key);
    }
    /* Values that are found follow from the draws of labels. */
    const uint64_t law[] = {(uint64_t)job->law.repeats, job->law.seed, (uint64_t)job->law.labels};
    const size_t parts = job->law.labels == DPT_LABELS_ALL ? 3 : 2;
    if (dpt_job_is_allocated(edit))
        dpt_hash_update(&hash, law, parts * sizeof *law);
    return dpt_hash_value(&hash);
}

/* Rank 0: whether it is such a model. */
static bool recipe_matches(const char *path, uint64_t recipe, uint64_t *digest) {
    dpt_store_origin origin;
    char text[17];
    if (access(path, F_OK) != 0)
        return false;
    if (dpt_store_get_origin(path, &origin) != DPT_OK) {
        dpt_log(DPT_LOG_WARN, "%s: this model is made again", dpt_error_message());
        dpt_error_clear();
        return false;
    }
    dpt_hash_format(recipe, text);
    *digest = origin.digest;
    if (origin.ours && strcmp(origin.recipe, text) == 0)
        return true;
    dpt_log(DPT_LOG_WARN,
            "%s: another edit, job or version of the program made it: this model is made again",
            path);
    return false;
}

dpt_status dpt_recipe_find_model(const dpt_comm *comm, const char *path, uint64_t recipe,
                                 bool *found, uint64_t *digest) {
    DPT_ASSERT_SAME_TEXT(comm, path);
    DPT_ASSERT_SAME(comm, recipe);
    uint64_t answer[2] = {0, 0};
    if (comm->rank == 0)
        answer[0] = recipe_matches(path, recipe, &answer[1]);
    dpt_status st = dpt_agree(comm, dpt_comm_broadcast(comm, answer, sizeof answer, 0));
    *found = st == DPT_OK && answer[0] != 0;
    *digest = answer[1];
    return st;
}

uint64_t dpt_recipe_in_memory(const dpt_inputs *in, const dpt_job_edit *edit,
                              const dpt_edit_spec *spec) {
    uint64_t numbers[] = {in->fingerprint,
                          (uint64_t)in->job->on_mismatch,
                          in->job->requantises  ? UINT64_MAX - 1
                          : in->job->same_dtype ? UINT64_MAX
                                                : (uint64_t)in->job->dtype,
                          (uint64_t)in->job->svd_group,
                          spec->seed,
                          (uint64_t)spec->calibrate,
                          edit->gradient_data >= 0 ? in->data[edit->gradient_data].hash : 0};
    size_t tensors = (size_t)in->catalog->count;
    dpt_hash hash;
    dpt_hash_begin(&hash);
    dpt_hash_update(&hash, numbers, sizeof numbers);
    dpt_hash_update(&hash, in->selected, tensors * sizeof *in->selected);
    for (int i = 0; i < spec->nstages; i++) {
        const dpt_edit_stage_spec *stage = &spec->stages[i];
        const char *name = dpt_edit_method_name(stage->method);
        dpt_hash_update(&hash, name, strlen(name) + 1);
        dpt_hash_update(&hash, stage->values, sizeof stage->values);
        dpt_hash_update(&hash, &stage->cut_from, sizeof stage->cut_from);
        if (stage->tensor_values != NULL)
            dpt_hash_update(&hash, stage->tensor_values, tensors * sizeof(double));
    }
    return dpt_hash_value(&hash);
}
