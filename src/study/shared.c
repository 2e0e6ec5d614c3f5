#include "shared.h"

#include "deltapath/base/mem.h"
#include "deltapath/base/path.h"
#include "deltapath/results/results.h"
#include "deltapath/store/store.h"

#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

static bool shared_is_link(const char *directory) {
    struct stat info;
    char *models = dpt_path_join(directory, "models");
    bool link = models != NULL && lstat(models, &info) == 0 && S_ISLNK(info.st_mode);
    dpt_mem_free(models);
    return link;
}

static bool shared_is_about(const char *folder, const char *name, uint64_t digest) {
    dpt_result unit = {.edit = NULL};
    uint64_t recipe = 0, model = 0;
    char *path = dpt_path_join(folder, name);
    bool about = path != NULL && dpt_results_read_unit(path, &unit, &recipe, &model) == DPT_OK &&
                 model == digest;
    dpt_error_clear();
    dpt_result_destroy(&unit);
    dpt_mem_free(path);
    return about;
}

/* Whether a unit of the study, which begins with the name of its edit, is about a model. */
static bool shared_has_unit(const char *directory, const char *model, uint64_t digest) {
    char *folder = dpt_path_join(directory, "units");
    char *name = dpt_path_ends_with(model, ".h5")
                     ? dpt_mem_format("%.*s", (int)strlen(model) - 3, model)
                     : dpt_mem_strdup(model, "name of a model");
    char *start = name != NULL ? dpt_results_unit_name(dpt_path_base(name), "") : NULL;
    size_t n = start != NULL ? strcspn(start, "@") + 1 : 0;
    DIR *opened = folder != NULL && n > 0 ? opendir(folder) : NULL;
    bool found = false;
    for (const struct dirent *entry = NULL;
         opened != NULL && !found && (entry = readdir(opened)) != NULL;)
        found =
            strncmp(entry->d_name, start, n) == 0 && shared_is_about(folder, entry->d_name, digest);
    if (opened != NULL)
        closedir(opened);
    dpt_mem_free(start);
    dpt_mem_free(name);
    dpt_mem_free(folder);
    return found;
}

dpt_status dpt_shared_check(const dpt_job *job, const char *model) {
    dpt_store_origin origin = {.digest = 0};
    if (!dpt_path_exists(model) || !shared_is_link(job->directory))
        return DPT_OK;
    if (dpt_store_get_origin(model, &origin) != DPT_OK)
        dpt_error_clear(); /* what is no model is said where models are checked */
    if (origin.digest == 0 || shared_has_unit(job->directory, model, origin.digest))
        return DPT_OK;
    return dpt_error(
        DPT_ERR_OUTPUT,
        "%s: no result in %s is about this model, and models/ is a link: another study "
        "named '%s' may have made it: give one of them another name, or move the model "
        "away",
        model, job->directory, job->name);
}
