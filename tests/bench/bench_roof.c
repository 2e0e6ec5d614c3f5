/* The two roofs of this machine: the memory bandwidth of a copy and of c = a + s b, and the rate of square products by
 * sgemm, on all ranks and threads at once. The kinds take turns; a time is that of the processor for each thread of the
 * slowest rank, as in bench_edit.
 *
 * usage: mpirun -n 2 bench_roof */
#include "bench_print.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/comm.h"

#include <cblas.h>
#include <mpi.h>
#include <omp.h>
#include <time.h>

enum { FLOATS = 1 << 25, SIDE = 2048, ROUNDS = 11 };

static dpt_comm world;
static float *a, *b, *c;

static void copy(void) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < FLOATS; i++)
        c[i] = a[i];
}

static void triad(void) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < FLOATS; i++)
        c[i] = a[i] + 3.0F * b[i];
}

static void multiply(void) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, SIDE, SIDE, SIDE, 1.0F, a, SIDE, b, SIDE,
                0.0F, c, SIDE);
}

static double processor_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double seconds_of(void (*run)(void)) {
    MPI_Barrier(world.mpi);
    double seconds = processor_seconds();
    run();
    seconds = processor_seconds() - seconds;
    (void)dpt_comm_max_f64(&world, &seconds, 1);
    return seconds / omp_get_max_threads();
}

int main(int argc, char **argv) {
    static const struct {
        const char *name, *unit;
        void (*run)(void);
        double amount; /* of one rank */
    } kinds[] = {
        {"copy", "GB/s", copy, 8e-9 * FLOATS},
        {"triad", "GB/s", triad, 12e-9 * FLOATS},
        {"sgemm", "GF/s", multiply, 2e-9 * SIDE * SIDE * SIDE},
    };
    enum { KINDS = sizeof kinds / sizeof kinds[0] };
    static double seconds[KINDS][ROUNDS];
    MPI_Init(&argc, &argv);
    dpt_status st = dpt_comm_create(MPI_COMM_WORLD, &world);
    a = dpt_mem_zalloc(FLOATS, sizeof *a, "roofs");
    b = dpt_mem_zalloc(FLOATS, sizeof *b, "roofs");
    c = dpt_mem_zalloc(FLOATS, sizeof *c, "roofs");
    if (st != DPT_OK || a == NULL || b == NULL || c == NULL) {
        fprintf(stderr, "bench_roof: %s\n", dpt_error_message());
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
    bench_begin(&argc, argv, "bench_roof", world.rank, world.size);
    for (int64_t i = 0; i < FLOATS; i++)
        a[i] = b[i] = (float)(i % 17) * 0.1F;
    for (int i = -1; i < ROUNDS; i++) /* the first touches the memory and starts the clock */
        for (int k = 0; k < KINDS; k++)
            seconds[k][i < 0 ? 0 : i] = seconds_of(kinds[k].run);
    for (int k = 0; k < KINDS; k++)
        bench_say(
            (bench_result){.name = kinds[k].name,
                           .unit = kinds[k].unit,
                           .figure = bench_over(seconds[k], ROUNDS, world.size * kinds[k].amount),
                           .seconds = bench_of(seconds[k], ROUNDS).median});
    bench_end();
    dpt_mem_free(a);
    dpt_mem_free(b);
    dpt_mem_free(c);
    dpt_comm_destroy(&world);
    MPI_Finalize();
    return 0;
}
