#include "deltapath/store/beside.h"

#include "deltapath/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char *name_beside(const char *path) {
    return dpt_mem_format("%s.partial", path);
}

char *dpt_beside_begin(const char *path) {
    char *beside = name_beside(path);
    if (beside != NULL)
        unlink(beside);
    return beside;
}

static int sync_path(const char *path, int flags) {
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int failed = fsync(fd);
    return close(fd) != 0 || failed != 0 ? -1 : 0;
}

/* The rename is durable only once the directory is. Some file systems cannot sync a directory: the
 * file is whole there all the same, so that is no error. */
static void sync_directory_of(const char *path) {
    const char *slash = strrchr(path, '/');
    char *directory = slash == NULL   ? dpt_mem_format(".")
                      : slash == path ? dpt_mem_format("/")
                                      : dpt_mem_format("%.*s", (int)(slash - path), path);
    if (directory != NULL)
        (void)sync_path(directory, O_RDONLY | O_DIRECTORY);
    dpt_mem_free(directory);
}

dpt_status dpt_beside_commit(const char *path) {
    char *beside = name_beside(path);
    if (beside == NULL)
        return DPT_ERR_OUTPUT;
    dpt_status st = DPT_OK;
    if (sync_path(beside, O_WRONLY) != 0 || rename(beside, path) != 0) {
        st = dpt_error(DPT_ERR_OUTPUT, "%s: cannot be completed: %s: check disk space and rights",
                       path, strerror(errno));
        unlink(beside);
    } else {
        sync_directory_of(path);
    }
    dpt_mem_free(beside);
    return st;
}

void dpt_beside_discard(const char *path) {
    char *beside = name_beside(path);
    if (beside != NULL)
        unlink(beside);
    dpt_mem_free(beside);
}
