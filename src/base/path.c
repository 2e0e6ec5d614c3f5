#include "deltapath/base/path.h"

#include "deltapath/base/mem.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

static bool path_has_variable(const char *path) {
    for (const char *at = strchr(path, '$'); at != NULL; at = strchr(at + 1, '$'))
        if (isalpha((unsigned char)at[1]) || at[1] == '_' || at[1] == '{')
            return true;
    return false;
}

dpt_status dpt_path_expand(const char *path, char **out) {
    *out = NULL;
    if (path_has_variable(path))
        return dpt_error(
            DPT_ERR_USAGE,
            "%s: variables are not expanded here: write the path out, or let the shell "
            "do it on the command line, as in --set \"models.pre=$SCRATCH/pre\"",
            path);
    if (path[0] != '~')
        return DPT_OK;
    if (path[1] != '/' && path[1] != '\0')
        return access(path, F_OK) == 0
                   ? DPT_OK
                   : dpt_error(DPT_ERR_USAGE,
                               "%s: of `~` only `~/` is expanded: write the path out", path);
    const char *home = getenv("HOME");
    if (home == NULL || home[0] == '\0')
        return dpt_error(DPT_ERR_USAGE, "%s: HOME is not set: write the path out", path);
    *out = dpt_mem_format("%s%s", home, path + 1);
    return *out != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

bool dpt_path_is_directory(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

bool dpt_path_is_file(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

bool dpt_path_exists(const char *path) {
    struct stat info;
    /* What cannot be looked at may be there: whoever opens it then says why that fails. */
    return lstat(path, &info) == 0 ||
           (errno != ENOENT && errno != ENOTDIR && errno != ENAMETOOLONG && errno != ELOOP);
}

bool dpt_path_ends_with(const char *path, const char *ending) {
    size_t n = strlen(path);
    size_t m = strlen(ending);
    return n >= m && strcmp(path + n - m, ending) == 0;
}

char *dpt_path_join(const char *directory, const char *name) {
    return dpt_mem_format("%s/%s", directory, name);
}

const char *dpt_path_base(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

char *dpt_path_parent(const char *path) {
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        return dpt_mem_strdup(".", "path");
    if (slash == path)
        return dpt_mem_strdup("/", "path");
    return dpt_mem_format("%.*s", (int)(slash - path), path);
}

bool dpt_path_go_up(char *path) {
    char *slash = strrchr(path, '/');
    if (slash == NULL || path[1] == '\0')
        return false;
    slash[slash == path] = '\0';
    return true;
}

/* Names behind a path that has no links. They are of nothing that is there, so that `..` takes the name
 * before it away. */
static bool path_append(char real[PATH_MAX], const char *names) {
    while (*(names += strspn(names, "/")) != '\0') {
        size_t n = strcspn(names, "/");
        size_t used = strlen(real);
        if (n == 2 && strncmp(names, "..", 2) == 0) {
            (void)dpt_path_go_up(real); /* above the root is the root */
        } else if (n != 1 || names[0] != '.') {
            if (used + n + 2 > PATH_MAX)
                return false;
            snprintf(real + used, PATH_MAX - used, "%s%.*s", used > 1 ? "/" : "", (int)n, names);
        }
        names += n;
    }
    return true;
}

bool dpt_path_absolute(const char *path, char out[PATH_MAX]) {
    strcpy(out, "/");
    return (path[0] == '/' || getcwd(out, PATH_MAX) != NULL) && path_append(out, path);
}

bool dpt_path_follow_link(char path[PATH_MAX]) {
    for (size_t n = 1; path[n - 1] != '\0'; n++) {
        char link[PATH_MAX], target[PATH_MAX], followed[PATH_MAX];
        n += strcspn(path + n, "/");
        memcpy(link, path, n);
        link[n] = '\0';
        ssize_t length = readlink(link, target, sizeof target - 1);
        if (length >= 0) {
            target[length] = '\0';
            (void)dpt_path_go_up(link);
            strcpy(followed, target[0] == '/' ? "/" : link);
            bool ok = path_append(followed, target) && path_append(followed, path + n);
            if (ok)
                strcpy(path, followed);
            return ok;
        }
        if (path[n] == '\0')
            break;
    }
    return false;
}

/* The part of a path that is there, without links, and the rest as it is given. */
static bool path_resolve_once(const char *path, char real[PATH_MAX]) {
    char given[PATH_MAX];
    if (strlen(path) >= sizeof given)
        return false;
    strcpy(given, path);
    while (given[0] != '\0' && realpath(given, real) == NULL) {
        char *slash = strrchr(given, '/');
        given[slash == NULL ? 0 : slash - given] = '\0';
    }
    size_t found = strlen(given);
    if (found == 0 && realpath(path[0] == '/' ? "/" : ".", real) == NULL)
        return false;
    return path_append(real, path + found);
}

bool dpt_path_resolve(const char *path, char real[PATH_MAX]) {
    char given[PATH_MAX];
    /* `new/../link/x` gets to a link once `new` is gone. */
    bool ok = path_resolve_once(path, real);
    do
        strcpy(given, ok ? real : "/");
    while (ok && (ok = path_resolve_once(given, real)) && strcmp(given, real) != 0);
    return ok;
}
