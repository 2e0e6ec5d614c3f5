/* What could not be renamed or removed is known before it is tried. */
#include "deltapath/store/owned.h"

#include "deltapath/base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

dpt_status dpt_owned_refuse_removal(const char *path, const char *why) {
    return dpt_error(DPT_ERR_OUTPUT,
                     "%s: could not be removed: %s: nothing was removed: see to that, or choose "
                     "another output",
                     path, why);
}

/* What `chattr +i` or `chattr +a` keeps from being removed; not every file system has such marks. */
static bool removable_is_fixed(int folder, const char *name) {
    int flags = 0;
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    bool fixed = fd >= 0 && ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0 &&
                 (flags & (FS_IMMUTABLE_FL | FS_APPEND_FL)) != 0;
    if (fd >= 0)
        close(fd);
    return fixed;
}

static dpt_status removable_check_entries(const char *path, const struct stat *info) {
    struct stat file;
    dpt_status st = DPT_OK;
    DIR *folder = opendir(path);
    if (folder == NULL || access(path, W_OK | X_OK) != 0)
        st = dpt_owned_refuse_removal(path, strerror(errno));
    for (const struct dirent *entry; st == DPT_OK && (entry = readdir(folder)) != NULL;) {
        if (strcmp(entry->d_name, "..") == 0)
            continue;
        if (fstatat(dirfd(folder), entry->d_name, &file, AT_SYMLINK_NOFOLLOW) == 0 &&
            file.st_dev != info->st_dev)
            st = dpt_owned_refuse_removal(path, "something is mounted in it");
        else if (removable_is_fixed(dirfd(folder), entry->d_name))
            st =
                dpt_owned_refuse_removal(path, "a file in it is marked as one that stays (lsattr)");
    }
    if (folder != NULL)
        closedir(folder);
    return st;
}

static dpt_status removable_check_in(const char *parent, const char *path,
                                     const struct stat *info) {
    struct stat above;
    /* Whoever takes all rights to write away wants it to stay, also where rights do not hold, as for root. */
    if (!S_ISLNK(info->st_mode) && (info->st_mode & (S_IWUSR | S_IWGRP | S_IWOTH)) == 0)
        return dpt_owned_refuse_removal(path, "it is read-only");
    if (access(parent, W_OK | X_OK) != 0)
        return dpt_owned_refuse_removal(path, strerror(errno));
    if (stat(parent, &above) == 0 && above.st_dev != info->st_dev)
        return dpt_owned_refuse_removal(path, "it is a mount point");
    if (removable_is_fixed(AT_FDCWD, path))
        return dpt_owned_refuse_removal(path, "it is marked as a file that stays (lsattr)");
    return S_ISDIR(info->st_mode) ? removable_check_entries(path, info) : DPT_OK;
}

dpt_status dpt_owned_check_removable(const char *path) {
    struct stat info;
    if (lstat(path, &info) != 0)
        return DPT_OK;
    const char *slash = strrchr(path, '/');
    char *parent =
        slash != NULL ? dpt_mem_format("%.*s", (int)(slash - path) + 1, path) : dpt_mem_format(".");
    dpt_status st = parent != NULL ? removable_check_in(parent, path, &info) : DPT_ERR_OUTPUT;
    dpt_mem_free(parent);
    return st;
}
