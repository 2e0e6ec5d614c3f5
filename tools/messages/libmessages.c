/* Preloaded into ranks (LD_PRELOAD): counts what they hand to MPI, by phase of the program (dpt_comm_phase, which is
 * MPI_Pcontrol) and by call: calls, and bytes that a rank gives or takes. A collective call counts once, with the bytes
 * of its own buffer; how many messages that becomes is the library's secret. At MPI_Finalize rank 0 writes the greatest
 * and the sum over ranks of each line to the file that DPT_MESSAGES names, as JSON lines. Point-to-point messages of
 * the BLACS pass through here as well. So do products in fp32 (sgemm), with operations in place of bytes. */
#define _GNU_SOURCE
#include <cblas.h>
#include <dlfcn.h>
#include <mpi.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PHASES = 16, NAME = 24 };
#define CALLS(X) X(send) X(sendrecv) X(allreduce) X(broadcast) X(allgather) X(reduce_scatter) X(barrier) X(fetch) X(sgemm)
#define CALL_ENUM(NAME_) CALL_##NAME_,
#define CALL_NAME(NAME_) #NAME_,
enum { CALLS(CALL_ENUM) CALL_COUNT };
static const char *const call_names[] = {CALLS(CALL_NAME)};

static char phases[PHASES][NAME] = {"start"};
static int phase_count = 1, phase;
static long long counts[PHASES][CALL_COUNT][2]; /* calls, bytes */

static void count(int call, int n, MPI_Datatype type) {
    int size = 0;
    PMPI_Type_size(type, &size);
    counts[phase][call][0]++;
    counts[phase][call][1] += (long long)n * size;
}

int MPI_Pcontrol(const int level, ...) {
    va_list args;
    (void)level;
    va_start(args, level);
    const char *name = va_arg(args, const char *);
    va_end(args);
    for (phase = 0; phase < phase_count; phase++)
        if (strcmp(phases[phase], name) == 0)
            return MPI_SUCCESS;
    if (phase_count == PHASES) {
        phase = 0;
        return MPI_SUCCESS;
    }
    snprintf(phases[phase_count], NAME, "%s", name);
    phase = phase_count++;
    return MPI_SUCCESS;
}

void cblas_sgemm(enum CBLAS_ORDER order, enum CBLAS_TRANSPOSE ta, enum CBLAS_TRANSPOSE tb, blasint m, blasint n,
                 blasint k, float alpha, const float *a, blasint lda, const float *b, blasint ldb, float beta, float *c,
                 blasint ldc) {
    static void (*real)(enum CBLAS_ORDER, enum CBLAS_TRANSPOSE, enum CBLAS_TRANSPOSE, blasint, blasint, blasint, float,
                        const float *, blasint, const float *, blasint, float, float *, blasint);
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "cblas_sgemm");
    counts[phase][CALL_sgemm][0]++;
    counts[phase][CALL_sgemm][1] += 2LL * m * n * k;
    real(order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

int MPI_Send(const void *b, int n, MPI_Datatype t, int to, int tag, MPI_Comm c) {
    count(CALL_send, n, t);
    return PMPI_Send(b, n, t, to, tag, c);
}
int MPI_Isend(const void *b, int n, MPI_Datatype t, int to, int tag, MPI_Comm c, MPI_Request *r) {
    count(CALL_send, n, t);
    return PMPI_Isend(b, n, t, to, tag, c, r);
}
int MPI_Sendrecv(const void *s, int sn, MPI_Datatype st, int to, int stag, void *r, int rn, MPI_Datatype rt,
                 int from, int rtag, MPI_Comm c, MPI_Status *status) {
    count(CALL_sendrecv, sn, st);
    return PMPI_Sendrecv(s, sn, st, to, stag, r, rn, rt, from, rtag, c, status);
}
int MPI_Allreduce(const void *s, void *r, int n, MPI_Datatype t, MPI_Op op, MPI_Comm c) {
    count(CALL_allreduce, n, t);
    return PMPI_Allreduce(s, r, n, t, op, c);
}
int MPI_Bcast(void *b, int n, MPI_Datatype t, int root, MPI_Comm c) {
    count(CALL_broadcast, n, t);
    return PMPI_Bcast(b, n, t, root, c);
}
int MPI_Allgatherv(const void *s, int n, MPI_Datatype st, void *r, const int rn[], const int at[], MPI_Datatype rt,
                   MPI_Comm c) {
    count(CALL_allgather, n, st);
    return PMPI_Allgatherv(s, n, st, r, rn, at, rt, c);
}
int MPI_Allgather(const void *s, int n, MPI_Datatype st, void *r, int rn, MPI_Datatype rt, MPI_Comm c) {
    count(CALL_allgather, n, st);
    return PMPI_Allgather(s, n, st, r, rn, rt, c);
}
int MPI_Reduce_scatter(const void *s, void *r, const int n[], MPI_Datatype t, MPI_Op op, MPI_Comm c) {
    int size = 0, all = 0;
    PMPI_Comm_size(c, &size);
    for (int i = 0; i < size; i++)
        all += n[i];
    count(CALL_reduce_scatter, all, t);
    return PMPI_Reduce_scatter(s, r, n, t, op, c);
}
int MPI_Barrier(MPI_Comm c) {
    count(CALL_barrier, 0, MPI_BYTE);
    return PMPI_Barrier(c);
}
int MPI_Get(void *b, int n, MPI_Datatype t, int rank, MPI_Aint at, int rn, MPI_Datatype rt, MPI_Win w) {
    count(CALL_fetch, n, t);
    return PMPI_Get(b, n, t, rank, at, rn, rt, w);
}

/* All ranks have come through the same phases, those of rank 0. */
int MPI_Finalize(void) {
    long long most[CALL_COUNT][2], sum[CALL_COUNT][2];
    const char *path = getenv("DPT_MESSAGES");
    int rank, size, shared = phase_count;
    PMPI_Comm_rank(MPI_COMM_WORLD, &rank);
    PMPI_Comm_size(MPI_COMM_WORLD, &size);
    PMPI_Bcast(&shared, 1, MPI_INT, 0, MPI_COMM_WORLD);
    FILE *file = rank == 0 && path != NULL ? fopen(path, "w") : NULL;
    for (int p = 0; p < shared && p < PHASES; p++) {
        PMPI_Reduce(counts[p], most, 2 * CALL_COUNT, MPI_LONG_LONG, MPI_MAX, 0, MPI_COMM_WORLD);
        PMPI_Reduce(counts[p], sum, 2 * CALL_COUNT, MPI_LONG_LONG, MPI_SUM, 0, MPI_COMM_WORLD);
        for (int i = 0; file != NULL && i < CALL_COUNT; i++)
            if (sum[i][0] > 0)
                fprintf(file,
                        "{\"phase\": \"%s\", \"call\": \"%s\", \"ranks\": %d, \"calls\": %lld, \"bytes\": %lld, "
                        "\"all_calls\": %lld, \"all_bytes\": %lld}\n",
                        phases[p], call_names[i], size, most[i][0], most[i][1], sum[i][0], sum[i][1]);
    }
    if (file != NULL)
        fclose(file);
    return PMPI_Finalize();
}
