#include "aside.h"

#include "deltapath/base/file.h"
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/store/owned.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

static dpt_status aside_refuse(const char *path, const char *why) {
    return dpt_error(DPT_ERR_OUTPUT,
                     "%s: could not be removed: %s: nothing was removed: see to that, or choose "
                     "another output",
                     path, why);
}

/* What `chattr +i` or `chattr +a` keeps from being removed; not every file system has such marks. */
static bool aside_is_fixed(int folder, const char *name) {
    int flags = 0;
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    bool fixed = fd >= 0 && ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0 &&
                 (flags & (FS_IMMUTABLE_FL | FS_APPEND_FL)) != 0;
    if (fd >= 0)
        close(fd);
    return fixed;
}

static dpt_status aside_check_entries(const char *path, const struct stat *info) {
    struct stat file;
    dpt_status st = DPT_OK;
    DIR *folder = opendir(path);
    if (folder == NULL || access(path, W_OK | X_OK) != 0)
        st = aside_refuse(path, strerror(errno));
    for (const struct dirent *entry; st == DPT_OK && (entry = readdir(folder)) != NULL;) {
        if (strcmp(entry->d_name, "..") == 0)
            continue;
        if (fstatat(dirfd(folder), entry->d_name, &file, AT_SYMLINK_NOFOLLOW) == 0 &&
            file.st_dev != info->st_dev)
            st = aside_refuse(path, "something is mounted in it");
        else if (aside_is_fixed(dirfd(folder), entry->d_name))
            st = aside_refuse(path, "a file in it is marked as one that stays (lsattr)");
    }
    if (folder != NULL)
        closedir(folder);
    return st;
}

static dpt_status aside_check_in(const char *parent, const char *path, const struct stat *info) {
    struct stat above;
    if (access(parent, W_OK | X_OK) != 0)
        return aside_refuse(path, strerror(errno));
    if (stat(parent, &above) == 0 && above.st_dev != info->st_dev)
        return aside_refuse(path, "it is a mount point");
    if (aside_is_fixed(AT_FDCWD, path))
        return aside_refuse(path, "it is marked as a file that stays (lsattr)");
    return S_ISDIR(info->st_mode) ? aside_check_entries(path, info) : DPT_OK;
}

dpt_status dpt_aside_check(const char *path) {
    struct stat info;
    if (lstat(path, &info) != 0)
        return DPT_OK;
    const char *slash = strrchr(path, '/');
    char *parent =
        slash != NULL ? dpt_mem_format("%.*s", (int)(slash - path) + 1, path) : dpt_mem_format(".");
    dpt_status st = parent != NULL ? aside_check_in(parent, path, &info) : DPT_ERR_OUTPUT;
    dpt_mem_free(parent);
    return st;
}

/* Not the temporary name under which this process may be writing the new file. */
static char *aside_name(const char *path) {
    char *old = dpt_mem_format("%s" DPT_ASIDE_ENDING, path);
    char *name = old != NULL ? dpt_file_temporary(old) : NULL;
    dpt_mem_free(old);
    return name;
}

dpt_status dpt_aside_move(const char *path, char **aside) {
    struct stat info;
    *aside = NULL;
    if (lstat(path, &info) != 0)
        return DPT_OK;
    char *name = aside_name(path);
    if (name == NULL)
        return DPT_ERR_OUTPUT;
    if (rename(path, name) != 0) {
        dpt_status st = aside_refuse(path, strerror(errno));
        dpt_mem_free(name);
        return st;
    }
    *aside = name;
    return DPT_OK;
}

void dpt_aside_restore(const char *aside, const char *path) {
    if (rename(aside, path) != 0)
        dpt_log(DPT_LOG_WARN, "%s: cannot be renamed to %s: %s: rename it before the next run",
                aside, path, strerror(errno));
}

void dpt_aside_remove(const char *aside) {
    if (dpt_owned_remove_model(aside) == DPT_OK)
        return;
    dpt_log(DPT_LOG_WARN, "%s: what is left of an earlier study: remove it", dpt_error_message());
    dpt_error_clear();
}
