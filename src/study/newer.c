#include "newer.h"

#include "deltapath/base/file.h"
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/results/results.h"
#include "outputs.h"

#include <dirent.h>

/* The time at which the oldest was made. */
static void newer_look(const char *path, int64_t *oldest) {
    dpt_file_identity file;
    if (path != NULL && dpt_file_identify(path, &file) == DPT_OK && file.mtime < *oldest)
        *oldest = file.mtime;
    dpt_error_clear();
}

static void newer_look_into(const char *directory, const char *name, int64_t *oldest) {
    char *folder = dpt_mem_format("%s/%s", directory, name);
    DIR *listing = folder != NULL ? opendir(folder) : NULL;
    for (struct dirent *entry = listing != NULL ? readdir(listing) : NULL; entry != NULL;
         entry = readdir(listing)) {
        char *path = dpt_mem_format("%s/%s", folder, entry->d_name);
        if (entry->d_name[0] != '.')
            newer_look(path, oldest);
        dpt_mem_free(path);
    }
    if (listing != NULL)
        closedir(listing);
    dpt_mem_free(folder);
}

static void newer_compare(const dpt_store *store, int64_t oldest) {
    if (store != NULL && dpt_store_changed_at(store) > oldest)
        dpt_log(
            DPT_LOG_WARN,
            "%s: was changed, copied or moved after the results that --resume keeps: that it is "
            "the same model is known from samples of each tensor until an edit reads all of it: "
            "give --verify-inputs to compare all of it now, or, when it is another one, "
            "output.overwrite=true in place of --resume",
            dpt_store_path(store));
}

void dpt_warn_of_newer(const dpt_inputs *in, const bool *finished, int units) {
    const dpt_job *job = in->job;
    int64_t oldest = INT64_MAX;
    for (int i = 0; i < job->nedits * units; i++) {
        int d = dpt_inputs_needs_model(in) ? i % units : -1;
        if (!finished[i / units] || !dpt_job_judges(&job->edits[i / units], d))
            continue;
        char *path = dpt_results_unit_path(job->directory, job->edits[i / units].id,
                                           dpt_outputs_data_name(job, d));
        newer_look(path, &oldest);
        dpt_mem_free(path);
    }
    newer_look_into(job->directory, "progress", &oldest);
    newer_look_into(job->directory, "references", &oldest);
    newer_compare(in->pre, oldest);
    newer_compare(in->post, oldest);
    for (int d = 0; d < job->njudged; d++)
        newer_compare(in->reference[d], oldest);
}

void dpt_warn_of_companions(const dpt_inputs *in, const bool *finished) {
    const dpt_job *job = in->job;
    char *changed = NULL;
    int models = 0;
    for (int e = 0; e < job->nedits && job->checkpoint != DPT_STORE_NONE; e++) {
        char *path = finished[e] ? dpt_outputs_model_path(job, &job->edits[e]) : NULL;
        char *name = NULL;
        if (path != NULL && dpt_store_compare_companions(in->post, path, &name) != DPT_OK) {
            dpt_log(DPT_LOG_WARN, "%s", dpt_error_message());
            dpt_error_clear();
        }
        models += name != NULL;
        if (changed == NULL)
            changed = name;
        else
            dpt_mem_free(name);
        dpt_mem_free(path);
    }
    if (models > 0)
        dpt_log(DPT_LOG_WARN,
                "%s: %s changed since: %d finished models in %s/models have another one and keep "
                "it, models that are made now get the new one: bring the old one back, or give "
                "output.overwrite=true in place of --resume to make all again",
                job->post, changed, models, job->directory);
    dpt_mem_free(changed);
}
