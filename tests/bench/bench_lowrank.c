/* Truncated SVDs of matrices in files, one a line of standard input, for tools/peers. A line is "FILE ROWS COLS RANK METHOD"
 * (fp32 by rows; auto, random or exact); a line of output the seconds of the slowest rank, the residual over the norm of the
 * matrix, the method that was taken and its iterations. The rows are shared out; between two lines the ranks sleep.
 *
 * Usage: mpirun -n 2 bench_lowrank */
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/linalg/svd.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NAP_MICROSECONDS = 10000, LINE_BYTES = 1024 };

static const char *const methods[] = {"auto", "random", "exact"};

static dpt_comm world;

typedef struct asked {
    char path[LINE_BYTES];
    long long rows, cols, rank;
    char method[16];
} asked;

/* What rank 0 reads, without keeping the cores of the others busy while it waits. @return false at the end. */
static bool ask(char line[LINE_BYTES]) {
    MPI_Request request;
    int done = 0;
    line[0] = '\0';
    if (world.rank == 0 && fgets(line, LINE_BYTES, stdin) == NULL)
        line[0] = '\0';
    MPI_Ibcast(line, LINE_BYTES, MPI_CHAR, 0, world.mpi, &request);
    for (MPI_Test(&request, &done, MPI_STATUS_IGNORE); !done;
         MPI_Test(&request, &done, MPI_STATUS_IGNORE))
        usleep(NAP_MICROSECONDS);
    return line[0] != '\0';
}

/* This rank's rows. */
static dpt_status read_slab(const asked *a, int64_t first, int64_t rows, float *slab) {
    FILE *file = fopen(a->path, "rb");
    size_t n = (size_t)(rows * a->cols);
    bool good = file != NULL && fseeko(file, (off_t)(first * a->cols * 4), SEEK_SET) == 0 &&
                fread(slab, sizeof *slab, n, file) == n;
    if (file != NULL)
        fclose(file);
    return good ? DPT_OK
                : dpt_error(DPT_ERR_INPUT, "%s does not hold %lld x %lld numbers in fp32", a->path,
                            a->rows, a->cols);
}

static dpt_status decompose(const asked *a, int method) {
    int64_t first = a->rows * world.rank / world.size;
    int64_t rows = a->rows * (world.rank + 1) / world.size - first;
    float *slab = dpt_mem_alloc(rows * a->cols, sizeof *slab, "matrix");
    dpt_svd svd = {.rank = 0};
    dpt_svd_options options = {
        .method = (dpt_svd_method)method, .rank = a->rank, .name = "bench_lowrank"};
    dpt_status st =
        dpt_agree(&world, slab == NULL ? DPT_ERR_OUTPUT : read_slab(a, first, rows, slab));
    MPI_Barrier(world.mpi);
    double seconds = MPI_Wtime();
    if (st == DPT_OK)
        st = dpt_svd_compute(&world, a->rows, a->cols, rows, slab, &options, &svd);
    seconds = MPI_Wtime() - seconds;
    (void)dpt_comm_max_f64(&world, &seconds, 1);
    if (st == DPT_OK && world.rank == 0)
        printf("%.6f %.9f %s %d\n", seconds, svd.residual / svd.norm, methods[svd.used],
               svd.iterations);
    fflush(stdout);
    dpt_svd_destroy(&svd);
    dpt_mem_free(slab);
    return st;
}

static dpt_status run(const char *line) {
    asked a;
    if (sscanf(line, "%1023s %lld %lld %lld %15s", a.path, &a.rows, &a.cols, &a.rank, a.method) !=
        5)
        return dpt_error(DPT_ERR_USAGE, "give FILE ROWS COLS RANK METHOD");
    for (int m = 0; m < (int)(sizeof methods / sizeof methods[0]); m++)
        if (strcmp(methods[m], a.method) == 0)
            return decompose(&a, m);
    return dpt_error(DPT_ERR_USAGE, "%s: give auto, random or exact", a.method);
}

int main(int argc, char **argv) {
    char line[LINE_BYTES];
    MPI_Init(&argc, &argv);
    dpt_status st = dpt_comm_create(MPI_COMM_WORLD, &world);
    dpt_agree_set_world(world.rank, world.size);
    while (st == DPT_OK && ask(line))
        st = run(line);
    if (st != DPT_OK && world.rank == 0)
        fprintf(stderr, "bench_lowrank: %s\n", dpt_error_message());
    dpt_comm_destroy(&world);
    MPI_Finalize();
    return (int)st;
}
