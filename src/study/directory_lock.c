#include "deltapath/study/directory_lock.h"

#include "deltapath/base/guard.h"
#include "deltapath/base/log.h"
#include "deltapath/comm/stop.h"
#include "existing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LOCK_TRIES = 150, LOCKS_MAX = 16 };
static const struct timespec LOCK_PAUSE = {.tv_nsec = 200000000};

/* A verb works in one directory or two; tests run several studies in one process. */
static struct stat held[LOCKS_MAX];
static int nheld;

static bool lock_held(const struct stat *folder) {
    for (int i = 0; i < nheld; i++)
        if (held[i].st_dev == folder->st_dev && held[i].st_ino == folder->st_ino)
            return true;
    return false;
}

/* The lock ends with the process, however it ends. A run that was killed may take a moment to be gone. */
static dpt_status lock_wait(const char *directory, int fd) {
    for (int tries = 0; flock(fd, LOCK_EX | LOCK_NB) != 0; tries++) {
        if (errno != EWOULDBLOCK)
            return DPT_OK; /* a file system without locks */
        if (tries == LOCK_TRIES)
            return dpt_error(
                DPT_ERR_OUTPUT,
                "%s: another run is working in it: wait for its end, or choose another "
                "directory",
                directory);
        if (tries == 0)
            dpt_log(DPT_LOG_WARN, "%s: another run is in it: waiting for its end", directory);
        if (dpt_stop_asked())
            return dpt_stop_error();
        nanosleep(&LOCK_PAUSE, NULL);
    }
    return DPT_OK;
}

/* Another folder may have come to lie there while this run waited. */
static dpt_status lock_enter(const char *directory, const struct stat *locked) {
    struct stat now;
    dpt_guard_leave(directory);
    dpt_status st = dpt_guard_enter(directory);
    if (st == DPT_OK && (stat(directory, &now) != 0 || now.st_dev != locked->st_dev ||
                         now.st_ino != locked->st_ino))
        st = dpt_error(DPT_ERR_OUTPUT,
                       "%s: was moved or replaced while this run waited for its lock: start again",
                       directory);
    return st;
}

/* @param[out] taken  whether the lock is new. */
static dpt_status lock_folder(const char *directory, bool *taken) {
    struct stat folder;
    *taken = false;
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return DPT_OK;
    if (fstat(fd, &folder) != 0 || lock_held(&folder)) {
        close(fd);
        return dpt_guard_enter(directory);
    }
    dpt_status st = lock_wait(directory, fd);
    if (st == DPT_OK)
        st = lock_enter(directory, &folder);
    *taken = st == DPT_OK && flock(fd, LOCK_EX | LOCK_NB) == 0;
    if (st != DPT_OK)
        close(fd);
    else if (nheld < LOCKS_MAX)
        held[nheld++] = folder; /* the descriptor stays open */
    return st;
}

dpt_status dpt_directory_lock(const char *directory) {
    bool taken;
    dpt_status st = lock_folder(directory, &taken);
    if (taken)
        dpt_existing_sweep(directory);
    return st;
}

dpt_status dpt_directory_lock_models(const char *models) {
    bool taken;
    dpt_status st = lock_folder(models, &taken);
    if (taken)
        dpt_existing_sweep_models(models);
    return st;
}
