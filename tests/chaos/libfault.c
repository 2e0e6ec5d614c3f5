/* Faults below the program: preloaded into it, makes the k-th call of a class fail.
 *
 *     CHAOS_LOG=FILE             one line "class k function stack" for each call that could fail; %r in
 *                                the name is the rank
 *     CHAOS_FAULT=CLASS:K:RANK   the K-th call of CLASS on RANK fails; it is noted in $CHAOS_FIRED
 *     CHAOS_KILL=1               the process is killed there instead
 *     CHAOS_COLD=1               HDF5's start, some 2000 allocations in the first call of each process, counts
 *     CHAOS_SERVE=FOLDER         many runs in one process, see serve()
 *
 * Counted are calls between MPI_Init_thread and MPI_Finalize, by who makes them (the return address):
 * memory and files of the program and jansson; files of HDF5 and MPI-IO too; memory of libfyaml and of
 * HDF5 as classes of their own; MPI and HDF5 calls of the program. Memory that libc, MPI, OpenMP and BLAS take is not
 * failed: they end the process by their own decision. Calls that hold something (close, free, MPI) are
 * really made before they return an error, so that nothing leaks and no other rank waits by construction.
 * A forked child counts together with its parent; a child that runs another program does not.
 *
 * x86-64 with the System V calling convention. `calls.inc` lists the MPI_ and H5 functions that the
 * program uses (chaos.py makes it).
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <mpi.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    ALLOC,
    ALLOC_YAML,
    ALLOC_HDF5,
    OPEN,
    READ,
    WRITE,
    NAME,
    STAT,
    CLOSE,
    PROCESS,
    MPI,
    HDF5,
    CLASSES
};
static const char *const class_names[CLASSES] = {"alloc", "alloc-yaml", "alloc-hdf5", "open",
                                                 "read",  "write",      "name",       "stat",
                                                 "close", "process",    "mpi",        "hdf5"};
enum { BEFORE, AFTER }; /* whether the real call is made */
enum { FROM_OTHER, FROM_PROGRAM, FROM_JSON, FROM_YAML, FROM_HDF5, FROM_MPIIO };

typedef struct function {
    const char *name;
    int class;
    int when;
    long value; /* returned in place of the result */
    int error;  /* errno */
    int stream; /* argument that is a FILE *, from 1; 0: none. Standard output and error never fail. */
    void *real;
} function;

#define FUNCTION(name, class, when, value, error, stream)                                          \
    KNOWN(name, class, when, value, error, stream, NULL)
#define KNOWN(name, class, when, value, error, stream, real)                                       \
    __attribute__((visibility("hidden"), used))                                                    \
    function fault_##name = {#name, class, when, value, error, stream, real};                      \
    __asm__(".pushsection .text\n.globl " #name "\n.type " #name ", @function\n" #name ":\n"       \
            "  leaq fault_" #name "(%rip), %r11\n  jmp fault_enter\n.popsection\n")

/* Looking a name up takes memory, so these are known before. */
extern char __libc_malloc[], __libc_calloc[], __libc_realloc[];
KNOWN(malloc, ALLOC, BEFORE, 0, ENOMEM, 0, __libc_malloc);
KNOWN(calloc, ALLOC, BEFORE, 0, ENOMEM, 0, __libc_calloc);
KNOWN(realloc, ALLOC, BEFORE, 0, ENOMEM, 0, __libc_realloc);
FUNCTION(aligned_alloc, ALLOC, BEFORE, 0, ENOMEM, 0);
FUNCTION(posix_memalign, ALLOC, BEFORE, ENOMEM, ENOMEM, 0);
FUNCTION(strdup, ALLOC, BEFORE, 0, ENOMEM, 0);
FUNCTION(vasprintf, ALLOC, BEFORE, -1, ENOMEM, 0);
FUNCTION(open_memstream, ALLOC, BEFORE, 0, ENOMEM, 0);
FUNCTION(realpath, ALLOC, BEFORE, 0, EACCES, 0);
FUNCTION(mmap, ALLOC, BEFORE, -1, ENOMEM, 0);
FUNCTION(open, OPEN, BEFORE, -1, EMFILE, 0);
FUNCTION(openat, OPEN, BEFORE, -1, EMFILE, 0);
FUNCTION(fopen, OPEN, BEFORE, 0, EMFILE, 0);
FUNCTION(opendir, OPEN, BEFORE, 0, EMFILE, 0);
FUNCTION(read, READ, BEFORE, -1, EIO, 0);
FUNCTION(pread, READ, BEFORE, -1, EIO, 0);
FUNCTION(readv, READ, BEFORE, -1, EIO, 0);
FUNCTION(preadv, READ, BEFORE, -1, EIO, 0);
FUNCTION(fread, READ, BEFORE, 0, EIO, 4);
FUNCTION(fgets, READ, BEFORE, 0, EIO, 3);
FUNCTION(readdir, READ, BEFORE, 0, EIO, 0);
FUNCTION(fseek, READ, BEFORE, -1, EIO, 0);
FUNCTION(fseeko, READ, BEFORE, -1, EIO, 0);
FUNCTION(write, WRITE, BEFORE, -1, ENOSPC, 0);
FUNCTION(pwrite, WRITE, BEFORE, -1, ENOSPC, 0);
FUNCTION(writev, WRITE, BEFORE, -1, ENOSPC, 0);
FUNCTION(pwritev, WRITE, BEFORE, -1, ENOSPC, 0);
FUNCTION(fwrite, WRITE, BEFORE, 0, ENOSPC, 4);
FUNCTION(fprintf, WRITE, BEFORE, -1, ENOSPC, 1);
FUNCTION(vfprintf, WRITE, BEFORE, -1, ENOSPC, 1);
FUNCTION(fputs, WRITE, BEFORE, -1, ENOSPC, 2);
FUNCTION(fputc, WRITE, BEFORE, -1, ENOSPC, 2);
FUNCTION(fflush, WRITE, BEFORE, -1, ENOSPC, 1);
FUNCTION(fsync, WRITE, BEFORE, -1, EIO, 0);
FUNCTION(fdatasync, WRITE, BEFORE, -1, EIO, 0);
FUNCTION(ftruncate, WRITE, BEFORE, -1, ENOSPC, 0);
FUNCTION(fallocate, WRITE, BEFORE, -1, ENOSPC, 0);
FUNCTION(rename, NAME, BEFORE, -1, EIO, 0);
FUNCTION(renameat2, NAME, BEFORE, -1, EIO, 0);
FUNCTION(unlink, NAME, BEFORE, -1, EIO, 0);
FUNCTION(unlinkat, NAME, BEFORE, -1, EIO, 0);
FUNCTION(remove, NAME, BEFORE, -1, EIO, 0);
FUNCTION(rmdir, NAME, BEFORE, -1, EIO, 0);
FUNCTION(mkdir, NAME, BEFORE, -1, EACCES, 0);
FUNCTION(mkdirat, NAME, BEFORE, -1, EACCES, 0);
FUNCTION(mkdtemp, NAME, BEFORE, 0, EACCES, 0);
FUNCTION(nftw, NAME, BEFORE, -1, EIO, 0);
FUNCTION(flock, NAME, BEFORE, -1, ENOLCK, 0);
FUNCTION(stat, STAT, BEFORE, -1, EIO, 0);
FUNCTION(lstat, STAT, BEFORE, -1, EIO, 0);
FUNCTION(fstat, STAT, BEFORE, -1, EIO, 0);
FUNCTION(fstatat, STAT, BEFORE, -1, EIO, 0);
FUNCTION(statvfs, STAT, BEFORE, -1, EIO, 0);
FUNCTION(access, STAT, BEFORE, -1, EIO, 0);
FUNCTION(close, CLOSE, AFTER, -1, EIO, 0);
FUNCTION(fclose, CLOSE, AFTER, -1, ENOSPC, 1);
FUNCTION(closedir, CLOSE, AFTER, -1, EIO, 0);
FUNCTION(fork, PROCESS, BEFORE, -1, EAGAIN, 0);
FUNCTION(pipe2, PROCESS, BEFORE, -1, EMFILE, 0);
FUNCTION(posix_spawnp, PROCESS, BEFORE, EAGAIN, EAGAIN, 0);
#define MPI_CALL(name)               FUNCTION(name, MPI, AFTER, MPI_ERR_OTHER, 0, 0)
#define HDF5_CALL(name, when, value) FUNCTION(name, HDF5, when, value, 0, 0)
#include "calls.inc"

/* Keep the argument registers, ask fault_decide(function, return slot, registers) where to go, go. */
__asm__(".pushsection .text\nfault_enter:\n"
        "  .cfi_startproc\n"
        "  pushq %rdi\n  pushq %rsi\n  pushq %rdx\n  pushq %rcx\n  pushq %r8\n  pushq %r9\n"
        "  pushq %rax\n  subq $128, %rsp\n  .cfi_def_cfa_offset 192\n"
        "  movaps %xmm0, (%rsp)\n  movaps %xmm1, 16(%rsp)\n  movaps %xmm2, 32(%rsp)\n"
        "  movaps %xmm3, 48(%rsp)\n  movaps %xmm4, 64(%rsp)\n  movaps %xmm5, 80(%rsp)\n"
        "  movaps %xmm6, 96(%rsp)\n  movaps %xmm7, 112(%rsp)\n"
        "  movq %r11, %rdi\n  leaq 184(%rsp), %rsi\n  leaq 128(%rsp), %rdx\n"
        "  call fault_decide\n  movq %rax, %r11\n"
        "  movaps (%rsp), %xmm0\n  movaps 16(%rsp), %xmm1\n  movaps 32(%rsp), %xmm2\n"
        "  movaps 48(%rsp), %xmm3\n  movaps 64(%rsp), %xmm4\n  movaps 80(%rsp), %xmm5\n"
        "  movaps 96(%rsp), %xmm6\n  movaps 112(%rsp), %xmm7\n"
        "  addq $128, %rsp\n  popq %rax\n  popq %r9\n  popq %r8\n  popq %rcx\n  popq %rdx\n"
        "  popq %rsi\n  popq %rdi\n  .cfi_def_cfa_offset 8\n  jmp *%r11\n  .cfi_endproc\n"
        /* The real function returns here when its result is to be replaced. */
        "fault_return:\n  subq $16, %rsp\n  call fault_after\n  movq %rax, 8(%rsp)\n"
        "  movq %rdx, %rax\n  addq $8, %rsp\n  ret\n.popsection\n");
extern char fault_return[] __attribute__((visibility("hidden")));

typedef struct range {
    uintptr_t begin, end;
    int from;
} range;

enum { RANGES = 512, DEPTH = 24 };
static range ranges[RANGES];
static int nranges;
static long (*counts)[CLASSES]; /* shared with forked children */
static bool *fired;
static bool active;
typedef int main_fn(int, char **, char **);
static main_fn *program_main;
static bool serving;
static int wanted_class = -1;
static long wanted_k;
static int log_file = -1;
static uintptr_t base; /* of the program */
static __thread bool inside __attribute__((tls_model("initial-exec")));
static __thread function *failing __attribute__((tls_model("initial-exec")));
static __thread void *back __attribute__((tls_model("initial-exec")));

static int range_from(const char *name) {
    if (name[0] == '\0')
        return FROM_PROGRAM;
    if (strstr(name, "libjansson") != NULL)
        return FROM_JSON;
    if (strstr(name, "libfyaml") != NULL)
        return FROM_YAML;
    if (strstr(name, "libhdf5") != NULL)
        return FROM_HDF5;
    if (strstr(name, "mca_io_") != NULL || strstr(name, "mca_fs_") != NULL ||
        strstr(name, "mca_fbtl_") != NULL || strstr(name, "mca_fcoll_") != NULL ||
        strstr(name, "ompio") != NULL || strstr(name, "romio") != NULL)
        return FROM_MPIIO;
    return FROM_OTHER;
}

static int add_ranges(struct dl_phdr_info *info, size_t size, void *ctx) {
    (void)size;
    (void)ctx;
    for (int i = 0; i < info->dlpi_phnum && nranges < RANGES; i++) {
        if (info->dlpi_phdr[i].p_type != PT_LOAD || (info->dlpi_phdr[i].p_flags & PF_X) == 0)
            continue;
        uintptr_t begin = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
        ranges[nranges++] =
            (range){begin, begin + info->dlpi_phdr[i].p_memsz, range_from(info->dlpi_name)};
        if (info->dlpi_name[0] == '\0')
            base = info->dlpi_addr;
    }
    return 0;
}

static int from(void *address) {
    for (int again = 0; again < 2; again++) {
        for (int i = 0; i < nranges; i++)
            if ((uintptr_t)address >= ranges[i].begin && (uintptr_t)address < ranges[i].end)
                return ranges[i].from;
        nranges = 0; /* a library was loaded since */
        dl_iterate_phdr(add_ranges, NULL);
    }
    return FROM_OTHER;
}

/* The class of a call by who makes it, -1 when it is none of ours. */
static int class_of(const function *f, int caller) {
    if (f->class == ALLOC)
        return caller == FROM_PROGRAM || caller == FROM_JSON ? ALLOC
               : caller == FROM_YAML                         ? ALLOC_YAML
               : caller == FROM_HDF5                         ? ALLOC_HDF5
                                                             : -1;
    if (f->class == MPI || f->class == HDF5 || f->class == PROCESS)
        return caller == FROM_PROGRAM ? f->class : -1;
    return caller == FROM_OTHER ? -1 : f->class;
}

/* Straight to the kernel: our own calls are not to be counted. */
static void put(int file, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(int file, const char *format, ...) {
    char line[1024];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (file >= 0 && length > 0)
        syscall(SYS_write, file, line, (size_t)length);
}

/* Addresses of the program on the stack, for addr2line. */
static void put_stack(int file, const char *class, long k, const char *name) {
    void *frames[DEPTH];
    char text[DEPTH * 20] = "";
    int n = backtrace(frames, DEPTH);
    size_t at = 0;
    for (int i = 0; i < n; i++)
        if (from(frames[i]) == FROM_PROGRAM)
            at += (size_t)snprintf(text + at, sizeof text - at, " %lx",
                                   (uintptr_t)frames[i] - base - 1);
    put(file, "%s %ld %s%s\n", class, k, name, text);
}

static int open_named(const char *variable, int rank) {
    const char *pattern = getenv(variable);
    char path[4096];
    if (pattern == NULL)
        return -1;
    const char *mark = strstr(pattern, "%r");
    if (mark == NULL)
        snprintf(path, sizeof path, "%s", pattern);
    else
        snprintf(path, sizeof path, "%.*s%d%s", (int)(mark - pattern), pattern, rank, mark + 2);
    return (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
                        0666);
}

/* HDF5 started and its lists of free memory empty: then the k-th allocation is the same in every process. */
static void warm_hdf5(void) {
    for (int i = 0; i < 2 && getenv("CHAOS_COLD") == NULL; i++) {
        int (*call)(void) =
            (int (*)(void))dlsym(RTLD_DEFAULT, i == 0 ? "H5open" : "H5garbage_collect");
        if (call != NULL)
            call();
    }
}

static void activate(int rank) {
    char class[16];
    int target = -1;
    void *frames[1];
    backtrace(frames, 1); /* loads its library */
    warm_hdf5();
    if (counts == NULL) {
        void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED)
            return;
        counts = page;
        fired = (bool *)((char *)page + 2048);
    }
    memset(counts, 0, sizeof *counts);
    *fired = false;
    wanted_class = -1;
    syscall(SYS_close, log_file);
    const char *text = getenv("CHAOS_FAULT");
    if (text != NULL && sscanf(text, "%15[^:]:%ld:%d", class, &wanted_k, &target) == 3 &&
        target == rank)
        for (int c = 0; c < CLASSES; c++)
            if (strcmp(class, class_names[c]) == 0)
                wanted_class = c;
    log_file = open_named("CHAOS_LOG", rank);
    active = wanted_class >= 0 || log_file >= 0;
}

/* The program's own counts decide when it is over, whether it ends well or not. */
int MPI_Init_thread(int *argc, char ***argv, int required, int *provided) {
    int code = MPI_SUCCESS;
    int rank = 0;
    if (serving)
        *provided = MPI_THREAD_FUNNELED;
    else
        code = PMPI_Init_thread(argc, argv, required, provided);
    PMPI_Comm_rank(MPI_COMM_WORLD, &rank);
    activate(rank);
    return code;
}

int MPI_Finalize(void) {
    active = false;
    return serving ? MPI_SUCCESS : PMPI_Finalize();
}

/* The program's own variables, "offset:length offset:length" in CHAOS_STATE, which chaos.py finds: what a
 * new process begins with. */
static void swap_state(char *kept, bool restore) {
    const char *text = getenv("CHAOS_STATE");
    size_t offset, length;
    int read;
    for (; text != NULL && sscanf(text, "%zx:%zx%n", &offset, &length, &read) == 2; text += read) {
        char *own = (char *)base + offset;
        memcpy(restore ? own : kept, restore ? kept : own, length);
        kept += length;
    }
}

/* The end of a process closes what a failed run left open, and with it the lock on the study. */
static void close_files(const char *folder) {
    DIR *files = opendir("/proc/self/fd");
    for (struct dirent *entry; files != NULL && (entry = readdir(files)) != NULL;) {
        char path[4096];
        ssize_t length = readlinkat(dirfd(files), entry->d_name, path, sizeof path - 1);
        int file = atoi(entry->d_name);
        if (length > 0 && file > STDERR_FILENO && strncmp(path, folder, strlen(folder)) == 0)
            close(file);
    }
    if (files != NULL)
        closedir(files);
}

/* One run: what the words of the line say, "FAULT FOLDER ARGUMENT..." with tabs between them. */
static int serve_line(char *line, int rank, char *program) {
    enum { WORDS = 64 };
    char *words[WORDS + 1] = {NULL};
    int n = 0;
    for (char *at = strtok(line, "\t\n"); at != NULL && n < WORDS; at = strtok(NULL, "\t\n"))
        words[n++] = at;
    char text[32];
    snprintf(text, sizeof text, "text%d", rank);
    int file = n >= 2 && chdir(words[1]) == 0
                   ? open(text, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666)
                   : -1;
    if (file < 0)
        return 127;
    dup2(file, STDOUT_FILENO);
    dup2(file, STDERR_FILENO);
    close(file);
    setenv("CHAOS_FAULT", words[0], 1);
    setenv("CHAOS_FIRED", "fired", 1);
    if (strcmp(words[0], "log") == 0)
        setenv("CHAOS_LOG", "calls%r", 1);
    else
        unsetenv("CHAOS_LOG");
    char *folder = words[1];
    words[1] = program;
    int code = program_main(n - 1, words + 1, environ);
    active = false;
    clearerr(stdout);
    close_files(folder);
    return code;
}

/* In place of main: MPI starts once, then a run of main for each line of FOLDER/ask<rank>; what it returns
 * goes to FOLDER/answer<rank>. A run takes a twentieth of what it takes in processes of its own. */
static int serve(int argc, char **argv, char **environment) {
    static char kept[1 << 16];
    const char *folder = getenv("CHAOS_SERVE");
    char path[4096];
    char *line = NULL;
    size_t size = 0;
    int rank = 0, provided;
    sigset_t mask;
    if (folder == NULL)
        return program_main(argc, argv, environment);
    from(NULL); /* sets base */
    swap_state(kept, false);
    serving = true;
    PMPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
    PMPI_Comm_rank(MPI_COMM_WORLD, &rank);
    sigprocmask(SIG_SETMASK, NULL, &mask);
    snprintf(path, sizeof path, "%s/ask%d", folder, rank);
    FILE *ask = fopen(path, "re");
    snprintf(path, sizeof path, "%s/answer%d", folder, rank);
    int answer = open(path, O_WRONLY | O_CLOEXEC);
    unsetenv("LD_PRELOAD"); /* not for programs that a run starts */
    unsetenv("CHAOS_SERVE");
    while (ask != NULL && getline(&line, &size, ask) > 0) {
        int code = serve_line(line, rank, argv[0]);
        swap_state(kept, true);
        sigprocmask(SIG_SETMASK, &mask, NULL);
        dprintf(answer, "%d\n", code);
    }
    return PMPI_Finalize();
}

int __libc_start_main(main_fn *main, int argc, char **argv, void (*init)(void), void (*fini)(void),
                      void (*rtld_fini)(void), void *stack_end) {
    int (*real)(main_fn *, int, char **, void (*)(void), void (*)(void), void (*)(void), void *) =
        (int (*)(main_fn *, int, char **, void (*)(void), void (*)(void), void (*)(void),
                 void *))dlsym(RTLD_NEXT, "__libc_start_main");
    program_main = main;
    return real(serve, argc, argv, init, fini, rtld_fini, stack_end);
}

static long fail(void) {
    errno = failing->error != 0 ? failing->error : errno;
    return failing->value;
}

typedef struct answer {
    void *address;
    long value;
} answer;

__attribute__((used, visibility("hidden"))) answer fault_after(void) {
    return (answer){back, fail()};
}

/* As libc does on a failed write or read. */
static void mark_stream(const function *f, const long *saved) {
    if (f->stream > 0 && f->when == BEFORE)
        ((FILE *)saved[7 - f->stream])->_flags |= 0x20;
}

static bool is_standard(const function *f, const long *saved) {
    FILE *stream = f->stream > 0 ? (FILE *)saved[7 - f->stream] : NULL;
    return f->stream > 0 && (stream == stdout || stream == stderr || stream == NULL);
}

__attribute__((used, visibility("hidden"))) void *fault_decide(function *f, void **slot,
                                                               long *saved) {
    if (f->real == NULL) {
        bool was = inside;
        inside = true;
        f->real = dlsym(RTLD_NEXT, f->name);
        inside = was;
    }
    if (!active || inside)
        return f->real;
    inside = true;
    void *go = f->real;
    int class = class_of(f, from(*slot));
    if (class >= 0 && !is_standard(f, saved)) {
        int was = errno;
        long k = __atomic_add_fetch(&(*counts)[class], 1, __ATOMIC_SEQ_CST);
        if (log_file >= 0)
            put_stack(log_file, class_names[class], k, f->name);
        if (class == wanted_class && k == wanted_k && !*fired) {
            *fired = true;
            int note = open_named("CHAOS_FIRED", 0);
            put_stack(note, class_names[class], k, f->name);
            syscall(SYS_close, note);
            failing = f;
            mark_stream(f, saved);
            if (getenv("CHAOS_KILL") != NULL)
                raise(SIGKILL);
            if (f->when == AFTER) {
                back = *slot;
                *slot = fault_return;
            } else {
                go = (void *)fail;
            }
        }
        errno = was;
    }
    inside = false;
    return go;
}
