#include "existing.h"

#include "deltapath/base/file.h"
#include "deltapath/base/guard.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/path.h"
#include "deltapath/store/manifest.h"
#include "deltapath/store/owned.h"
#include "deltapath/results/results.h"
#include "aside.h"
#include "outputs.h"
#include "loss_kinds.h"
#include "shared.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { KIND_MODEL = -1, KIND_TEMPORARY = -2 }; /* besides dpt_owned_kind */

static const struct place {
    const char *name;
    int kind;
} files[] = {{"results.h5", DPT_OWNED_RESULTS},       {"summary.csv", DPT_OWNED_SUMMARY},
             {"plane.csv", DPT_OWNED_PLANE},          {"seeds.csv", DPT_OWNED_SEEDS},
             {"proof.csv", DPT_OWNED_PROOF},          {"results.json", DPT_OWNED_JSON},
             {"report.html", DPT_OWNED_REPORT},       {DPT_PREDICTIONS, DPT_OWNED_PREDICTIONS},
             {DPT_MANIFEST_STUDY, DPT_OWNED_MANIFEST}},
  folders[] = {{"units", DPT_OWNED_UNIT},
               {"references", DPT_OWNED_CACHE},
               {"progress", DPT_OWNED_PROGRESS},
               {"models", KIND_MODEL}};

enum { FILES = sizeof files / sizeof *files, FOLDERS = sizeof folders / sizeof *folders };

typedef struct existing_item {
    char *path;
    int kind;
    dpt_file_identity found;
    bool left;   /* it is aside, where a run that was killed left it */
    char *aside; /* where it is now, when it stepped aside */
} existing_item;

struct dpt_existing {
    existing_item *items;
    int count, capacity;
};

static void list_destroy(dpt_existing *list) {
    for (int i = 0; i < list->count; i++) {
        dpt_mem_free(list->items[i].path);
        dpt_mem_free(list->items[i].aside);
    }
    dpt_mem_free(list->items);
    *list = (dpt_existing){.count = 0};
}

/* Takes the path over. */
static dpt_status list_add(dpt_existing *list, char *path, int kind) {
    if (path != NULL && list->count == list->capacity) {
        int more = list->capacity == 0 ? 64 : 2 * list->capacity;
        existing_item *grown =
            dpt_mem_realloc(list->items, more, sizeof *grown, "files of a directory");
        if (grown == NULL) {
            dpt_mem_free(path);
            return DPT_ERR_OUTPUT;
        }
        list->items = grown;
        list->capacity = more;
    }
    if (path == NULL)
        return DPT_ERR_OUTPUT;
    list->items[list->count++] = (existing_item){.path = path, .kind = kind};
    return DPT_OK;
}

/* What an entry of a folder is: a temporary file, something of an earlier study that stepped aside and was
 * not replaced, or the thing itself. */
static dpt_status existing_add_entry(const char *path, const char *name, int kind, bool final,
                                     dpt_existing *list) {
    bool left = !final && dpt_aside_stem(name) > 0;
    bool temporary = !left && dpt_file_temporary_stem(name) > 0;
    dpt_status st =
        list_add(list, dpt_mem_format("%s/%s", path, name), temporary ? KIND_TEMPORARY : kind);
    if (st == DPT_OK)
        list->items[list->count - 1].left = left;
    return st;
}

/* @param[in] final  what stepped aside has been replaced. */
static dpt_status existing_list_folder(const char *path, int kind, bool final, dpt_existing *list) {
    struct stat info;
    DIR *folder = opendir(path);
    int error = errno;
    if (folder == NULL && lstat(path, &info) != 0)
        return DPT_OK;
    if (folder == NULL)
        return dpt_error(DPT_ERR_OUTPUT, "%s: cannot be listed: %s: choose another directory", path,
                         strerror(error));
    dpt_status st = DPT_OK;
    const struct dirent *entry;
    while (st == DPT_OK && (entry = readdir(folder)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            st = existing_add_entry(path, entry->d_name, kind, final, list);
    closedir(folder);
    return st;
}

/* Files of the study itself that are aside. */
static dpt_status existing_find_left(const char *directory, dpt_existing *list) {
    DIR *folder = opendir(directory);
    dpt_status st = DPT_OK;
    for (const struct dirent *entry = NULL;
         folder != NULL && st == DPT_OK && (entry = readdir(folder)) != NULL;) {
        size_t n = dpt_aside_stem(entry->d_name);
        for (int i = 0; i < FILES && n > 0 && st == DPT_OK; i++)
            if (strlen(files[i].name) == n && strncmp(entry->d_name, files[i].name, n) == 0)
                st = existing_add_entry(directory, entry->d_name, files[i].kind, false, list);
    }
    if (folder != NULL)
        closedir(folder);
    return st;
}

/* Everything that lies at the places of a study. */
static dpt_status existing_find(const dpt_job *job, dpt_existing *list) {
    bool final = dpt_aside_is_final(job->directory);
    dpt_status st = final ? DPT_OK : existing_find_left(job->directory, list);
    for (int i = 0; i < FILES && st == DPT_OK; i++) {
        struct stat info;
        char *path = dpt_mem_format("%s/%s", job->directory, files[i].name);
        if (path == NULL || lstat(path, &info) == 0)
            st = list_add(list, path, files[i].kind);
        else
            dpt_mem_free(path);
    }
    for (int i = 0; i < FOLDERS && st == DPT_OK; i++) {
        char *path = dpt_mem_format("%s/%s", job->directory, folders[i].name);
        st = path != NULL ? existing_list_folder(path, folders[i].kind, final, list)
                          : DPT_ERR_OUTPUT;
        dpt_mem_free(path);
    }
    return st;
}

static dpt_status existing_check_item(const dpt_job *job, const existing_item *item) {
    if (item->kind == KIND_TEMPORARY)
        return dpt_owned_check_temporary(item->path);
    if (item->kind != KIND_MODEL)
        return dpt_owned_check(item->path, (dpt_owned_kind)item->kind, job->name);
    /* The model of an edit has its id as name, also when the job no longer has that edit. */
    const char *base = strrchr(item->path, '/') + 1;
    size_t n = item->left ? dpt_aside_stem(base) : strlen(base);
    bool hdf5 = n > 3 && strncmp(base + n - 3, ".h5", 3) == 0;
    char *edit = dpt_mem_format("%.*s", (int)(hdf5 ? n - 3 : n), base);
    dpt_status st =
        edit == NULL ? DPT_ERR_OUTPUT : dpt_owned_check_model(item->path, edit, job->name);
    dpt_mem_free(edit);
    return st;
}

/* Takes the path over. */
static dpt_status check_file(const dpt_job *job, char *path, dpt_owned_kind kind) {
    dpt_status st = path != NULL ? dpt_owned_check(path, kind, job->name) : DPT_ERR_OUTPUT;
    dpt_mem_free(path);
    return st;
}

static dpt_status check_edit(const dpt_job *job, const dpt_job_edit *edit) {
    dpt_status st = DPT_OK;
    if (job->checkpoint != DPT_STORE_NONE) {
        char *path = dpt_outputs_model_path(job, edit);
        st = path != NULL ? dpt_owned_check_model(path, edit->id, job->name) : DPT_ERR_OUTPUT;
        dpt_mem_free(path);
    }
    /* Which of them are written depends on the inputs: those of data sets, or one without. */
    for (int d = -1; d < job->ndata && st == DPT_OK; d++)
        st = check_file(
            job, dpt_results_unit_path(job->directory, edit->id, dpt_outputs_data_name(job, d)),
            DPT_OWNED_UNIT);
    return st;
}

/* Only the manifest of a study says that its texts are as they were written. It is written before them, so
 * that a run that was killed leaves none without it. */
static dpt_status check_vouched(const dpt_job *job) {
    static const char *const texts[] = {"summary.csv", "seeds.csv",    "plane.csv",
                                        "proof.csv",   "results.json", "report.html"};
    dpt_manifest manifest = {.count = 0};
    struct stat info;
    bool found = false;
    char *list = dpt_mem_format("%s/" DPT_MANIFEST_STUDY, job->directory);
    dpt_status st = list != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    if (st == DPT_OK && dpt_manifest_read(list, &manifest, &found) != DPT_OK) {
        dpt_error_clear();
        st = dpt_error(DPT_ERR_OUTPUT,
                       "%s: was damaged or changed, and nothing else says that the tables of this "
                       "study are as they were written: move it and them away, --resume writes "
                       "them anew",
                       list);
    }
    for (size_t i = 0; i < sizeof texts / sizeof *texts && st == DPT_OK && !found; i++) {
        char *path = dpt_mem_format("%s/%s", job->directory, texts[i]);
        if (path == NULL)
            st = DPT_ERR_OUTPUT;
        else if (lstat(path, &info) == 0)
            st = dpt_error(DPT_ERR_OUTPUT,
                           "%s: no %s says that it is as it was written: move it away, "
                           "--resume writes it anew",
                           path, list);
        dpt_mem_free(path);
    }
    dpt_manifest_destroy(&manifest);
    dpt_mem_free(list);
    return st;
}

/* The places that this study writes to. */
static dpt_status check_own_places(const dpt_job *job) {
    dpt_status st = DPT_OK;
    for (int i = 0; i < FILES && st == DPT_OK; i++)
        st = check_file(job, dpt_mem_format("%s/%s", job->directory, files[i].name),
                        (dpt_owned_kind)files[i].kind);
    if (st == DPT_OK)
        st = check_vouched(job);
    for (int d = 0; d < job->ndata && st == DPT_OK; d++)
        if (dpt_loss_kind_of(job->data[d].loss)->reference)
            st = check_file(
                job, dpt_mem_format("%s/references/%s.h5", job->directory, job->data[d].name),
                DPT_OWNED_CACHE);
    for (int e = 0; e < job->nedits && st == DPT_OK; e++)
        st = check_edit(job, &job->edits[e]);
    return st;
}

/* A file of another study: two studies in one directory would be mixed up, whatever this run is to do. */
static bool existing_is_of_another(const existing_item *item) {
    if (item->kind == KIND_TEMPORARY || item->kind == KIND_MODEL)
        return false; /* folders of models may be shared */
    char message[DPT_MESSAGE_MAX];
    snprintf(message, sizeof message, "%s", dpt_error_message());
    bool ours = dpt_owned_check(item->path, (dpt_owned_kind)item->kind, NULL) == DPT_OK;
    dpt_error_set_message(message);
    return ours;
}

static dpt_status check_removable(const dpt_job *job, const dpt_existing *list) {
    dpt_status st = DPT_OK;
    for (int i = 0; i < list->count && st == DPT_OK; i++) {
        const existing_item *item = &list->items[i];
        if (item->kind == KIND_MODEL && !item->left)
            st = dpt_shared_check(job, item->path);
        if (st == DPT_OK && item->kind != KIND_TEMPORARY && !item->left)
            st = dpt_owned_check_removable(item->path);
    }
    return st;
}

/* Whether a unit or a model is of an edit that the job has. */
static bool existing_is_selected(const dpt_job *job, const existing_item *item) {
    const char *base = strrchr(item->path, '/') + 1;
    bool selected = false;
    for (int e = 0; e < job->nedits && !selected; e++) {
        char *unit = dpt_results_unit_name(job->edits[e].id, "");
        const char *id = item->kind == KIND_MODEL ? job->edits[e].id : unit;
        size_t n = id == NULL ? 0 : item->kind == KIND_MODEL ? strlen(id) : strcspn(id, "@");
        const char *after = id != NULL && strncmp(base, id, n) == 0 ? base + n : "-";
        selected = item->kind == KIND_MODEL ? after[0] == '\0' || strcmp(after, ".h5") == 0
                                            : after[0] == '@';
        dpt_mem_free(unit);
    }
    return selected;
}

/* output.overwrite is about a study, --only about a part of it: what the others made would be lost. */
static dpt_status check_only(const dpt_job *job, const dpt_existing *list) {
    dpt_status st = DPT_OK;
    for (int i = 0; i < list->count && st == DPT_OK && job->only; i++)
        if ((list->items[i].kind == KIND_MODEL || list->items[i].kind == DPT_OWNED_UNIT) &&
            !list->items[i].left && !existing_is_selected(job, &list->items[i]))
            st = dpt_error(DPT_ERR_OUTPUT,
                           "%s: is of an edit that --only leaves out, and output.overwrite would "
                           "remove it: give --resume, which keeps it and makes again what has "
                           "changed, or choose another directory",
                           list->items[i].path);
    return st;
}

static dpt_status check_list(const dpt_job *job, const dpt_existing *list, bool replaces,
                             bool *study) {
    char foreign[DPT_MESSAGE_MAX] = "";
    /* A study is of one name: its first file tells, and each one that is to be removed, or that is aside and
     * would come back: no manifest says of which study its tables are. */
    for (int i = 0; i < list->count; i++) {
        if (!replaces && *study && !list->items[i].left)
            continue;
        if (existing_check_item(job, &list->items[i]) == DPT_OK) {
            *study = *study || list->items[i].kind != KIND_TEMPORARY;
            continue;
        }
        if (existing_is_of_another(&list->items[i]))
            return DPT_ERR_OUTPUT;
        if (foreign[0] == '\0' && !list->items[i].left)
            snprintf(foreign, sizeof foreign, "%s", dpt_error_message());
        dpt_error_clear();
    }
    if (!*study || !replaces)
        return DPT_OK;
    dpt_status st =
        foreign[0] != '\0' ? dpt_error(DPT_ERR_OUTPUT, "%s", foreign) : check_only(job, list);
    return st == DPT_OK ? check_removable(job, list) : st;
}

static dpt_status existing_look(const dpt_job *job, bool replaces, dpt_existing *list,
                                bool *study) {
    *study = false;
    dpt_status st = check_own_places(job);
    if (st == DPT_OK)
        st = existing_find(job, list);
    return st == DPT_OK ? check_list(job, list, replaces, study) : st;
}

dpt_status dpt_existing_check(const dpt_job *job, bool replaces, bool *study, char **left) {
    dpt_existing list = {.count = 0};
    dpt_status st = existing_look(job, replaces, &list, study);
    *left = NULL;
    for (int i = 0; i < list.count && st == DPT_OK && *study && *left == NULL; i++)
        if (list.items[i].left) {
            *left = dpt_mem_strdup(list.items[i].path, "file name");
            st = *left != NULL ? DPT_OK : DPT_ERR_OUTPUT;
        }
    list_destroy(&list);
    return st;
}

/* Models that were not finished, or whose removal was not. */
void dpt_existing_sweep_models(const char *path) {
    dpt_existing list = {.count = 0};
    char *directory = dpt_path_parent(path);
    bool final = directory != NULL && dpt_aside_is_final(directory);
    if (directory != NULL && !final)
        dpt_aside_restore_all(path, NULL);
    dpt_status st =
        directory != NULL ? existing_list_folder(path, KIND_MODEL, true, &list) : DPT_ERR_OUTPUT;
    for (int i = 0; i < list.count && st == DPT_OK; i++)
        if (list.items[i].kind == KIND_TEMPORARY &&
            dpt_owned_remove_model(list.items[i].path) != DPT_OK)
            dpt_error_clear(); /* it stays */
    if (st == DPT_OK && final)
        st = dpt_aside_end(directory);
    if (st != DPT_OK)
        dpt_error_clear();
    list_destroy(&list);
    dpt_mem_free(directory);
}

static void existing_sweep_file(const char *directory, const char *name) {
    char *aside = dpt_mem_format("%s" DPT_ASIDE_ENDING, name);
    dpt_file_sweep(directory, name, true);
    if (aside != NULL)
        dpt_file_sweep(directory, aside, true);
    dpt_mem_free(aside);
}

/* An earlier study that stepped aside for nothing comes back. */
void dpt_existing_sweep(const char *directory) {
    bool final = dpt_aside_is_final(directory);
    for (int i = 0; i < FILES; i++) {
        if (!final)
            dpt_aside_restore_all(directory, files[i].name);
        existing_sweep_file(directory, files[i].name);
    }
    for (int i = 0; i < FOLDERS; i++) {
        char *path = dpt_mem_format("%s/%s", directory, folders[i].name);
        if (path != NULL && folders[i].kind != KIND_MODEL) {
            if (!final)
                dpt_aside_restore_all(path, NULL);
            dpt_file_sweep(path, NULL, true);
        }
        dpt_mem_free(path);
    }
}

/* The numbers of references that this study uses too stay: they carry a key. */
static bool existing_is_used(const dpt_job *job, const existing_item *item) {
    const char *name = strrchr(item->path, '/') + 1;
    bool used = false;
    for (int d = 0; d < job->ndata && item->kind == DPT_OWNED_CACHE && !used; d++) {
        size_t n = strlen(job->data[d].name);
        used = dpt_loss_kind_of(job->data[d].loss)->reference != NULL &&
               strncmp(name, job->data[d].name, n) == 0 && strcmp(name + n, ".h5") == 0;
    }
    return used;
}

/* Whether something is still the file or folder that was found when the run began. */
static bool existing_was_found(const existing_item *item, const dpt_existing *before) {
    dpt_file_identity now;
    bool same = false;
    if (dpt_file_identify(item->path, &now) == DPT_OK)
        for (int i = 0; i < before->count && !same; i++)
            same = strcmp(before->items[i].path, item->path) == 0 &&
                   dpt_file_same(&now, &before->items[i].found);
    dpt_error_clear();
    return same;
}

/* This run has put parts of passes, numbers of references and a model that is not complete there itself. */
static bool existing_stays(const dpt_job *job, const existing_item *item,
                           const dpt_existing *before) {
    bool written = item->kind == DPT_OWNED_CACHE || item->kind == DPT_OWNED_PROGRESS ||
                   item->kind == KIND_TEMPORARY;
    return existing_is_used(job, item) || (written && !existing_was_found(item, before));
}

dpt_status dpt_existing_remember(const dpt_job *job, dpt_existing **out) {
    bool study = false;
    dpt_existing *list = *out = dpt_mem_zalloc(1, sizeof *list, "files of an earlier run");
    if (list == NULL)
        return DPT_ERR_OUTPUT;
    dpt_status st = existing_look(job, true, list, &study);
    for (int i = 0; i < list->count && study && st == DPT_OK; i++) {
        existing_item *item = &list->items[i];
        if (item->kind == KIND_MODEL)
            st = dpt_owned_check_weights(item->path);
        if (dpt_file_identify(item->path, &item->found) != DPT_OK)
            dpt_error_clear(); /* gone again */
    }
    return st;
}

static void existing_restore(dpt_existing *list) {
    for (int i = list->count - 1; i >= 0; i--) {
        existing_item *item = &list->items[i];
        if (item->aside != NULL)
            dpt_aside_restore(item->aside, item->path);
        dpt_mem_free(item->aside);
        item->aside = NULL;
    }
}

void dpt_existing_forget(dpt_existing *list) {
    if (list != NULL) {
        existing_restore(list);
        list_destroy(list);
    }
    dpt_mem_free(list);
}

dpt_status dpt_existing_move(const dpt_job *job, dpt_existing *list) {
    dpt_existing now = {.count = 0};
    bool study = false;
    dpt_status st = existing_look(job, true, &now, &study);
    for (int i = 0; i < now.count && st == DPT_OK; i++)
        if (now.items[i].kind == KIND_MODEL)
            st = dpt_owned_check_weights(now.items[i].path);
    if (st == DPT_OK)
        st = dpt_aside_end(
            job->directory); /* that of a run that was killed says nothing of this one */
    for (int i = 0; i < now.count && study && st == DPT_OK; i++)
        if (!now.items[i].left && !existing_stays(job, &now.items[i], list))
            st = dpt_aside_move(now.items[i].path, &now.items[i].aside);
    if (st != DPT_OK)
        existing_restore(&now);
    list_destroy(list);
    *list = now;
    return st;
}

void dpt_existing_remove(const dpt_job *job, dpt_existing *list) {
    if (dpt_guard_is_moved(job->directory))
        return;
    dpt_aside_make_final(job->directory);
    for (int i = 0; i < list->count; i++) {
        existing_item *item = &list->items[i];
        if (item->aside != NULL)
            dpt_aside_remove(item->aside);
        dpt_mem_free(item->aside);
        item->aside = NULL;
    }
    for (int i = 0; i < FOLDERS; i++) {
        char *path = dpt_mem_format("%s/%s", job->directory, folders[i].name);
        if (path != NULL)
            (void)rmdir(path); /* one that is a link stays, and what it leads to */
        dpt_mem_free(path);
    }
    if (dpt_aside_end(job->directory) != DPT_OK)
        dpt_error_clear(); /* the next run that is to replace something says so */
}
