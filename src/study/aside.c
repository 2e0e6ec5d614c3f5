#include "aside.h"

#include "deltapath/base/file.h"
#include "deltapath/base/guard.h"
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/store/owned.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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
    if (dpt_guard_check_moved(path) != DPT_OK)
        return DPT_ERR_OUTPUT;
    char *name = aside_name(path);
    if (name == NULL)
        return DPT_ERR_OUTPUT;
    if (rename(path, name) != 0) {
        dpt_status st = dpt_owned_refuse_removal(path, strerror(errno));
        dpt_mem_free(name);
        return st;
    }
    *aside = name;
    return DPT_OK;
}

void dpt_aside_restore(const char *aside, const char *path) {
    if (dpt_guard_is_moved(path))
        return; /* the next run in the folder that was moved brings it back */
    if (rename(aside, path) != 0)
        dpt_log(DPT_LOG_WARN, "%s: cannot be renamed to %s: %s: rename it before the next run",
                aside, path, strerror(errno));
}

size_t dpt_aside_stem(const char *name) {
    size_t ending = strlen(DPT_ASIDE_ENDING);
    size_t n = dpt_file_temporary_stem(name);
    return n > ending && strncmp(name + n - ending, DPT_ASIDE_ENDING, ending) == 0 ? n - ending : 0;
}

void dpt_aside_restore_all(const char *folder, const char *only) {
    DIR *opened = opendir(folder);
    for (const struct dirent *entry = NULL; opened != NULL && (entry = readdir(opened)) != NULL;) {
        struct stat info;
        size_t n = dpt_aside_stem(entry->d_name);
        if (n == 0 || (only != NULL && (strlen(only) != n || strncmp(entry->d_name, only, n) != 0)))
            continue;
        char *aside = dpt_mem_format("%s/%s", folder, entry->d_name);
        char *path = dpt_mem_format("%s/%.*s", folder, (int)n, entry->d_name);
        if (aside != NULL && path != NULL && lstat(path, &info) != 0 && errno == ENOENT)
            dpt_aside_restore(aside, path);
        dpt_mem_free(path);
        dpt_mem_free(aside);
    }
    if (opened != NULL)
        closedir(opened);
}

static char *aside_mark(const char *directory) {
    return dpt_mem_format("%s/replaced" DPT_FILE_PARTIAL, directory);
}

bool dpt_aside_is_final(const char *directory) {
    char *mark = aside_mark(directory);
    bool final = mark != NULL && access(mark, F_OK) == 0;
    dpt_mem_free(mark);
    return final;
}

void dpt_aside_make_final(const char *directory) {
    char *mark = aside_mark(directory);
    int fd = mark != NULL ? open(mark, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666) : -1;
    if (fd >= 0)
        close(fd);
    dpt_mem_free(mark);
}

dpt_status dpt_aside_end(const char *directory) {
    char *mark = aside_mark(directory);
    dpt_status st = mark != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    if (st == DPT_OK && unlink(mark) != 0 && errno != ENOENT)
        st = dpt_error(DPT_ERR_OUTPUT, "%s: cannot be removed: %s: remove it", mark,
                       strerror(errno));
    dpt_mem_free(mark);
    return st;
}

void dpt_aside_remove(const char *aside) {
    if (dpt_owned_remove_model(aside) == DPT_OK)
        return;
    dpt_log(DPT_LOG_WARN, "%s: what is left of an earlier study: remove it", dpt_error_message());
    dpt_error_clear();
}
