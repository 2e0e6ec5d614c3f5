/* Truncated SVD of a square matrix against its own GEMM time and against P?GESVD: prints ratios.
 *
 * usage: mpirun -n 2 bench_svd [-n SIDE] [-k RANK] [-r]      -r: without the reference
 * GEMM time: the floating-point operations of the sgemm calls that the random method makes, at the
 * sgemm peak that the same ranks reach at the same time on square products. */
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/rng.h"
#include "deltapath/comm/agree.h"
#include "deltapath/linalg/svd.h"

#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    dpt_comm comm;
    int64_t side;
    int64_t rank;
    int64_t rows;
    float *slab;
} bench;

static double slowest(const dpt_comm *comm, double seconds) {
    (void)dpt_comm_max_f64(comm, &seconds, 1);
    return seconds;
}

/* Best of three square products on every rank at once. */
static double sgemm_peak(const dpt_comm *comm) {
    enum { SIDE = 1024 };
    float *a = dpt_mem_zalloc(3 * SIDE * SIDE, sizeof *a, "peak");
    double best = 1e30;
    for (int i = 0; i < 4; i++) {
        MPI_Barrier(comm->mpi);
        double t = dpt_log_seconds();
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, SIDE, SIDE, SIDE, 1.0f, a, SIDE,
                    a + SIDE * SIDE, SIDE, 0.0f, a + 2 * SIDE * SIDE, SIDE);
        t = slowest(comm, dpt_log_seconds() - t);
        best = t < best ? t : best;
    }
    dpt_mem_free(a);
    return 2.0 * SIDE * SIDE * SIDE * comm->size / best;
}

/* Noise plus a decaying part: a spectrum like that of a delta, with a long slow tail. */
static void fill(bench *b, double noise) {
    int64_t n = b->side, first = n * b->comm.rank / b->comm.size;
    int64_t parts = n / 16;
    float *u = dpt_mem_alloc(b->rows * parts, sizeof *u, "left");
    float *v = dpt_mem_alloc(n * parts, sizeof *v, "right");
    dpt_rng_normal(dpt_rng_make(1, "bench", DPT_RNG_MASK), first * n, b->rows * n, b->slab);
    dpt_rng_normal(dpt_rng_make(1, "left", DPT_RNG_MASK), first * parts, b->rows * parts, u);
    dpt_rng_normal(dpt_rng_make(1, "right", DPT_RNG_MASK), 0, n * parts, v);
    for (int64_t e = 0; e < b->rows * parts; e++)
        u[e] *= (float)(1e-3 / (1.0 + 0.05 * (double)(e % parts)));
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)b->rows, (int)n, (int)parts, 1.0f, u,
                (int)parts, v, (int)parts, (float)(1e-3 * noise), b->slab, (int)n);
    dpt_mem_free(u);
    dpt_mem_free(v);
}

static double time_method(bench *b, dpt_svd_method method, int repeats, dpt_svd *out) {
    double best = 1e30;
    dpt_svd_options options = {.method = method, .rank = b->rank, .name = "bench"};
    for (int i = 0; i < repeats; i++) {
        dpt_svd_destroy(out);
        MPI_Barrier(b->comm.mpi);
        double t = dpt_log_seconds();
        dpt_status st =
            dpt_svd_compute(&b->comm, b->side, b->side, b->rows, b->slab, &options, out);
        t = slowest(&b->comm, dpt_log_seconds() - t);
        if (st != DPT_OK) {
            fprintf(stderr, "bench_svd: %s\n", dpt_error_message());
            MPI_Abort(b->comm.mpi, 1);
        }
        best = t < best ? t : best;
    }
    return best;
}

/* The large products of the random method alone, with nothing between them. */
static double replay(bench *b, int iterations, int64_t width) {
    int m = (int)b->rows, n = (int)b->side, l = (int)width;
    float *v = dpt_mem_zalloc(b->side * width, sizeof *v, "basis");
    float *y = dpt_mem_zalloc(b->rows * width, sizeof *y, "image");
    MPI_Barrier(b->comm.mpi);
    double t = dpt_log_seconds();
    for (int i = 0; i < 2 * iterations + 3; i++) {
        if (i % 2 == 0)
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, l, n, 1.0f, b->slab, n, v, l,
                        0.0f, y, l);
        else
            cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, n, l, m, 1.0f, b->slab, n, y, l,
                        0.0f, v, l);
    }
    t = slowest(&b->comm, dpt_log_seconds() - t);
    dpt_mem_free(y);
    dpt_mem_free(v);
    return t;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Medians of pairs measured in turn: other work on the machine then hits both alike. */
static void compare_with_products(bench *b) {
    enum { PAIRS = 7 };
    double over_peak[PAIRS], over_replay[PAIRS];
    dpt_svd svd = {.rank = 0};
    double n = (double)b->side;
    int64_t width = 2 * b->rank > b->rank + 64 ? 2 * b->rank : b->rank + 64; /* of the sketch */
    width = width < b->side ? width : b->side;
    for (int i = 0; i < PAIRS; i++) {
        double peak = sgemm_peak(&b->comm);
        double seconds = time_method(b, DPT_SVD_RANDOM, 1, &svd);
        double products = replay(b, svd.iterations, width);
        double flops = 2.0 * n * n * (double)width * (2.0 * svd.iterations + 3.0);
        over_peak[i] = seconds / (flops / peak);
        over_replay[i] = seconds / products;
    }
    qsort(over_peak, PAIRS, sizeof *over_peak, by_value);
    qsort(over_replay, PAIRS, sizeof *over_replay, by_value);
    if (b->comm.rank == 0 && svd.used == DPT_SVD_RANDOM)
        printf("random: %d iterations, %d products; time / GEMM time at sgemm peak %.2f "
               "(%.2f to %.2f), / the same products alone %.2f (%.2f to %.2f)\n",
               svd.iterations, 2 * svd.iterations + 3, over_peak[PAIRS / 2], over_peak[0],
               over_peak[PAIRS - 1], over_replay[PAIRS / 2], over_replay[0],
               over_replay[PAIRS - 1]);
    dpt_svd_destroy(&svd);
}

static void report(const bench *b, const char *label, double seconds, const dpt_svd *svd,
                   const dpt_svd *exact) {
    static const char *const names[] = {"auto", "random", "exact", "reference"};
    double worst = 0.0;
    for (int64_t i = 0; i < svd->rank; i++)
        worst = fmax(worst, fabs(svd->s[i] - exact->s[i]) / exact->s[0]);
    if (b->comm.rank == 0)
        printf("%-10s %-9s %8.3f s  residual %.6f |A| (best %.6f)  s off by %.1e s_1\n", label,
               names[svd->used], seconds, svd->residual / svd->norm, exact->residual / exact->norm,
               worst);
}

static void run(bench *b, const char *title, double noise, int with_reference) {
    dpt_svd exact = {.rank = 0}, random = {.rank = 0}, other = {.rank = 0};
    fill(b, noise);
    if (b->comm.rank == 0)
        printf("-- %s, %d x %d at rank %d, %d ranks\n", title, (int)b->side, (int)b->side,
               (int)b->rank, b->comm.size);
    double exact_s = time_method(b, DPT_SVD_EXACT, 1, &exact);
    double random_s = time_method(b, DPT_SVD_RANDOM, 3, &random);
    report(b, "exact", exact_s, &exact, &exact);
    report(b, "random", random_s, &random, &exact);
    compare_with_products(b);
    double auto_s = time_method(b, DPT_SVD_AUTO, 1, &other);
    report(b, "auto", auto_s, &other, &exact);
    int64_t peak = dpt_mem_peak();
    if (b->comm.rank == 0)
        printf("peak memory %.0f MB, of this slab %.0f MB; dpt_svd_bytes says %.0f MB\n",
               (double)peak * 1e-6, 4e-6 * (double)(b->rows * b->side),
               1e-6 * (double)dpt_svd_bytes(b->side, b->side, b->rank, DPT_SVD_AUTO, b->comm.size));
    if (with_reference) {
        double reference_s = time_method(b, DPT_SVD_REFERENCE, 1, &other);
        report(b, "reference", reference_s, &other, &exact);
        if (b->comm.rank == 0)
            printf("reference / random %.0f, reference / exact %.0f\n", reference_s / random_s,
                   reference_s / exact_s);
    }
    dpt_svd_destroy(&other);
    dpt_svd_destroy(&random);
    dpt_svd_destroy(&exact);
}

int main(int argc, char **argv) {
    bench b = {.side = 2048, .rank = 0};
    int with_reference = 1, option;
    MPI_Init(&argc, &argv);
    while ((option = getopt(argc, argv, "n:k:r")) != -1) {
        if (option == 'n')
            b.side = atoll(optarg);
        else if (option == 'k')
            b.rank = atoll(optarg);
        else
            with_reference = 0;
    }
    if (b.rank == 0)
        b.rank = b.side / 16;
    (void)dpt_comm_create(MPI_COMM_WORLD, &b.comm);
    dpt_agree_set_world(b.comm.rank, b.comm.size);
    b.rows = b.side * (b.comm.rank + 1) / b.comm.size - b.side * b.comm.rank / b.comm.size;
    b.slab = dpt_mem_alloc(b.rows * b.side, sizeof *b.slab, "matrix");
    run(&b, "decaying with noise", 1.0, 0);
    run(&b, "pure noise", 1e3, with_reference);
    dpt_mem_free(b.slab);
    dpt_comm_destroy(&b.comm);
    MPI_Finalize();
    return 0;
}
