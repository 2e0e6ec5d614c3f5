#include "deltapath/base/isolate.h"

#include "deltapath/base/file.h"
#include "deltapath/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* A library that loops uses processor time, a slow file system does not. [s] */
enum { CPU_LIMIT = 20, WALL_LIMIT = 600 };

/* What HDF5 asks for without a look at the file, and more. [bytes] */
enum { ENOUGH_BYTES = 16 << 20 };

/* Tests that feed thousands of damaged files have less patience. */
static rlim_t cpu_limit(void) {
    const char *text = getenv("DPT_ISOLATE_SECONDS");
    long seconds = text != NULL ? strtol(text, NULL, 10) : CPU_LIMIT;
    return (rlim_t)(seconds > 0 ? seconds : CPU_LIMIT);
}

/* What comes through the pipe before the bytes. */
typedef struct answer {
    dpt_status st;
    int64_t n;
    char message[DPT_MESSAGE_MAX];
} answer;

static bool read_all(int fd, void *data, int64_t n) {
    char *at = data;
    while (n > 0) {
        ssize_t done = read(fd, at, n < (1 << 20) ? (size_t)n : (1 << 20));
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return false;
        at += done;
        n -= done;
    }
    return true;
}

/* A crash of the child is an answer: no core file, no stack trace of the MPI library. Signals that ask for
 * a stop stay as they are: schedulers send them to all processes of a job, and a child that they ended
 * would say that the file is corrupt. */
static void make_crash_silent(void) {
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM, SIGXCPU};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        signal(signals[i], SIG_DFL);
    const struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    int null = open("/dev/null", O_WRONLY);
    if (null >= 0) {
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
    }
    const struct rlimit cpu = {cpu_limit(), cpu_limit() + 1};
    setrlimit(RLIMIT_CPU, &cpu);
    alarm(WALL_LIMIT);
}

static void run_child(int fd, dpt_isolate_fn work, void *ctx) {
    answer a = {.st = DPT_OK};
    char *bytes = NULL;
    make_crash_silent();
    dpt_error_clear();
    a.st = work(ctx, &bytes, &a.n);
    if (a.st == DPT_OK)
        a.st = dpt_mem_check();
    if (a.st != DPT_OK)
        a.n = 0;
    memcpy(a.message, dpt_error_message(), sizeof a.message);
    bool ok = dpt_file_write_open(fd, &a, sizeof a) && dpt_file_write_open(fd, bytes, a.n);
    /* Not exit: handlers that MPI registered belong to the parent. */
    _exit(ok ? 0 : 1);
}

/* Whether the limits of this process, which are those of the child, leave nothing to work with: then the
 * library fails on any file, and says no more than that it fails. What it asks for because a damaged file
 * says so is no sign of that. */
static bool memory_is_short(void) {
    void *block =
        mmap(NULL, ENOUGH_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED)
        return true;
    munmap(block, ENOUGH_BYTES);
    return false;
}

static dpt_status report_short(const char *path, const char *did) {
    return dpt_error(DPT_ERR_OUTPUT,
                     "%s: could not be %s: the system gives this process less than %d MiB more: "
                     "give the job more memory, or start fewer ranks on a machine",
                     path, did, ENOUGH_BYTES >> 20);
}

/* Signals by which code that goes wrong ends itself, and those of the limits above. Any other came from
 * outside: SIGKILL above all from a system that is out of memory. */
static bool is_own_signal(int number) {
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM, SIGXCPU, SIGSYS};
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        if (number == own[i])
            return true;
    return false;
}

/* Why there is no answer, from what waitpid says. */
static dpt_status report_end(const char *path, bool writes, int ended) {
    int number = WIFSIGNALED(ended) ? WTERMSIG(ended) : 0;
    const char *did = writes ? "wrote" : "read";
    if (memory_is_short())
        return report_short(path, writes ? "written" : "read");
    if (number == SIGKILL)
        return dpt_error(DPT_ERR_OUTPUT,
                         "%s: the process that %s it was killed, as a system that is out of memory "
                         "does: give the job more memory, or start fewer ranks on a machine",
                         path, did);
    if (number != 0 && !is_own_signal(number))
        return dpt_error(DPT_ERR_OUTPUT,
                         "%s: the process that %s it was ended by signal %d (%s), which is not due "
                         "to the file: start it again",
                         path, did, number, strsignal(number));
    if (writes)
        return dpt_error(DPT_ERR_OUTPUT,
                         "%s: the HDF5 library crashed while it wrote: check disk space and memory",
                         path);
    return dpt_error(DPT_ERR_INPUT,
                     "%s: the HDF5 library crashed or hung on it: the file is corrupt, copy it "
                     "again",
                     path);
}

/* What the child sent. @param[out] silent  it ended without an answer. */
static dpt_status receive(int fd, const char *path, char **bytes, int64_t *n, bool *silent) {
    answer a;
    *silent = !read_all(fd, &a, sizeof a);
    if (*silent)
        return DPT_OK;
    if (a.st == DPT_ERR_INPUT && memory_is_short())
        return report_short(path, "read");
    if (a.st != DPT_OK) {
        a.message[DPT_MESSAGE_MAX - 1] = '\0';
        return dpt_error(a.st, "%s", a.message);
    }
    if (a.n == 0)
        return DPT_OK;
    *bytes = dpt_mem_alloc(a.n, 1, "headers of a file");
    if (*bytes == NULL)
        return DPT_ERR_OUTPUT;
    *n = a.n;
    if (read_all(fd, *bytes, a.n))
        return DPT_OK;
    dpt_mem_free(*bytes);
    *bytes = NULL;
    *n = 0;
    return dpt_error(DPT_ERR_INTERNAL,
                     "%s: its headers did not arrive from the process that read them: run again",
                     path);
}

static dpt_status isolate(const char *path, bool writes, dpt_isolate_fn work, void *ctx,
                          char **bytes, int64_t *n) {
    *bytes = NULL;
    *n = 0;
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return work(ctx, bytes, n);
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        run_child(ends[1], work, ctx);
    }
    close(ends[1]);
    int ended = 0;
    bool silent = false;
    dpt_status st = child > 0 ? receive(ends[0], path, bytes, n, &silent) : work(ctx, bytes, n);
    close(ends[0]);
    while (child > 0 && waitpid(child, &ended, 0) < 0 && errno == EINTR) {
    }
    return silent ? report_end(path, writes, ended) : st;
}

dpt_status dpt_isolate_run(const char *path, dpt_isolate_fn work, void *ctx, char **bytes,
                           int64_t *n) {
    return isolate(path, false, work, ctx, bytes, n);
}

dpt_status dpt_isolate_write(const char *path, dpt_isolate_fn work, void *ctx, char **bytes,
                             int64_t *n) {
    return isolate(path, true, work, ctx, bytes, n);
}
