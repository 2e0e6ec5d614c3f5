#include "deltapath/base/guard.h"

#include "deltapath/base/mem.h"
#include "deltapath/base/path.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

/* The number of a folder that is open is not given to another one. */
typedef struct guard_place {
    char *path;
    int fd;
} guard_place;

static guard_place *places;
static int nplaces, places_capacity;

/* Without a slash at its end; the root is "". */
static size_t guard_length(const char *folder) {
    size_t n = strlen(folder);
    while (n > 0 && folder[n - 1] == '/')
        n--;
    return n;
}

/* Whether a path is that of a folder of n characters, or of something in it. */
static bool guard_is_in(const char *path, const char *folder, size_t n) {
    return strncmp(path, folder, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

void dpt_guard_leave(const char *folder) {
    size_t n = guard_length(folder);
    int kept = 0;
    for (int i = 0; i < nplaces; i++) {
        if (guard_is_in(places[i].path, folder, n)) {
            dpt_mem_free(places[i].path);
            close(places[i].fd);
        } else {
            places[kept++] = places[i];
        }
    }
    nplaces = kept;
}

static bool guard_has_entered(const char *path) {
    for (int i = 0; i < nplaces; i++)
        if (strcmp(places[i].path, path) == 0)
            return true;
    return false;
}

/* Takes path and descriptor over. */
static dpt_status guard_add_place(char *path, int fd) {
    if (nplaces == places_capacity) {
        int more = places_capacity == 0 ? 8 : 2 * places_capacity;
        guard_place *grown = dpt_mem_realloc(places, more, sizeof *grown, "register of folders");
        if (grown == NULL) {
            dpt_mem_free(path);
            close(fd);
            return DPT_ERR_OUTPUT;
        }
        places = grown;
        places_capacity = more;
    }
    places[nplaces++] = (guard_place){.path = path, .fd = fd};
    return DPT_OK;
}

dpt_status dpt_guard_enter(const char *folder) {
    char *path = dpt_mem_format("%.*s", (int)guard_length(folder), folder);
    if (path == NULL)
        return DPT_ERR_OUTPUT;
    bool known = path[0] == '\0' || guard_has_entered(path);
    int fd = known ? -1 : open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        return guard_add_place(path, fd);
    dpt_mem_free(path);
    return DPT_OK;
}

static bool guard_place_moved(const guard_place *place) {
    struct stat entered, now;
    if (stat(place->path, &now) != 0)
        return errno == ENOENT || errno == ENOTDIR; /* else what is to be written says why not */
    return fstat(place->fd, &entered) != 0 || entered.st_dev != now.st_dev ||
           entered.st_ino != now.st_ino;
}

static const guard_place *guard_find_moved(const char *path) {
    for (int i = 0; i < nplaces; i++)
        if (guard_is_in(path, places[i].path, strlen(places[i].path)) &&
            guard_place_moved(&places[i]))
            return &places[i];
    return NULL;
}

bool dpt_guard_is_moved(const char *path) {
    return guard_find_moved(path) != NULL;
}

dpt_status dpt_guard_check_moved(const char *path) {
    const guard_place *moved = guard_find_moved(path);
    return moved == NULL
               ? DPT_OK
               : dpt_error(DPT_ERR_OUTPUT,
                           "%s: is another folder than the one in which this run began: it was "
                           "moved or replaced: what is finished lies in the moved one: go on there "
                           "with --resume",
                           moved->path);
}

static void guard_clear_places(void) {
    for (int i = 0; i < nplaces; i++) {
        dpt_mem_free(places[i].path);
        close(places[i].fd);
    }
    dpt_mem_free(places);
    places = NULL;
    nplaces = places_capacity = 0;
}

void dpt_guard_clear(void) {
    guard_clear_places();
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
    dpt_status st = dpt_guard_check_moved(clean);
    if (st == DPT_OK)
        st = guard_check_existing(clean, path);
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
