#include "deltapath/base/file.h"
#include "deltapath/base/hash.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/sealed.h"
#include "deltapath/comm/agree.h"
#include "deltapath/store/manifest.h"
#include "deltapath/results/results.h"
#include "deltapath/store/owned.h"
#include "deltapath/store/store.h"
#include "verify.h"

#include <dirent.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* One folder is looked at on rank 0, but for the models, whose tensors all ranks share. */

static const int64_t SEALED_LIMIT = INT64_C(1) << 40;

/* What a unit says of its model. */
typedef struct audit_unit {
    char *edit;
    uint64_t recipe;
    bool kept; /* a model was kept with it */
} audit_unit;

typedef struct audit {
    const char *folder;
    char *study; /* its name, or NULL when nothing says it */
    FILE *out;
    audit_unit *units; /* that could be read */
    int64_t nunits;
    int64_t files, wrong;
    char first[DPT_MESSAGE_MAX]; /* message of the first finding */
} audit;

/* A finding is printed and the audit goes on; anything else than damaged input ends it. */
static dpt_status verify_study_note(audit *a, dpt_status st) {
    if (st != DPT_ERR_INPUT)
        return st;
    if (a->wrong++ == 0)
        snprintf(a->first, sizeof a->first, "%s", dpt_error_message());
    fprintf(a->out, "%s\n", dpt_error_message());
    dpt_error_clear();
    return DPT_OK;
}

static char *join(const char *folder, const char *name) {
    return dpt_mem_format("%s/%s", folder, name);
}

static bool exists(const char *folder, const char *name) {
    char *path = join(folder, name);
    bool there = path != NULL && access(path, F_OK) == 0;
    dpt_mem_free(path);
    return there;
}

bool dpt_verify_is_study(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode) &&
           (exists(path, DPT_MANIFEST_STUDY) || exists(path, "results.h5") ||
            exists(path, "units") || dpt_owned_is_study(path));
}

static int verify_study_by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

typedef struct listing {
    int64_t count;
    char **names; /* sorted */
} listing;

static void listing_destroy(listing *list) {
    for (int64_t i = 0; i < list->count; i++)
        dpt_mem_free(list->names[i]);
    dpt_mem_free(list->names);
    *list = (listing){.count = 0};
}

/* Names in a folder; none when there is no such folder. */
static dpt_status verify_study_list_folder(const char *folder, listing *out) {
    DIR *opened = opendir(folder);
    dpt_status st = DPT_OK;
    *out = (listing){.count = 0};
    for (struct dirent *entry = NULL; opened != NULL && (entry = readdir(opened)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        char **grown = dpt_mem_realloc(out->names, out->count + 1, sizeof *grown, "list of files");
        char *name = grown != NULL ? dpt_mem_strdup(entry->d_name, "list of files") : NULL;
        if (grown != NULL)
            out->names = grown;
        if (name == NULL) {
            st = DPT_ERR_OUTPUT;
            break;
        }
        out->names[out->count++] = name;
    }
    if (opened != NULL)
        closedir(opened);
    if (out->count > 1)
        qsort(out->names, (size_t)out->count, sizeof *out->names, verify_study_by_name);
    return st;
}

static void say_uncovered(const audit *a, const char *folder, const char *name) {
    fprintf(a->out, "%s/%s: not of this study, or left by a run that was killed: not checked\n",
            folder, name);
}

static dpt_status check_manifest(audit *a, dpt_manifest *manifest) {
    bool found = false;
    char *path = join(a->folder, DPT_MANIFEST_STUDY);
    dpt_status st = path != NULL ? dpt_manifest_read(path, manifest, &found) : DPT_ERR_OUTPUT;
    if (st == DPT_OK && (!found || dpt_manifest_find(manifest, "results.h5") == NULL))
        st = dpt_error(DPT_ERR_INPUT,
                       "%s: is missing or incomplete: finish the study with --resume", path);
    a->files++;
    st = verify_study_note(a, st);
    if (st == DPT_OK && manifest->name != NULL) {
        a->study = dpt_mem_strdup(manifest->name, "name of a study");
        st = a->study != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    }
    for (int64_t i = 0; i < manifest->count && st == DPT_OK; i++, a->files++)
        st = verify_study_note(a, dpt_manifest_check(a->folder, &manifest->entries[i]));
    dpt_mem_free(path);
    return st;
}

/* Whether a unit's model is there and is the one that it judges. */
static dpt_status check_model_of(const audit *a, const dpt_result *unit, const char *name,
                                 uint64_t recipe, uint64_t model) {
    dpt_store_origin origin = {.digest = 0};
    char text[17];
    char *path = dpt_mem_format("%s/models/%s.h5", a->folder, unit->edit);
    if (path != NULL && access(path, F_OK) != 0)
        path[strlen(path) - 3] = '\0'; /* a safetensors folder */
    if (path == NULL)
        return DPT_ERR_OUTPUT;
    dpt_status st = dpt_store_get_origin(path, &origin);
    dpt_hash_format(recipe, text);
    if (st == DPT_OK && (origin.digest != model || strcmp(origin.recipe, text) != 0))
        st = dpt_error(DPT_ERR_INPUT,
                       "%s: is not the model that units/%s is about: run the study again with "
                       "--resume, or move that unit away if that leaves it as it is",
                       path, name);
    dpt_mem_free(path);
    return st;
}

static dpt_status check_study_of(const audit *a, const char *path) {
    char *study = a->study != NULL ? dpt_owned_read_attribute(path, "study") : NULL;
    dpt_status st = DPT_OK;
    if (study != NULL && strcmp(study, a->study) != 0)
        st = dpt_error(DPT_ERR_INPUT, "%s: belongs to the study '%s', not to '%s': move it away",
                       path, study, a->study);
    dpt_mem_free(study);
    return st;
}

static dpt_status audit_remember(audit *a, const dpt_result *unit, uint64_t recipe, bool kept) {
    audit_unit *grown = dpt_mem_realloc(a->units, a->nunits + 1, sizeof *grown, "list of units");
    if (grown == NULL)
        return DPT_ERR_OUTPUT;
    a->units = grown;
    grown[a->nunits] = (audit_unit){
        .edit = dpt_mem_strdup(unit->edit, "list of units"), .recipe = recipe, .kept = kept};
    return grown[a->nunits++].edit != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

static void audit_destroy(audit *a) {
    for (int64_t i = 0; i < a->nunits; i++)
        dpt_mem_free(a->units[i].edit);
    dpt_mem_free(a->units);
    dpt_mem_free(a->study);
}

/* A damaged unit is made again, which a file that is none is not. */
static dpt_status verify_study_blame(const char *path) {
    char message[DPT_MESSAGE_MAX];
    snprintf(message, sizeof message, "%s", dpt_error_message());
    dpt_error_clear();
    if (dpt_owned_check(path, DPT_OWNED_UNIT, NULL) == DPT_OK) {
        dpt_error_set_message(message);
        return DPT_ERR_INPUT;
    }
    dpt_error_clear();
    return dpt_error(DPT_ERR_INPUT, "%s: is no unit of a study that deltapath wrote: move it away",
                     path);
}

static dpt_status check_unit(audit *a, const char *name, bool models) {
    dpt_result unit;
    uint64_t recipe = 0, model = 0;
    char *path = dpt_mem_format("%s/units/%s", a->folder, name);
    dpt_status st =
        path != NULL ? dpt_results_read_unit(path, &unit, &recipe, &model) : DPT_ERR_OUTPUT;
    if (st == DPT_ERR_INPUT)
        st = verify_study_blame(path);
    char *expected = st == DPT_OK ? dpt_results_unit_name(unit.edit, unit.data) : NULL;
    if (st == DPT_OK && (expected == NULL || strcmp(expected, name) != 0))
        st = dpt_error(DPT_ERR_INPUT,
                       "%s: holds another unit: run the study again with --resume, or move it away "
                       "if that leaves it as it is",
                       path);
    if (st == DPT_OK)
        st = check_study_of(a, path);
    if (st == DPT_OK)
        st = audit_remember(a, &unit, recipe, model != 0);
    if (st == DPT_OK && model != 0 && models)
        st = check_model_of(a, &unit, name, recipe, model);
    dpt_mem_free(expected);
    dpt_result_destroy(&unit);
    dpt_mem_free(path);
    return st;
}

static dpt_status verify_study_check_units(audit *a) {
    listing list;
    char *folder = join(a->folder, "units");
    dpt_status st = folder != NULL ? verify_study_list_folder(folder, &list) : DPT_ERR_OUTPUT;
    for (int64_t i = 0; st == DPT_OK && i < list.count; i++) {
        if (dpt_file_temporary_stem(list.names[i])) {
            say_uncovered(a, folder, list.names[i]);
            continue;
        }
        a->files++;
        st = verify_study_note(a, check_unit(a, list.names[i], true));
    }
    if (folder != NULL)
        listing_destroy(&list);
    dpt_mem_free(folder);
    return st;
}

/* A model without a unit that says it kept one: it must at least be of the recipe of some unit of its edit. */
static dpt_status check_recipe_of(const audit *a, const char *path, const char *edit) {
    dpt_store_origin origin = {.digest = 0};
    int64_t units = 0, same = 0;
    if (dpt_store_get_origin(path, &origin) != DPT_OK) {
        dpt_error_clear(); /* said where the models are read */
        return DPT_OK;
    }
    for (int64_t i = 0; i < a->nunits; i++) {
        char text[17];
        dpt_hash_format(a->units[i].recipe, text);
        if (strcmp(a->units[i].edit, edit) != 0)
            continue;
        units++;
        same += strcmp(text, origin.recipe) == 0;
    }
    if (same > 0)
        return DPT_OK;
    return dpt_error(DPT_ERR_INPUT,
                     units == 0 && !exists(a->folder, "results.h5")
                         ? "%s: no result is about this model yet: finish the study with --resume"
                     : units == 0 ? "%s: no result is about this model: move it away"
                                  : "%s: is not the model that the results are about: it was made "
                                    "with other parameters: move it away",
                     path);
}

/* Whether the model at such a place was compared with its unit. */
static bool audit_has_compared(const audit *a, const char *edit, bool hdf5) {
    char *path = dpt_mem_format("%s/models/%s.h5", a->folder, edit);
    bool first = path != NULL && (access(path, F_OK) == 0) == hdf5;
    dpt_mem_free(path);
    for (int64_t i = 0; i < a->nunits; i++)
        if (first && a->units[i].kept && strcmp(a->units[i].edit, edit) == 0)
            return true;
    return false;
}

static dpt_status check_recipes(audit *a) {
    listing list = {.count = 0};
    char *folder = join(a->folder, "models");
    dpt_status st = folder != NULL ? verify_study_list_folder(folder, &list) : DPT_ERR_OUTPUT;
    for (int64_t i = 0; st == DPT_OK && i < list.count; i++) {
        size_t n = strlen(list.names[i]);
        bool hdf5 = n > 3 && strcmp(list.names[i] + n - 3, ".h5") == 0;
        char *edit = dpt_mem_format("%.*s", (int)(hdf5 ? n - 3 : n), list.names[i]);
        char *path = join(folder, list.names[i]);
        if (edit == NULL || path == NULL)
            st = DPT_ERR_OUTPUT;
        else if (!dpt_file_temporary_stem(list.names[i]) && !audit_has_compared(a, edit, hdf5))
            st = verify_study_note(a, check_recipe_of(a, path, edit));
        dpt_mem_free(path);
        dpt_mem_free(edit);
    }
    listing_destroy(&list);
    dpt_mem_free(folder);
    return st;
}

/* Caches and progress: sealed files, which may be missing. */
static dpt_status check_sealed(audit *a, const char *name) {
    listing list;
    char *folder = join(a->folder, name);
    if (folder == NULL)
        return DPT_ERR_OUTPUT;
    dpt_status st = verify_study_list_folder(folder, &list);
    for (int64_t i = 0; st == DPT_OK && i < list.count; i++) {
        char *path = join(folder, list.names[i]);
        char *bytes = NULL;
        int64_t n = 0;
        if (path == NULL)
            st = DPT_ERR_OUTPUT;
        else if (dpt_file_temporary_stem(list.names[i]))
            say_uncovered(a, folder, list.names[i]);
        else {
            a->files++;
            st = verify_study_note(a, dpt_sealed_read(path, SEALED_LIMIT, &bytes, &n));
        }
        dpt_mem_free(bytes);
        dpt_mem_free(path);
    }
    listing_destroy(&list);
    dpt_mem_free(folder);
    return st;
}

static dpt_status compare_unit(const audit *a, const dpt_result *result) {
    dpt_result unit;
    uint64_t recipe, model;
    char *name = dpt_results_unit_name(result->edit, result->data);
    char *path = name != NULL ? dpt_mem_format("%s/units/%s", a->folder, name) : NULL;
    dpt_status st =
        path != NULL ? dpt_results_read_unit(path, &unit, &recipe, &model) : DPT_ERR_OUTPUT;
    if (st == DPT_OK && !dpt_results_same_unit(&unit, result))
        st = dpt_error(DPT_ERR_INPUT,
                       "%s: differs from the same unit in results.h5: run the study again with "
                       "--resume",
                       path);
    if (path != NULL)
        dpt_result_destroy(&unit);
    dpt_mem_free(path);
    dpt_mem_free(name);
    return st;
}

/* The units of results.h5 are those in units/. A joined study has none of its own. */
static dpt_status check_results(audit *a) {
    dpt_results results = {.count = 0};
    char *path = join(a->folder, "results.h5");
    dpt_status st =
        path != NULL ? verify_study_note(a, dpt_results_read(path, &results)) : DPT_ERR_OUTPUT;
    json_t *provenance =
        results.provenance != NULL ? json_loads(results.provenance, 0, NULL) : NULL;
    bool joined = json_object_get(provenance, "joined") != NULL;
    for (int64_t i = 0; i < results.count && st == DPT_OK && !joined; i++)
        st = verify_study_note(a, compare_unit(a, &results.results[i]));
    json_decref(provenance);
    dpt_results_destroy(&results);
    dpt_mem_free(path);
    return st;
}

static dpt_status verify_study_say_unlisted(const audit *a, const dpt_manifest *manifest) {
    static const char *const ours[] = {"units", "models", "references", "progress",
                                       DPT_MANIFEST_STUDY};
    listing list;
    dpt_status st = verify_study_list_folder(a->folder, &list);
    for (int64_t i = 0; st == DPT_OK && i < list.count; i++) {
        bool known = dpt_manifest_find(manifest, list.names[i]) != NULL;
        for (size_t k = 0; k < sizeof ours / sizeof *ours; k++)
            known = known || strcmp(list.names[i], ours[k]) == 0;
        if (!known)
            say_uncovered(a, a->folder, list.names[i]);
    }
    listing_destroy(&list);
    return st;
}

static dpt_status check_files(audit *a) {
    dpt_manifest manifest = {.count = 0};
    dpt_status st = check_manifest(a, &manifest);
    if (st == DPT_OK && exists(a->folder, "results.h5"))
        st = check_results(a);
    if (st == DPT_OK)
        st = verify_study_check_units(a);
    if (st == DPT_OK)
        st = check_recipes(a);
    if (st == DPT_OK)
        st = check_sealed(a, "references");
    if (st == DPT_OK)
        st = check_sealed(a, "progress");
    if (st == DPT_OK)
        st = verify_study_say_unlisted(a, &manifest);
    dpt_manifest_destroy(&manifest);
    return st;
}

/* The models' names end to end, each with its terminator; the same on all ranks. */
static dpt_status list_models(const dpt_comm *comm, const char *folder, char **names, int64_t *n) {
    dpt_status st = DPT_OK;
    listing list = {.count = 0};
    *names = NULL;
    *n = 0;
    if (comm->rank == 0)
        st = verify_study_list_folder(folder, &list);
    for (int64_t i = 0; i < list.count; i++)
        *n += (int64_t)strlen(list.names[i]) + 1;
    st = dpt_agree(comm, st);
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_comm_broadcast(comm, n, sizeof *n, 0));
    if (st == DPT_OK) {
        *names = dpt_mem_zalloc(*n, 1, "names of models");
        st = dpt_agree(comm, *names != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    }
    char *at = *names;
    for (int64_t i = 0; st == DPT_OK && i < list.count; i++)
        at = stpcpy(at, list.names[i]) + 1;
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_comm_broadcast(comm, *names, *n, 0));
    listing_destroy(&list);
    return st;
}

static dpt_status check_models(const dpt_comm *comm, audit *a) {
    char *names = NULL;
    int64_t n = 0;
    char *folder = join(a->folder, "models");
    dpt_status st = dpt_agree(comm, folder != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    if (st == DPT_OK)
        st = list_models(comm, folder, &names, &n);
    for (char *name = names; st == DPT_OK && name < names + n; name += strlen(name) + 1) {
        if (dpt_file_temporary_stem(name)) {
            if (comm->rank == 0)
                say_uncovered(a, folder, name);
            continue;
        }
        char *path = join(folder, name);
        st = dpt_agree(comm, path != NULL ? DPT_OK : DPT_ERR_OUTPUT);
        if (st == DPT_OK)
            st = verify_study_note(a, dpt_verify_model(comm, path, NULL, a->out));
        a->files++;
        dpt_mem_free(path);
    }
    dpt_mem_free(names);
    dpt_mem_free(folder);
    return st;
}

dpt_status dpt_verify_study(const dpt_comm *comm, const char *path, FILE *out) {
    FILE *null = comm->rank != 0 ? fopen("/dev/null", "we") : NULL;
    audit a = {.folder = path, .out = comm->rank == 0 ? out : null};
    dpt_status st = dpt_agree(comm, a.out != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    if (st == DPT_OK)
        st = dpt_agree(comm, comm->rank == 0 ? check_files(&a) : DPT_OK);
    if (st == DPT_OK)
        st = check_models(comm, &a);
    if (st == DPT_OK && comm->rank == 0) {
        fprintf(out, "%s: %" PRId64 " files and models checked, %" PRId64 " findings\n", path,
                a.files, a.wrong);
        if (a.wrong > 0)
            st = dpt_error(DPT_ERR_INPUT, "%s", a.first);
    }
    if (null != NULL)
        fclose(null);
    audit_destroy(&a);
    return dpt_agree(comm, st);
}
