#include "deltapath/base/file.h"

#include "deltapath/base/guard.h"
#include "deltapath/base/hash.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/traffic.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CALL_BYTES = 1 << 30 };

enum { MACHINE_DIGITS = 8 };

static char machine[MACHINE_DIGITS + 1];

/* Process ids say who wrote a file only among processes that see the same ones: on one machine, outside of
 * containers or in the same one. */
static void file_find_machine(void) {
    char host[256] = "";
    struct stat space = {.st_ino = 0};
    dpt_hash hash;
    (void)gethostname(host, sizeof host - 1);
    (void)stat("/proc/self/ns/pid", &space);
    dpt_hash_begin(&hash);
    dpt_hash_update(&hash, host, strlen(host));
    dpt_hash_update(&hash, &space.st_ino, sizeof space.st_ino);
    snprintf(machine, sizeof machine, "%08" PRIx32, (uint32_t)dpt_hash_value(&hash));
}

/* Found once: whoever completes or removes a temporary file has to find it, whatever fails meanwhile. */
static const char *file_machine(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, file_find_machine);
    return machine;
}

char *dpt_file_temporary(const char *path) {
    return dpt_mem_format("%s" DPT_FILE_PARTIAL ".%s.%ld", path, file_machine(), (long)getpid());
}

/* What follows the ending of a temporary name: nothing, or machine and process. */
static const char *file_writer(const char *name) {
    const char *last = NULL;
    for (const char *at = name; (at = strstr(at, DPT_FILE_PARTIAL)) != NULL;)
        last = at += strlen(DPT_FILE_PARTIAL);
    if (last == NULL || last == name + strlen(DPT_FILE_PARTIAL) || last[0] == '\0')
        return last != name + strlen(DPT_FILE_PARTIAL) ? last : NULL;
    size_t digits = strspn(last + 1, "0123456789abcdef");
    if (last[0] != '.' || digits != MACHINE_DIGITS || last[1 + digits] != '.')
        return NULL;
    const char *process = last + 2 + digits;
    size_t n = strspn(process, "0123456789");
    return n > 0 && process[n] == '\0' ? last : NULL;
}

size_t dpt_file_temporary_stem(const char *name) {
    const char *writer = file_writer(name);
    return writer == NULL ? 0 : (size_t)(writer - name) - strlen(DPT_FILE_PARTIAL);
}

/* Whether nobody can be writing a temporary file any more. */
static bool file_orphaned(const char *name) {
    const char *writer = file_writer(name);
    if (writer[0] == '\0')
        return true;
    if (strncmp(writer + 1, file_machine(), MACHINE_DIGITS) != 0)
        return false;
    long process = strtol(writer + 2 + MACHINE_DIGITS, NULL, 10);
    return process > 0 && process == (long)(pid_t)process && kill((pid_t)process, 0) != 0 &&
           errno == ESRCH;
}

static dpt_status file_remove_temporary(const char *temporary) {
    struct stat info;
    if (lstat(temporary, &info) != 0)
        return DPT_OK;
    /* A link is removed, not followed. */
    dpt_status st = S_ISLNK(info.st_mode) ? DPT_OK : dpt_guard_output(temporary);
    if (st == DPT_OK && unlink(temporary) != 0)
        st = dpt_error(DPT_ERR_OUTPUT, "%s: cannot be removed: move it away", temporary);
    return st;
}

static char *file_folder(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash == NULL   ? dpt_mem_format(".")
           : slash == path ? dpt_mem_format("/")
                           : dpt_mem_format("%.*s", (int)(slash - path), path);
}

char *dpt_file_begin(const char *path) {
    if (dpt_guard_output(path) != DPT_OK)
        return NULL;
    char *temporary = dpt_file_temporary(path);
    if (temporary == NULL || file_remove_temporary(temporary) == DPT_OK)
        return temporary;
    dpt_mem_free(temporary);
    return NULL;
}

void dpt_file_sweep(const char *folder, const char *name, bool locked) {
    struct stat info;
    DIR *opened = opendir(folder);
    for (const struct dirent *entry = NULL; opened != NULL && (entry = readdir(opened)) != NULL;) {
        size_t stem = dpt_file_temporary_stem(entry->d_name);
        bool wanted =
            stem > 0 &&
            (name == NULL || (strlen(name) == stem && strncmp(entry->d_name, name, stem) == 0));
        char *path = wanted && (locked || file_orphaned(entry->d_name))
                         ? dpt_mem_format("%s/%s", folder, entry->d_name)
                         : NULL;
        if (path != NULL && lstat(path, &info) == 0 && !S_ISDIR(info.st_mode) &&
            file_remove_temporary(path) != DPT_OK)
            dpt_error_clear(); /* it stays */
        dpt_mem_free(path);
    }
    if (opened != NULL)
        closedir(opened);
}

void dpt_file_sweep_of(const char *path) {
    char *folder = file_folder(path);
    const char *slash = strrchr(path, '/');
    if (folder != NULL)
        dpt_file_sweep(folder, slash != NULL ? slash + 1 : path, false);
    dpt_mem_free(folder);
}

static int file_sync(const char *path, int flags) {
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int failed = fsync(fd);
    return close(fd) != 0 || failed != 0 ? -1 : 0;
}

/* The rename is durable only once the folder is. Some file systems cannot sync a folder: the file is
 * whole there all the same, so that is no error. */
static void file_sync_folder(const char *path) {
    char *folder = file_folder(path);
    if (folder != NULL)
        (void)file_sync(folder, O_RDONLY | O_DIRECTORY);
    dpt_mem_free(folder);
}

dpt_status dpt_file_commit(const char *path) {
    char *temporary = dpt_file_temporary(path);
    if (temporary == NULL) {
        dpt_file_discard(path); /* there may be memory for its name again */
        return DPT_ERR_OUTPUT;
    }
    dpt_status st = dpt_mem_check();
    if (st == DPT_OK)
        st = dpt_guard_output(path);
    if (st != DPT_OK) {
        (void)file_remove_temporary(temporary);
    } else if (file_sync(temporary, O_WRONLY) != 0 || rename(temporary, path) != 0) {
        st = dpt_error(DPT_ERR_OUTPUT, "%s: cannot be completed: %s: check disk space and rights",
                       path, strerror(errno));
        unlink(temporary);
    } else {
        file_sync_folder(path);
    }
    dpt_mem_free(temporary);
    return st;
}

void dpt_file_discard(const char *path) {
    char *temporary = dpt_file_temporary(path);
    if (temporary != NULL)
        (void)file_remove_temporary(temporary);
    dpt_mem_free(temporary);
}

bool dpt_file_write_open(int fd, const void *bytes, int64_t n) {
    const char *at = bytes;
    while (n > 0) {
        ssize_t done = write(fd, at, (size_t)(n < CALL_BYTES ? n : CALL_BYTES));
        if (done < 0 && errno == EINTR)
            continue;
        if (done == 0)
            errno = ENOSPC;
        if (done <= 0)
            return false;
        dpt_file_count(0, done);
        at += done;
        n -= done;
    }
    return true;
}

dpt_status dpt_file_put(const char *path, const dpt_file_piece *pieces, int count) {
    char *temporary = dpt_file_begin(path);
    if (temporary == NULL)
        return DPT_ERR_OUTPUT;
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    bool ok = fd >= 0;
    for (int i = 0; i < count && ok; i++)
        ok = dpt_file_write_open(fd, pieces[i].bytes, pieces[i].n);
    ok = ok && fsync(fd) == 0;
    int error = errno;
    if (fd >= 0 && close(fd) != 0 && ok) {
        ok = false;
        error = errno;
    }
    dpt_status st = DPT_OK;
    if (!ok) {
        st = dpt_error(DPT_ERR_OUTPUT, "%s: cannot be written: %s: check disk space and rights",
                       path, strerror(error));
        if (fd >= 0)
            unlink(temporary);
    }
    dpt_mem_free(temporary);
    return st;
}

dpt_status dpt_file_write(const char *path, const void *bytes, int64_t n) {
    const dpt_file_piece whole = {.bytes = bytes, .n = n};
    dpt_status st = dpt_file_put(path, &whole, 1);
    return st == DPT_OK ? dpt_file_commit(path) : st;
}

/* Opening a FIFO would wait for a writer: not with O_NONBLOCK, which means nothing for a regular file. */
int dpt_file_open_input(const char *path) {
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        (void)dpt_error(DPT_ERR_INPUT,
                        "%s: cannot be opened: %s: check the path and its permissions", path,
                        strerror(errno));
        return -1;
    }
    if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode))
        return fd;
    close(fd);
    (void)dpt_error(DPT_ERR_INPUT, "%s: no regular file: give the path of a file", path);
    return -1;
}

int64_t dpt_file_read_at(int fd, int64_t offset, void *out, int64_t n) {
    char *at = out;
    int64_t done = 0;
    while (done < n) {
        int64_t left = n - done;
        ssize_t got =
            pread(fd, at + done, (size_t)(left < CALL_BYTES ? left : CALL_BYTES), offset + done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        dpt_file_count(got, 0);
        done += got;
    }
    return done;
}

static dpt_status file_read_open(int fd, const char *path, int64_t limit, char **bytes,
                                 int64_t *n) {
    dpt_file_identity identity;
    dpt_status st = dpt_file_identify_open(fd, path, &identity);
    if (st != DPT_OK)
        return st;
    if (identity.size > limit)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: %" PRId64 " bytes exceed the limit of %" PRId64 ": check the file",
                         path, identity.size, limit);
    char *block = dpt_mem_alloc(identity.size + 1, 1, "bytes of a file");
    if (block == NULL)
        return DPT_ERR_OUTPUT;
    int64_t got = dpt_file_read_at(fd, 0, block, identity.size);
    if (got != identity.size) {
        int error = errno;
        dpt_mem_free(block);
        return dpt_error(DPT_ERR_INPUT, "%s: cannot be read (%s): check its permissions", path,
                         got < 0 ? strerror(error) : "it became shorter");
    }
    block[identity.size] = '\0';
    *bytes = block;
    *n = identity.size;
    return DPT_OK;
}

dpt_status dpt_file_read(const char *path, int64_t limit, char **bytes, int64_t *n) {
    *bytes = NULL;
    *n = 0;
    int fd = dpt_file_open_input(path);
    if (fd < 0)
        return DPT_ERR_INPUT;
    dpt_status st = file_read_open(fd, path, limit, bytes, n);
    close(fd);
    return st;
}

static int64_t file_nanoseconds(struct timespec time) {
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static dpt_status file_identity(int failed, const struct stat *info, const char *path,
                                dpt_file_identity *out) {
    *out = (dpt_file_identity){.inode = 0};
    if (failed != 0)
        return dpt_error(DPT_ERR_INPUT, "%s: %s: check the path", path, strerror(errno));
    *out = (dpt_file_identity){.device = info->st_dev,
                               .inode = info->st_ino,
                               .size = info->st_size,
                               .mtime = file_nanoseconds(info->st_mtim),
                               .ctime = file_nanoseconds(info->st_ctim),
                               .links = info->st_nlink,
                               .mode = info->st_mode,
                               .owner = info->st_uid,
                               .group = info->st_gid};
    return DPT_OK;
}

dpt_status dpt_file_identify(const char *path, dpt_file_identity *out) {
    struct stat info;
    int failed = stat(path, &info);
    return file_identity(failed, &info, path, out);
}

dpt_status dpt_file_identify_open(int fd, const char *path, dpt_file_identity *out) {
    struct stat info;
    int failed = fstat(fd, &info);
    return file_identity(failed, &info, path, out);
}

bool dpt_file_same_content(const dpt_file_identity *a, const dpt_file_identity *b) {
    bool handled =
        a->links != b->links || a->mode != b->mode || a->owner != b->owner || a->group != b->group;
    return a->inode == b->inode && a->size == b->size && a->mtime == b->mtime &&
           (a->ctime == b->ctime || handled);
}

bool dpt_file_same(const dpt_file_identity *a, const dpt_file_identity *b) {
    return a->device == b->device && dpt_file_same_content(a, b);
}

dpt_status dpt_file_changed(const char *path) {
    return dpt_error(DPT_ERR_INPUT,
                     "%s: changed while it was read: run again when nothing writes to it", path);
}
