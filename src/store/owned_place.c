/* Where no output of a verb belongs: below the folder of a model, and among the files of a study. */
#include "deltapath/store/owned.h"

#include "deltapath/base/mem.h"
#include "deltapath/base/path.h"
#include "deltapath/store/manifest.h"
#include "deltapath/store/synthetic.h"
#include "owned_internal.h"
#include "store_internal.h"

#include <dirent.h>
#include <jansson.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

static const int64_t PROVENANCE_LIMIT = INT64_C(1) << 30;

static bool place_has(const char *folder, const char *name) {
    char *path = dpt_path_join(folder, name);
    bool there = path != NULL && access(path, F_OK) == 0;
    dpt_mem_free(path);
    return there;
}

/* Whether something in a folder passes a test of its path; false without such a folder. */
static bool place_any(const char *folder, bool (*is)(const char *path)) {
    DIR *opened = opendir(folder);
    bool any = false;
    for (const struct dirent *entry = NULL;
         opened != NULL && !any && (entry = readdir(opened)) != NULL;) {
        bool name = strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
        char *path = name ? dpt_path_join(folder, entry->d_name) : NULL;
        any = path != NULL && is(path);
        dpt_mem_free(path);
    }
    if (opened != NULL)
        closedir(opened);
    return any;
}

static bool place_is_weights(const char *path) {
    return dpt_path_ends_with(path, ".safetensors") || dpt_path_ends_with(path, ".gguf") ||
           strcmp(dpt_path_base(path), DPT_SYNTHETIC_FILE) == 0 ||
           (dpt_owned_begins(dpt_path_base(path), "pytorch_model") &&
            dpt_path_ends_with(path, ".bin"));
}

/* Weights with a configuration or an index next to them, as anybody writes them. */
static bool place_is_model(const char *folder) {
    bool described = place_has(folder, "config.json") ||
                     place_has(folder, "model.safetensors.index.json") ||
                     place_has(folder, DPT_MANIFEST_CHECKPOINT);
    return described && place_any(folder, place_is_weights);
}

static bool place_begins(const char *path, const char *start) {
    char text[DPT_OWNED_START_BYTES + 1], tail[DPT_SEAL_BYTES + 1];
    return dpt_path_is_file(path) && dpt_owned_peek(path, text, tail) > 0 &&
           dpt_owned_begins(text, start);
}

static bool place_is_manifest(const char *path) {
    return place_begins(path, DPT_MANIFEST_START);
}

static bool place_is_progress(const char *path) {
    return place_begins(path, DPT_OWNED_PROGRESS_START);
}

/* An empty file passes for one that was cut off: units are known by their names too, also when aside. */
static bool place_is_unit(const char *path) {
    return strstr(dpt_path_base(path), ".h5") != NULL && dpt_path_is_file(path) &&
           dpt_owned_is_marked(path, DPT_OWNED_UNIT);
}

static bool place_is_results(const char *path) {
    return dpt_path_is_file(path) && dpt_owned_is_marked(path, DPT_OWNED_RESULTS);
}

/* Whether an edit of a study made a model. */
static bool place_is_edited(const char *path) {
    char *name = dpt_path_join(path, "deltapath.json");
    char *text = NULL;
    bool folder = name != NULL && access(name, F_OK) == 0;
    if (folder && dpt_store_path_read_text(name, PROVENANCE_LIMIT, &text) != DPT_OK)
        dpt_error_clear();
    if (!folder && dpt_path_is_file(path) && dpt_path_ends_with(path, ".h5"))
        text = dpt_owned_read_attribute(path, "provenance");
    json_t *root = text != NULL ? json_loads(text, 0, NULL) : NULL;
    const json_t *provenance = folder ? json_object_get(root, "provenance") : root;
    bool edited = json_object_get(provenance, "edit") != NULL;
    json_decref(root);
    dpt_mem_free(text);
    dpt_mem_free(name);
    return edited;
}

/* One that got as far as results, a unit or a part of a pass. */
static bool place_is_study(const char *folder) {
    static const struct {
        const char *name;
        bool (*is)(const char *path);
        bool in; /* of something in it, not of itself */
    } marks[] = {{DPT_MANIFEST_STUDY, place_is_manifest, false},
                 {"results.h5", place_is_results, false},
                 {"units", place_is_unit, true},
                 {"progress", place_is_progress, true}};
    bool study = false;
    for (size_t i = 0; i < sizeof marks / sizeof marks[0] && !study; i++) {
        char *path = dpt_path_join(folder, marks[i].name);
        study = path != NULL && (marks[i].in ? place_any(path, marks[i].is) : marks[i].is(path));
        dpt_mem_free(path);
    }
    return study;
}

bool dpt_owned_is_study(const char *folder) {
    char *models = dpt_path_join(folder, "models");
    bool study = place_is_study(folder) || (models != NULL && place_any(models, place_is_edited));
    dpt_mem_free(models);
    return study;
}

/* Whether a folder is one of those in which a study keeps its parts, as `o/models` of a study in `o`. Edited
 * models alone do not make one: people collect them. */
static bool place_is_part(const char *folder) {
    static const char *const parts[] = {"models", "units", "references", "progress"};
    bool named = false;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        named = named || strcmp(dpt_path_base(folder), parts[i]) == 0;
    char *study = named ? dpt_path_parent(folder) : NULL;
    bool part = study != NULL && place_is_study(study);
    dpt_mem_free(study);
    return part;
}

/* Whether a path names, or leads through, the folder of a part that is a link to a folder elsewhere: the path
 * without links knows nothing of the study. @param[out] part that folder. */
static bool place_leads_into_part(const char *path, char part[PATH_MAX]) {
    enum { LINKS_MAX = 40 }; /* as the system follows */
    char named[PATH_MAX];
    bool more = dpt_path_absolute(path, named);
    for (int links = 0; more && links < LINKS_MAX; links++) {
        strcpy(part, named);
        do
            if (place_is_part(part))
                return true;
        while (dpt_path_go_up(part));
        more = dpt_path_follow_link(named);
    }
    return false;
}

typedef struct place_rules {
    bool itself; /* a path must not be the folder of a model either */
    bool parts;  /* and neither be nor lie below one of those of a study */
} place_rules;

static dpt_status place_refuse_part(const char *path, const char *part) {
    return dpt_error(DPT_ERR_OUTPUT,
                     "%s: lies among the files of a study, in %s, which only its runs write: "
                     "choose another output",
                     path, part);
}

static dpt_status place_check(const char *path, place_rules rules) {
    char real[PATH_MAX];
    dpt_status st = DPT_OK;
    if (!dpt_path_resolve(path, real))
        return dpt_error(DPT_ERR_OUTPUT, "%s: cannot be resolved: choose a shorter path", path);
    char part[PATH_MAX];
    if (rules.parts && place_leads_into_part(path, part))
        st = place_refuse_part(path, part);
    for (bool first = true, more = true; st == DPT_OK && more; first = false) {
        if (rules.parts && place_is_part(real))
            st = place_refuse_part(path, real);
        else if ((rules.itself || !first) && place_is_model(real))
            st = dpt_error(DPT_ERR_OUTPUT,
                           "%s: lies in the folder of a model, %s, which is left as it is: choose "
                           "another output",
                           path, real);
        more = dpt_path_go_up(real);
    }
    return st;
}

dpt_status dpt_owned_check_outside(const char *path) {
    return place_check(path, (place_rules){.parts = true});
}

dpt_status dpt_owned_check_place(const char *path) {
    return place_check(path, (place_rules){.itself = true, .parts = true});
}

dpt_status dpt_owned_check_part(const char *path) {
    return place_check(path, (place_rules){.itself = true});
}
