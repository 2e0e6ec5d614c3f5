#include "deltapath/base/guard.h"

#include "deltapath/base/mem.h"
#include "deltapath/base/path.h"

#include <dirent.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct guard_entry {
    dev_t device;
    ino_t inode;
    bool folder;
    off_t size;
    struct timespec mtime;
    char *name; /* as it was given */
    char *real; /* without links */
} guard_entry;

static guard_entry *entries;
static int count, capacity;

void dpt_guard_clear(void) {
    for (int i = 0; i < count; i++) {
        dpt_mem_free(entries[i].name);
        dpt_mem_free(entries[i].real);
    }
    dpt_mem_free(entries);
    entries = NULL;
    count = capacity = 0;
}

/* The number of an inode is given anew once its file is gone: an input is still where it was, or at least
 * as it was, when it was moved. */
static bool guard_is(const guard_entry *entry, const struct stat *info) {
    struct stat now;
    if (entry->device != info->st_dev || entry->inode != info->st_ino)
        return false;
    if (stat(entry->real, &now) == 0 && now.st_dev == info->st_dev && now.st_ino == info->st_ino)
        return true;
    return !entry->folder && S_ISREG(info->st_mode) && entry->size == info->st_size &&
           entry->mtime.tv_sec == info->st_mtim.tv_sec &&
           entry->mtime.tv_nsec == info->st_mtim.tv_nsec;
}

static const guard_entry *guard_find(const struct stat *info) {
    for (int i = 0; i < count; i++)
        if (guard_is(&entries[i], info))
            return &entries[i];
    return NULL;
}

static dpt_status guard_add(const char *path, const struct stat *info) {
    char real[PATH_MAX];
    if (guard_find(info) != NULL || realpath(path, real) == NULL)
        return DPT_OK;
    if (count == capacity) {
        int more = capacity == 0 ? 64 : 2 * capacity;
        guard_entry *grown = dpt_mem_realloc(entries, more, sizeof *grown, "register of inputs");
        if (grown == NULL)
            return DPT_ERR_OUTPUT;
        entries = grown;
        capacity = more;
    }
    guard_entry *added = &entries[count];
    *added = (guard_entry){.device = info->st_dev,
                           .inode = info->st_ino,
                           .folder = S_ISDIR(info->st_mode),
                           .size = info->st_size,
                           .mtime = info->st_mtim};
    added->name = dpt_mem_strdup(path, "register of inputs");
    added->real = dpt_mem_strdup(real, "register of inputs");
    count++;
    return added->name != NULL && added->real != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

/* What the links of a folder lead to lies elsewhere: in the blobs of a hub's cache, for one. */
static dpt_status guard_add_content(const char *path) {
    dpt_status st = DPT_OK;
    DIR *folder = opendir(path);
    for (const struct dirent *entry = NULL;
         folder != NULL && st == DPT_OK && (entry = readdir(folder)) != NULL;) {
        struct stat info;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        char *name = dpt_mem_format("%s/%s", path, entry->d_name);
        if (name == NULL)
            st = DPT_ERR_OUTPUT;
        else if (stat(name, &info) == 0 && S_ISREG(info.st_mode))
            st = guard_add(name, &info);
        dpt_mem_free(name);
    }
    if (folder != NULL)
        closedir(folder);
    return st;
}

/* With its slash a link to a folder would be the folder. */
static char *guard_clean(const char *path) {
    char *clean = dpt_mem_strdup(path, "path");
    for (size_t n = clean != NULL ? strlen(clean) : 0; n > 1 && clean[n - 1] == '/'; n--)
        clean[n - 1] = '\0';
    return clean;
}

dpt_status dpt_guard_input(const char *path) {
    struct stat info;
    char *clean = guard_clean(path);
    dpt_status st = clean != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    if (st == DPT_OK && stat(clean, &info) == 0) {
        st = guard_add(clean, &info);
        if (st == DPT_OK && S_ISDIR(info.st_mode))
            st = guard_add_content(clean);
    }
    dpt_mem_free(clean);
    return st;
}

/* The input folder in which a path without links lies, or NULL. */
static const guard_entry *guard_find_above(char *real) {
    struct stat info;
    while (dpt_path_go_up(real)) {
        const guard_entry *found = stat(real, &info) == 0 ? guard_find(&info) : NULL;
        if (found != NULL && found->folder)
            return found;
    }
    return NULL;
}

/* An input that lies in a folder without links in its path, or NULL. */
static const guard_entry *guard_find_below(const char *real) {
    size_t n = strlen(real);
    for (int i = 0; i < count; i++)
        if (strncmp(entries[i].real, real, n) == 0 &&
            (entries[i].real[n] == '/' || strcmp(real, "/") == 0))
            return &entries[i];
    return NULL;
}

/* The folder of a path without links, and one name more. False when the path is too long. */
static bool guard_resolve_parent(const char *path, char real[PATH_MAX]) {
    char *parent = dpt_path_parent(path);
    bool ok = parent != NULL && dpt_path_resolve(parent, real) && strlen(real) + 3 <= PATH_MAX;
    if (ok)
        strcat(real, "/x");
    dpt_mem_free(parent);
    return ok;
}

static dpt_status guard_check_existing(const char *clean, const char *path) {
    struct stat info, target;
    char real[PATH_MAX];
    if (lstat(clean, &info) != 0)
        return DPT_OK;
    const guard_entry *same = stat(clean, &target) == 0 ? guard_find(&target) : NULL;
    if (same != NULL)
        return dpt_error(DPT_ERR_OUTPUT,
                         "%s: is the input %s: inputs are never written: choose another output",
                         path, same->name);
    if (S_ISLNK(info.st_mode))
        return dpt_error(DPT_ERR_OUTPUT,
                         "%s: is a symbolic link: give the place to which it leads, or remove the "
                         "link",
                         path);
    if (!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode))
        return dpt_error(DPT_ERR_OUTPUT, "%s: is a device, pipe or socket: give the name of a file",
                         path);
    const guard_entry *below =
        S_ISDIR(info.st_mode) && realpath(clean, real) != NULL ? guard_find_below(real) : NULL;
    if (below != NULL)
        return dpt_error(DPT_ERR_OUTPUT, "%s: holds the input %s: choose another output", path,
                         below->name);
    return DPT_OK;
}

dpt_status dpt_guard_output(const char *path) {
    char real[PATH_MAX];
    char *clean = guard_clean(path);
    if (clean == NULL)
        return DPT_ERR_OUTPUT;
    dpt_status st = guard_check_existing(clean, path);
    if (st == DPT_OK && !guard_resolve_parent(clean, real))
        st = dpt_error(DPT_ERR_OUTPUT, "%s: cannot be resolved: choose a shorter path", path);
    const guard_entry *above = st == DPT_OK ? guard_find_above(real) : NULL;
    if (above != NULL)
        st = dpt_error(DPT_ERR_OUTPUT,
                       "%s: lies in the folder of the input %s, which is never written to: choose "
                       "another output",
                       path, above->name);
    dpt_mem_free(clean);
    return st;
}
