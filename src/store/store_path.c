#include "store_internal.h"

#include "deltapath/base/file.h"
#include "deltapath/base/guard.h"
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/path.h"
#include "deltapath/store/manifest.h"
#include "deltapath/store/owned.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

char *dpt_store_path_clean(const char *path) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    return dpt_mem_format("%.*s", (int)n, path);
}

dpt_status dpt_store_path_length(const char *path, int64_t *bytes) {
    struct stat info;
    *bytes = 0;
    if (stat(path, &info) != 0)
        return dpt_error(DPT_ERR_INPUT, "%s: %s: check the path", path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return dpt_error(DPT_ERR_INPUT, "%s: not a regular file: give a model file", path);
    *bytes = (int64_t)info.st_size;
    return DPT_OK;
}

dpt_status dpt_store_path_read_text(const char *path, int64_t limit, char **out) {
    *out = NULL;
    if (!dpt_path_exists(path))
        return DPT_OK;
    int64_t bytes = 0;
    return dpt_file_read(path, limit, out, &bytes);
}

dpt_status dpt_store_path_write_failed(const char *path) {
    return dpt_error(DPT_ERR_OUTPUT, "%s: cannot be written (%s): check permissions and disk space",
                     path, strerror(errno));
}

dpt_status dpt_store_path_write(const char *path, const void *bytes, int64_t n, int64_t length) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return dpt_store_path_write_failed(path);
    bool ok = dpt_file_write_open(fd, bytes, n) &&
              (length <= n || ftruncate(fd, (off_t)length) == 0) && fsync(fd) == 0;
    dpt_status st = ok ? DPT_OK : dpt_store_path_write_failed(path);
    if (close(fd) != 0 && st == DPT_OK)
        st = dpt_store_path_write_failed(path);
    return st;
}

dpt_status dpt_store_path_allocate(const char *path) {
    struct stat info;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info) != 0) {
        dpt_status st = dpt_store_path_write_failed(path);
        if (fd >= 0)
            close(fd);
        return st;
    }
    int failed = 0;
    do
        failed = info.st_size > 0 ? fallocate(fd, 0, 0, info.st_size) : 0;
    while (failed != 0 && errno == EINTR);
    dpt_status st = DPT_OK;
    /* Not every file system can; then the writes themselves find out. */
    if (failed != 0 && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
        st = dpt_error(DPT_ERR_OUTPUT,
                       "%s: no room for its %.3f GB (%s): make room or choose another place", path,
                       (double)info.st_size / 1e9, strerror(errno));
    close(fd);
    return st;
}

dpt_status dpt_store_path_sync(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return dpt_store_path_write_failed(path);
    /* Some network file systems refuse fsync of a directory; they need none. */
    bool ok = fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP;
    dpt_status st = ok ? DPT_OK : dpt_store_path_write_failed(path);
    close(fd);
    return st;
}

/* Names of the files that make up a model as this program writes it, also the temporary ones that a run which
 * was killed left in its temporary folder. */
static bool is_model_file(const char *name) {
    char stem[256];
    size_t n = dpt_file_temporary_stem(name);
    if (n > 0 && n < sizeof stem) {
        snprintf(stem, sizeof stem, "%.*s", (int)n, name);
        return is_model_file(stem);
    }
    static const char *const names[] = {"config.json", "deltapath.json", "model.safetensors",
                                        DPT_MANIFEST_CHECKPOINT, "model.safetensors.index.json"};
    int shard = 0, shards = 0, length = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    if (sscanf(name, "model-%5d-of-%5d.safetensors%n", &shard, &shards, &length) == 2 &&
        length > 0 && name[length] == '\0')
        return true;
    return dpt_store_companion_allowed(name);
}

/* Visit what a directory holds; the first entry that is no file of a model is the error. */
static dpt_status visit_folder(const char *path, bool remove) {
    DIR *directory = opendir(path);
    dpt_status st = directory != NULL ? DPT_OK : dpt_store_path_write_failed(path);
    const struct dirent *entry = NULL;
    while (st == DPT_OK && (entry = readdir(directory)) != NULL) {
        struct stat info;
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
            continue;
        bool known = fstatat(dirfd(directory), name, &info, AT_SYMLINK_NOFOLLOW) == 0 &&
                     S_ISREG(info.st_mode) && is_model_file(name);
        if (!known)
            st = dpt_error(DPT_ERR_OUTPUT,
                           "%s/%s: was not written by deltapath and would be lost with its folder: "
                           "move it away or choose another output",
                           path, name);
        else if (remove && unlinkat(dirfd(directory), name, 0) != 0)
            st = dpt_error(DPT_ERR_OUTPUT,
                           "%s/%s: cannot be removed (%s): check permissions, then remove it", path,
                           name, strerror(errno));
    }
    if (directory != NULL)
        closedir(directory);
    return st;
}

dpt_status dpt_store_path_check_folder(const char *path) {
    return visit_folder(path, false);
}

/* Nothing is removed from a directory in which something would stay. */
dpt_status dpt_store_path_remove(const char *path) {
    struct stat info;
    if (lstat(path, &info) != 0)
        return DPT_OK;
    if (!S_ISDIR(info.st_mode))
        return unlink(path) == 0 ? DPT_OK : dpt_store_path_write_failed(path);
    dpt_status st = visit_folder(path, false);
    if (st == DPT_OK)
        st = visit_folder(path, true);
    return st == DPT_OK && rmdir(path) != 0 ? dpt_store_path_write_failed(path) : st;
}

dpt_status dpt_store_path_check_existing(const char *path, bool directory, bool overwrite,
                                         const char *owner, const char *study) {
    if (!dpt_path_exists(path))
        return DPT_OK;
    dpt_status st = dpt_owned_check_model(path, owner, study);
    if (st == DPT_OK && !overwrite)
        return dpt_error(DPT_ERR_OUTPUT,
                         "%s: exists already: remove it, choose another name, or ask to overwrite",
                         path);
    bool is_directory = dpt_path_is_directory(path);
    if (st == DPT_OK && is_directory != directory)
        st = dpt_error(DPT_ERR_OUTPUT, "%s: is a %s and would be replaced by a %s: remove it", path,
                       is_directory ? "directory" : "file", directory ? "directory" : "file");
    if (st == DPT_OK)
        st = dpt_owned_check_weights(path);
    return st == DPT_OK ? dpt_owned_check_removable(path) : st;
}

dpt_status dpt_store_path_check_output(const char *path, bool directory, bool overwrite,
                                       const char *owner, const char *study, int64_t bytes) {
    dpt_status st = dpt_guard_output(path);
    if (st == DPT_OK)
        st = dpt_store_path_check_existing(path, directory, overwrite, owner, study);
    if (st != DPT_OK)
        return st;
    char *parent = dpt_path_parent(path);
    if (parent == NULL)
        return DPT_ERR_OUTPUT;
    struct statvfs space;
    if (!dpt_path_is_directory(parent))
        st = dpt_error(DPT_ERR_OUTPUT, "%s: there is no directory %s: make it first", path, parent);
    else if (access(parent, W_OK | X_OK) != 0)
        st = dpt_error(DPT_ERR_OUTPUT, "%s: %s cannot be written to (%s): choose another place",
                       path, parent, strerror(errno));
    else if (statvfs(parent, &space) == 0) {
        double free_bytes = (double)space.f_bavail * (double)space.f_frsize;
        if (free_bytes < (double)bytes)
            st = dpt_error(DPT_ERR_OUTPUT,
                           "%s: needs %.3f GB but %s has %.3f GB left: make room or choose another "
                           "place",
                           path, (double)bytes / 1e9, parent, free_bytes / 1e9);
    }
    dpt_mem_free(parent);
    return st;
}

/* What someone has put into the old model since it was looked at stays, under its temporary name. */
static void remove_replaced(const char *path) {
    if (dpt_store_path_remove(path) == DPT_OK)
        return;
    dpt_log(DPT_LOG_WARN, "%s", dpt_error_message());
    dpt_error_clear();
}

/* A directory cannot be renamed onto a full one: the two change places in one step where the file
 * system can, else the old one steps aside for a moment. */
static bool replace_directory(const char *partial, const char *path) {
    if (renameat2(AT_FDCWD, partial, AT_FDCWD, path, RENAME_EXCHANGE) == 0) {
        remove_replaced(partial);
        return true;
    }
    char *aside = dpt_mem_format("%s.old-deltapath", path);
    bool ok = aside != NULL && dpt_store_path_remove(aside) == DPT_OK && rename(path, aside) == 0;
    if (ok && rename(partial, path) != 0) {
        int error = errno;
        if (rename(aside, path) == 0)
            errno = error;
        ok = false;
    }
    if (ok)
        remove_replaced(aside);
    dpt_mem_free(aside);
    return ok;
}

dpt_status dpt_store_path_commit(const char *partial, const char *path) {
    dpt_status st = dpt_guard_output(path);
    if (st != DPT_OK)
        return st;
    bool replace = dpt_path_is_directory(path);
    if (!(replace ? replace_directory(partial, path) : rename(partial, path) == 0))
        return dpt_error(DPT_ERR_OUTPUT, "%s: cannot be renamed to %s (%s): check permissions",
                         partial, path, strerror(errno));
    char *parent = dpt_path_parent(path);
    st = parent == NULL ? DPT_ERR_OUTPUT : dpt_store_path_sync(parent);
    dpt_mem_free(parent);
    return st;
}
