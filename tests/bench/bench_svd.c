/* Truncated SVD of a matrix whose rows are shared out, in figures: the seconds of the slowest rank, the residual and
 * the errors of the values.
 *
 * usage: mpirun -n 2 bench_svd [ROWS COLS RANK flat|decaying auto|random|exact]     (2048 2048 128 decaying auto)
 * flat: normal entries; decaying: some of the directions above them, as in a delta. What stands next to the random
 * method are its large products at the rate of sgemm that the same ranks reach next to it on square ones; next to the
 * exact one, the same on one rank alone, if there are more: the ratio is how many times as fast they are. */
#include "bench_print.h"

#include "../src/linalg/svd_methods.h"

#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/rng.h"
#include "deltapath/comm/agree.h"
#include "deltapath/linalg/svd.h"

#include <cblas.h>
#include <math.h>
#include <unistd.h>

enum { TURNS = 5, PEAK_SIDE = 2048, NAP_MICROSECONDS = 10000 };

static const char *const methods[] = {"auto", "random", "exact"};

typedef struct bench {
    dpt_comm comm, alone;          /* alone: a rank by itself */
    int64_t rows, cols, rank, own; /* own: rows of this rank */
    bool flat;
    dpt_svd_method method;
    float *slab;
} bench;

static double slowest(const dpt_comm *comm, double seconds) {
    (void)dpt_comm_max_f64(comm, &seconds, 1);
    return seconds;
}

/* Floating-point operations a second in a square product on every rank at once. */
static double sgemm_rate(const dpt_comm *comm) {
    float *a = calloc((size_t)3 * PEAK_SIDE * PEAK_SIDE, sizeof *a); /* not counted */
    double seconds = 0.0;
    for (int i = 0; i < 2; i++) { /* the first touches the memory */
        MPI_Barrier(comm->mpi);
        double t = dpt_log_seconds();
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, PEAK_SIDE, PEAK_SIDE, PEAK_SIDE,
                    1.0F, a, PEAK_SIDE, a + PEAK_SIDE * PEAK_SIDE, PEAK_SIDE, 0.0F,
                    a + 2 * PEAK_SIDE * PEAK_SIDE, PEAK_SIDE);
        seconds = slowest(comm, dpt_log_seconds() - t);
    }
    free(a);
    return 2.0 * PEAK_SIDE * PEAK_SIDE * (double)PEAK_SIDE * comm->size / seconds;
}

/* Rows of the matrix from `first` on. */
static void fill(const bench *b, int64_t first, int64_t rows, float *slab) {
    int64_t n = b->cols, side = b->rows < n ? b->rows : n, parts = side / 16;
    dpt_rng_normal(dpt_rng_make(1, "bench", DPT_RNG_MASK), first * n, rows * n, slab);
    if (b->flat || parts == 0)
        return;
    float *u = dpt_mem_alloc(rows * parts, sizeof *u, "left");
    float *v = dpt_mem_alloc(n * parts, sizeof *v, "right");
    dpt_rng_normal(dpt_rng_make(1, "left", DPT_RNG_MASK), first * parts, rows * parts, u);
    dpt_rng_normal(dpt_rng_make(1, "right", DPT_RNG_MASK), 0, n * parts, v);
    for (int64_t e = 0; e < rows * parts; e++)
        u[e] /= 1.0F + 0.05F * (float)(e % parts);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)rows, (int)n, (int)parts, 1.0F, u,
                (int)parts, v, (int)parts, 1.0F, slab, (int)n);
    dpt_mem_free(u);
    dpt_mem_free(v);
}

/* Seconds of one decomposition; what it found replaces *out. */
static double decompose(const bench *b, const dpt_comm *comm, int64_t own, const float *slab,
                        dpt_svd *out) {
    dpt_svd_options options = {.method = b->method, .rank = b->rank, .name = "bench"};
    dpt_svd_destroy(out);
    MPI_Barrier(comm->mpi);
    double t = dpt_log_seconds();
    dpt_status st = dpt_svd_compute(comm, b->rows, b->cols, own, slab, &options, out);
    t = slowest(comm, dpt_log_seconds() - t);
    if (st != DPT_OK) {
        fprintf(stderr, "bench_svd: %s\n", dpt_error_message());
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
    return t;
}

/* The others sleep until the first rank has done it alone. */
static double decompose_alone(const bench *b, const float *whole) {
    double seconds = 0.0;
    int done = 0;
    if (b->comm.rank == 0) {
        dpt_svd svd = {.rank = 0};
        seconds = decompose(b, &b->alone, b->rows, whole, &svd);
        dpt_svd_destroy(&svd);
    }
    MPI_Request request;
    MPI_Ibcast(&seconds, 1, MPI_DOUBLE, 0, b->comm.mpi, &request);
    for (MPI_Test(&request, &done, MPI_STATUS_IGNORE); !done;
         MPI_Test(&request, &done, MPI_STATUS_IGNORE))
        usleep(NAP_MICROSECONDS);
    return seconds;
}

/* The large products of the random method. */
static double flops_of(const bench *b, int iterations) {
    int64_t width = dpt_svd_sketch_width(b->rows, b->cols, b->rank);
    return 2.0 * (double)b->rows * (double)b->cols * (double)width * (2.0 * iterations + 2.0);
}

static void say(const bench *b, const dpt_svd *svd, double *seconds, double *limit, double *ratio) {
    char name[128], more[160];
    bool compared = limit[0] > 0.0;
    snprintf(name, sizeof name, "%d x %d at rank %d, %s, %s", (int)b->rows, (int)b->cols,
             (int)b->rank, b->flat ? "flat" : "decaying", methods[b->method]);
    bench_say((bench_result){.name = name,
                             .unit = "s",
                             .figure = bench_of(seconds, TURNS),
                             .limit = compared ? bench_of(limit, TURNS).median : 0.0,
                             .ratio = compared ? bench_of(ratio, TURNS).median : 0.0});
    snprintf(more, sizeof more, "%s: residual", name);
    double residual = svd->residual / svd->norm;
    bench_say(
        (bench_result){.name = more, .unit = "|A|", .figure = {residual, residual, residual}});
    double error = 0.0;
    for (int64_t i = 0; i < svd->rank; i++)
        error = fmax(error, svd->s_error[i] / svd->s[0]);
    snprintf(more, sizeof more, "%s: largest error of a value", name);
    bench_say((bench_result){.name = more, .unit = "s_1", .figure = {error, error, error}});
    if (b->comm.rank == 0)
        printf("%34s %s, %d iterations; peak memory %.0f MB, dpt_svd_bytes says %.0f MB\n", "",
               methods[svd->used], svd->iterations, 1e-6 * (double)dpt_mem_peak(),
               1e-6 * (double)dpt_svd_bytes(b->rows, b->cols, b->rank, b->method, b->comm.size));
}

static void run(bench *b) {
    double seconds[TURNS], limit[TURNS] = {0.0}, ratio[TURNS] = {0.0};
    bool against_one = b->method == DPT_SVD_EXACT && b->comm.size > 1;
    dpt_svd svd = {.rank = 0};
    float *whole = NULL;
    if (against_one && b->comm.rank == 0) {
        whole = malloc((size_t)(b->rows * b->cols) * sizeof *whole);
        fill(b, 0, b->rows, whole);
    }
    for (int i = 0; i < TURNS; i++) {
        double rate = against_one ? 0.0 : sgemm_rate(&b->comm);
        seconds[i] = decompose(b, &b->comm, b->own, b->slab, &svd);
        if (against_one) {
            limit[i] = decompose_alone(b, whole);
            ratio[i] = limit[i] / seconds[i];
        } else if (svd.used == DPT_SVD_RANDOM) {
            limit[i] = flops_of(b, svd.iterations) / rate;
            ratio[i] = seconds[i] / limit[i];
        }
    }
    say(b, &svd, seconds, limit, ratio);
    free(whole);
    dpt_svd_destroy(&svd);
}

/* @return false when the words are wrong. */
static bool parse(bench *b, int argc, char **argv) {
    if (argc == 1)
        return true;
    if (argc != 6)
        return false;
    int method = 0;
    while (method < 3 && strcmp(methods[method], argv[5]) != 0)
        method++;
    b->rows = atoll(argv[1]);
    b->cols = atoll(argv[2]);
    b->rank = atoll(argv[3]);
    b->flat = strcmp(argv[4], "flat") == 0;
    b->method = (dpt_svd_method)method;
    return b->rows > 0 && b->cols > 0 && b->rank > 0 && method < 3;
}

int main(int argc, char **argv) {
    bench b = {.rows = 2048, .cols = 2048, .rank = 128, .method = DPT_SVD_AUTO};
    MPI_Init(&argc, &argv);
    (void)dpt_comm_create(MPI_COMM_WORLD, &b.comm);
    (void)dpt_comm_create(MPI_COMM_SELF, &b.alone);
    dpt_agree_set_world(b.comm.rank, b.comm.size);
    bench_begin(&argc, argv, "bench_svd", b.comm.rank, b.comm.size);
    if (!parse(&b, argc, argv)) {
        fprintf(stderr, "bench_svd: give ROWS COLS RANK flat|decaying auto|random|exact\n");
        MPI_Abort(MPI_COMM_WORLD, DPT_ERR_USAGE);
    }
    int64_t first = b.rows * b.comm.rank / b.comm.size;
    b.own = b.rows * (b.comm.rank + 1) / b.comm.size - first;
    b.slab = dpt_mem_alloc(b.own * b.cols, sizeof *b.slab, "matrix");
    fill(&b, first, b.own, b.slab);
    run(&b);
    dpt_mem_free(b.slab);
    bench_end();
    dpt_comm_destroy(&b.alone);
    dpt_comm_destroy(&b.comm);
    MPI_Finalize();
    return 0;
}
