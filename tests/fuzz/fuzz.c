#include "fuzz.h"

#include "deltapath/base/guard.h"
#include "deltapath/base/hash.h"
#include "deltapath/base/log.h"
#include "deltapath/comm/agree.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *__asan_default_options(void);

dpt_comm fuzz_comm;
static char folder[64];
static char *text;
static int64_t held; /* by the target itself */

/* A refused allocation is an error that the program handles. */
const char *__asan_default_options(void) {
    return "allocator_may_return_null=1";
}

static void finish(void) {
    static const char *const names[] = {"model.safetensors",
                                        "model.safetensors.index.json",
                                        "a.safetensors",
                                        "b.safetensors",
                                        "config.json",
                                        "deltapath.json",
                                        "input.h5",
                                        "units/dare-seed1@task.h5",
                                        "deltapath-manifest.json"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unlink(fuzz_path(names[i]));
    rmdir(fuzz_path("units"));
    rmdir(folder);
    MPI_Finalize();
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    MPI_Init(argc, argv);
    dpt_agree_set_world(0, 1);
    dpt_log_configure(0, DPT_LOG_QUIET);
    if (dpt_comm_create(MPI_COMM_SELF, &fuzz_comm) != DPT_OK)
        abort();
    snprintf(folder, sizeof folder, "%s/deltapath-fuzz.%d", base, (int)getpid());
    if (mkdir(folder, 0700) != 0)
        abort();
    atexit(finish);
    held = dpt_mem_in_use();
    return 0;
}

const char *fuzz_path(const char *name) {
    static char paths[4][128];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s%s%s", folder, name[0] != '\0' ? "/" : "", name);
    return path;
}

static const char *write_parts(const char *name, const void *a, size_t na, const void *b, size_t nb,
                               const void *c, size_t nc) {
    const char *path = fuzz_path(name);
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(a, 1, na, file) != na || fwrite(b, 1, nb, file) != nb ||
        fwrite(c, 1, nc, file) != nc || fclose(file) != 0)
        abort();
    return path;
}

const char *fuzz_write(const char *name, const void *bytes, size_t n) {
    return write_parts(name, bytes, n, "", 0, "", 0);
}

const char *fuzz_write_sealed(const char *name, const void *bytes, size_t n) {
    char seal[DPT_SEAL_BYTES];
    uint64_t hash[2];
    dpt_hash128_bytes(bytes, n, hash);
    dpt_seal_format(hash, (int64_t)n, seal);
    return write_parts(name, bytes, n, seal, sizeof seal, "", 0);
}

const char *fuzz_write_safetensors(const char *name, const void *header, size_t n, size_t payload) {
    static const char zeros[4096];
    unsigned char length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)n >> 8 * i);
    return write_parts(name, length, 8, header, n, zeros,
                       payload < sizeof zeros ? payload : sizeof zeros);
}

char *fuzz_text(const uint8_t *data, size_t size) {
    free(text);
    text = malloc(size + 1);
    if (text == NULL)
        abort();
    memcpy(text, data, size);
    text[size] = '\0';
    return text;
}

void fuzz_keep_memory(void) {
    dpt_guard_clear();
    held = dpt_mem_in_use();
}

void fuzz_check(dpt_status st, dpt_status allowed) {
    const char *message = dpt_error_message();
    bool good = st == DPT_OK ? message[0] == '\0' : message[0] != '\0';
    if (!good || (st != DPT_OK && st != allowed) || strchr(message, '\n') != NULL) {
        fprintf(stderr, "fuzz: status %d with the message '%s'\n", (int)st, message);
        abort();
    }
    dpt_error_clear();
}

void fuzz_finish(dpt_status st, dpt_status allowed) {
    fuzz_check(st, allowed);
    dpt_guard_clear(); /* what was opened is an input for the rest of a process */
    if (dpt_mem_in_use() != held) {
        fprintf(stderr, "fuzz: %lld bytes are left\n", (long long)(dpt_mem_in_use() - held));
        abort();
    }
    free(text);
    text = NULL;
}
