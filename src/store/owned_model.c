#include "deltapath/store/owned.h"

#include "deltapath/base/file.h"
#include "deltapath/base/guard.h"
#include "deltapath/base/hash.h"
#include "deltapath/base/mem.h"
#include "deltapath/store/manifest.h"
#include "owned_internal.h"
#include "store_internal.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WEIGHTS_BYTES = 4 << 20 };

/* Who must have made a model: an edit, of a study when one is named; without an edit, `convert`. */
typedef struct owned_maker {
    const char *edit, *study;
} owned_maker;

static bool owned_provenance(const json_t *provenance, const char *edit) {
    const char *program = json_string_value(json_object_get(provenance, "program"));
    const char *made_by =
        json_string_value(json_object_get(provenance, edit != NULL ? "edit" : "verb"));
    return program != NULL && dpt_owned_begins(program, "deltapath") && made_by != NULL &&
           strcmp(made_by, edit != NULL ? edit : "convert") == 0;
}

/* A model of another study is not ours, though an edit of the same id made it. */
static dpt_status owned_check_maker(const char *path, const json_t *provenance,
                                    const owned_maker *maker, const char *what) {
    const char *study = json_string_value(json_object_get(provenance, "study"));
    if (!owned_provenance(provenance, maker->edit))
        return dpt_owned_refuse(path, what);
    if (maker->study != NULL && study != NULL && strcmp(study, maker->study) != 0)
        return dpt_owned_refuse_study(path, study, maker->study);
    return DPT_OK;
}

static bool owned_is_empty(const char *path) {
    DIR *folder = opendir(path);
    int entries = 0;
    while (folder != NULL && readdir(folder) != NULL)
        entries++;
    if (folder != NULL)
        closedir(folder);
    return entries == 2; /* . and .. */
}

/* Headers of a model, as it is opened; nothing is registered as an input. */
static dpt_status owned_scan(const char *path, dpt_store_header *header) {
    const dpt_store_driver *driver = NULL;
    dpt_status st = dpt_store_driver_probe(path, &driver);
    if (st == DPT_OK)
        st = driver->scan(path, header);
    return st == DPT_OK ? dpt_store_header_seal(header, path) : st;
}

/* An HDF5 checkpoint whose bytes outside the tensors are as they were written. */
static dpt_status owned_check_checkpoint(const char *path, const owned_maker *maker,
                                         const char *what) {
    dpt_store_header header = {.nfiles = 0};
    char *format = dpt_owned_read_attribute(path, "format");
    bool checkpoint = format != NULL && strcmp(format, "deltapath-checkpoint") == 0;
    dpt_mem_free(format);
    if (!checkpoint)
        return dpt_owned_refuse(path, what);
    dpt_status st = owned_scan(path, &header);
    json_t *provenance =
        st == DPT_OK && header.provenance != NULL ? json_loads(header.provenance, 0, NULL) : NULL;
    bool same = st == DPT_OK && header.sealed && !header.rewritten &&
                dpt_store_seal_check(&header) == DPT_OK;
    dpt_error_clear();
    dpt_status ours = st == DPT_OK ? owned_check_maker(path, provenance, maker, what) : DPT_OK;
    json_decref(provenance);
    dpt_store_header_destroy(&header);
    if (ours != DPT_OK)
        return ours;
    return same ? DPT_OK : dpt_owned_refuse_changed(path);
}

/* Whether the bytes of a tensor have the hash that the model states. */
static bool owned_same_tensor(dpt_store_files *files, const dpt_store_entry *entry, char *buffer) {
    int64_t size = dpt_dtype_size(entry->dtype), all = entry->bytes / size;
    dpt_hash hash;
    dpt_hash_begin(&hash);
    for (int64_t at = 0; at < all;) {
        int64_t n = all - at < WEIGHTS_BYTES / size ? all - at : WEIGHTS_BYTES / size;
        if (dpt_store_files_read_entry(files, entry, at, n, buffer) != DPT_OK)
            return false;
        dpt_hash_update(&hash, buffer, (size_t)(n * size));
        at += n;
    }
    return entry->hashed && dpt_hash_value(&hash) == entry->hash;
}

static dpt_status owned_read_weights(const char *path) {
    dpt_store_header header = {.nfiles = 0};
    char *buffer = dpt_mem_alloc(WEIGHTS_BYTES, 1, "weights of a model that is replaced");
    if (buffer == NULL)
        return DPT_ERR_OUTPUT;
    dpt_status st = owned_scan(path, &header);
    dpt_store_files files = {.count = 0};
    if (st == DPT_OK)
        st = dpt_store_files_init(&files, header.nfiles, header.files, false);
    for (int64_t i = 0; i < header.count && st == DPT_OK; i++)
        if (!owned_same_tensor(&files, &header.entries[i], buffer))
            st = DPT_ERR_INPUT;
    (void)dpt_store_files_close(&files, false); /* they were read */
    dpt_store_header_destroy(&header);
    dpt_mem_free(buffer);
    if (st == DPT_OK)
        return DPT_OK;
    dpt_error_clear();
    return dpt_owned_refuse_changed(path);
}

/* Adds up to the same in any order in which a folder is listed. */
static bool owned_stamp_file(const char *path, uint64_t *stamp) {
    dpt_file_identity identity;
    dpt_hash hash;
    if (dpt_file_identify(path, &identity) != DPT_OK) {
        dpt_error_clear();
        return false;
    }
    dpt_hash_begin(&hash);
    dpt_hash_update(&hash, path, strlen(path));
    dpt_hash_update(&hash, &identity, sizeof identity);
    *stamp += dpt_hash_value(&hash);
    return true;
}

/* What tells that nobody touched a model since: the identities of it and of the files in its folder. */
static bool owned_stamp(const char *path, uint64_t *stamp) {
    *stamp = 0;
    bool known = owned_stamp_file(path, stamp);
    DIR *folder = known ? opendir(path) : NULL;
    for (const struct dirent *entry;
         folder != NULL && known && (entry = readdir(folder)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        char *file = dpt_path_join(path, entry->d_name);
        known = file != NULL && owned_stamp_file(file, stamp);
        dpt_mem_free(file);
    }
    if (folder != NULL)
        closedir(folder);
    return known;
}

/* Stamps of models that were read whole and found as they were written: a model is looked at when a study
 * begins, before another one is written and before that takes its place. */
enum { STAMPS = 4096 };
static uint64_t stamps[STAMPS];
static int64_t nstamps;

static bool owned_was_read(uint64_t stamp) {
    for (int64_t i = 0; i < nstamps && i < STAMPS; i++)
        if (stamps[i] == stamp)
            return true;
    return false;
}

dpt_status dpt_owned_check_weights(const char *path) {
    struct stat info;
    uint64_t stamp;
    if (lstat(path, &info) != 0 || (S_ISDIR(info.st_mode) && owned_is_empty(path)))
        return DPT_OK;
    bool stamped = owned_stamp(path, &stamp);
    if (stamped && owned_was_read(stamp))
        return DPT_OK;
    dpt_status st = owned_read_weights(path);
    if (st == DPT_OK && stamped)
        stamps[nstamps++ % STAMPS] = stamp;
    return st;
}

/* Every file of the folder must be as the manifest lists it. */
static dpt_status owned_check_files(const char *path, const dpt_manifest *manifest) {
    DIR *folder = opendir(path);
    dpt_status st = folder != NULL ? DPT_OK : dpt_owned_refuse(path, "folder of a model");
    const struct dirent *entry;
    while (st == DPT_OK && (entry = readdir(folder)) != NULL) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
            strcmp(name, DPT_MANIFEST_CHECKPOINT) == 0)
            continue;
        const dpt_manifest_entry *listed = dpt_manifest_find(manifest, name);
        char *file = dpt_path_join(path, name);
        if (file == NULL)
            st = DPT_ERR_OUTPUT;
        else if (dpt_guard_output(file) != DPT_OK)
            st = DPT_ERR_OUTPUT; /* a hard link to a file of an input */
        else if (listed == NULL)
            st = dpt_owned_refuse(file, "file of the model");
        else if (dpt_manifest_check(path, listed) != DPT_OK) {
            dpt_error_clear();
            st = dpt_owned_refuse_changed(file);
        }
        dpt_mem_free(file);
    }
    if (folder != NULL)
        closedir(folder);
    return st;
}

static dpt_status owned_check_manifest(const char *path) {
    dpt_manifest manifest = {.count = 0};
    bool found = false;
    char *list = dpt_path_join(path, DPT_MANIFEST_CHECKPOINT);
    dpt_status st = list != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    if (st == DPT_OK && dpt_manifest_read(list, &manifest, &found) != DPT_OK) {
        dpt_error_clear();
        st = dpt_owned_refuse_changed(list);
    }
    /* Who changes a folder on purpose removes the manifest. */
    if (st == DPT_OK && !found)
        st = dpt_owned_refuse(path, "model with its " DPT_MANIFEST_CHECKPOINT);
    if (st == DPT_OK)
        st = owned_check_files(path, &manifest);
    dpt_manifest_destroy(&manifest);
    dpt_mem_free(list);
    return st;
}

static dpt_status owned_check_folder(const char *path, const owned_maker *maker, const char *what) {
    if (owned_is_empty(path))
        return DPT_OK;
    dpt_status st = dpt_store_path_check_folder(path);
    char *name = dpt_path_join(path, "deltapath.json");
    char *text = NULL;
    if (st == DPT_OK)
        st =
            name == NULL ? DPT_ERR_OUTPUT : dpt_store_path_read_text(name, INT64_C(1) << 30, &text);
    json_t *root = text != NULL ? json_loads(text, 0, NULL) : NULL;
    if (st == DPT_OK)
        st = owned_check_maker(path, json_object_get(root, "provenance"), maker, what);
    if (st == DPT_OK)
        st = owned_check_manifest(path);
    json_decref(root);
    dpt_mem_free(text);
    dpt_mem_free(name);
    return st;
}

dpt_status dpt_owned_check_model(const char *path, const char *edit, const char *study) {
    const owned_maker maker = {.edit = edit, .study = study};
    struct stat info;
    char what[256] = "converted model";
    dpt_status st = dpt_guard_output(path);
    if (st != DPT_OK || lstat(path, &info) != 0)
        return st;
    if (edit != NULL)
        snprintf(what, sizeof what, "model of the edit %s", edit);
    return S_ISDIR(info.st_mode) ? owned_check_folder(path, &maker, what)
                                 : owned_check_checkpoint(path, &maker, what);
}

dpt_status dpt_owned_check_temporary(const char *path) {
    struct stat info;
    dpt_status st = dpt_guard_output(path);
    if (st == DPT_OK && lstat(path, &info) == 0 && S_ISDIR(info.st_mode))
        st = dpt_store_path_check_folder(path);
    return st;
}

/* A folder gets its temporary name first, so that a run that is killed half-way leaves no half model. */
dpt_status dpt_owned_remove_model(const char *path) {
    struct stat info;
    dpt_status st = dpt_guard_output(path);
    if (st != DPT_OK || lstat(path, &info) != 0)
        return st;
    if (!S_ISDIR(info.st_mode) || dpt_file_temporary_stem(dpt_path_base(path)) > 0)
        return dpt_store_path_remove(path);
    char *temporary = dpt_file_temporary(path); /* not that of a new model, which may be at hand */
    st = temporary == NULL ? DPT_ERR_OUTPUT : dpt_store_path_remove(temporary);
    if (st == DPT_OK)
        st = dpt_store_path_check_folder(path);
    if (st == DPT_OK && rename(path, temporary) != 0)
        st = dpt_store_path_write_failed(path);
    if (st == DPT_OK)
        st = dpt_store_path_remove(temporary);
    dpt_mem_free(temporary);
    return st;
}
