/* Conversions, sums and selection against a STREAM-like copy in the same run, on one thread. The
 * working set exceeds the caches. Rates count the bytes read and written.
 *
 * Usage: bench_tensor [--json FILE] [ELEMENTS]   (67108864)
 */
#include <mpi.h>

#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/rng.h"
#include "deltapath/linalg/quantile.h"
#include "deltapath/linalg/reduce.h"
#include "deltapath/tensor/dtype.h"
#include "deltapath/tensor/field.h"

#include "bench_print.h"

enum { REPEATS = 7, PERIOD = 1 << 20 };

static int64_t n;
static float *values;
static float *other;
static uint16_t *codes;
static double sink;
static double copy_rate; /* [GB/s] */

static void copy(void) {
    for (int64_t i = 0; i < n; i++)
        other[i] = values[i];
}

static void from_bf16(void) {
    dpt_dtype_to_f32(DPT_BF16, codes, other, n);
}

static void to_bf16(void) {
    dpt_dtype_from_f32(DPT_BF16, values, codes, n);
}

static void from_f16(void) {
    dpt_dtype_to_f32(DPT_F16, codes, other, n);
}

static void to_f16(void) {
    dpt_dtype_from_f32(DPT_F16, values, codes, n);
}

static void find_bf16(void) {
    sink += (double)dpt_dtype_find_nonfinite(DPT_BF16, codes, n);
}

static void sum(void) {
    sink += dpt_reduce_abs(values, n);
}

static void dot(void) {
    sink += dpt_reduce_dot(values, other, n);
}

static void random_words(void) {
    dpt_rng_words(dpt_rng_make(1, "bench", DPT_RNG_MASK), 0, n, (uint32_t *)(void *)other);
}

static void report(const char *what, void (*run)(void), int bytes) {
    double seconds[REPEATS];
    run();
    for (int r = 0; r < REPEATS; r++) {
        double start = dpt_log_seconds();
        run();
        seconds[r] = dpt_log_seconds() - start;
    }
    bench_figure rate = bench_over(seconds, REPEATS, 1e-9 * (double)n * bytes);
    bench_say((bench_result){.name = what,
                             .unit = "GB/s",
                             .figure = rate,
                             .limit = copy_rate,
                             .ratio = copy_rate > 0.0 ? rate.median / copy_rate : 0.0,
                             .seconds = seconds[REPEATS / 2]});
    if (copy_rate == 0)
        copy_rate = rate.median;
}

/* Of something that was done REPEATS times on all ranks. */
static void report_collective(const char *what, const char *unit, double *seconds, double amount) {
    bench_figure rate = bench_over(seconds, REPEATS, amount);
    bench_say((bench_result){
        .name = what, .unit = unit, .figure = rate, .seconds = seconds[REPEATS / 2]});
}

static dpt_status give(void *ctx, dpt_range range, float *out) {
    (void)ctx;
    for (int64_t i = 0; i < range.n; i++)
        out[i] = values[range.ig + i];
    return DPT_OK;
}

/* Selection of half of the entries, and a fetch of every second half row, over the ranks. */
static dpt_status run_collective(const dpt_comm *comm) {
    static const int group_of[1] = {0};
    int64_t shape[2] = {n / 4096, 4096};
    dpt_catalog catalog;
    dpt_shard shard = {.ranks = 0};
    dpt_cut cut;
    dpt_catalog_init(&catalog);
    dpt_status st = dpt_catalog_add(&catalog, "matrix", DPT_F32, 2, shape);
    if (st == DPT_OK)
        st = dpt_shard_create(&catalog, comm->size, &shard);
    dpt_quantile_target target = {.group = 0, .count = shape[0] * shape[1] / 2};
    const dpt_quantile_source source = {.values = give};
    double seconds[REPEATS];
    for (int r = 0; st == DPT_OK && r < REPEATS; r++) {
        double start = dpt_log_seconds();
        st = dpt_quantile_select(comm, &shard, NULL, group_of, 1, &target, &source, &cut);
        seconds[r] = dpt_log_seconds() - start;
    }
    if (st == DPT_OK)
        report_collective("exact median of |x|", "G/s", seconds, 1e-9 * (double)n);
    dpt_field *field = NULL;
    if (st == DPT_OK)
        st = dpt_field_create(comm, &catalog, &shard, &field);
    if (st == DPT_OK) {
        dpt_source source = dpt_field_source(field);
        for (int64_t c = shard.rank_first[comm->rank]; c < shard.rank_first[comm->rank + 1]; c++)
            memset(dpt_field_cell(field, c), 1, (size_t)(dpt_shard_cell(&shard, c).n * 4));
        int64_t begin;
        int64_t end;
        dpt_shard_split(4096, comm->size, comm->rank, &begin, &end);
        dpt_block want = {0, begin, shape[0], end - begin, 4096};
        void *outs[] = {other};
        st = source.fetch(source.ctx, 1, &want, outs); /* touches the memory */
        for (int r = 0; st == DPT_OK && r < REPEATS; r++) {
            double start = dpt_log_seconds();
            st = source.fetch(source.ctx, 1, &want, outs);
            seconds[r] = dpt_log_seconds() - start;
        }
        if (st == DPT_OK)
            report_collective("rows to columns", "GB/s", seconds, 4e-9 * (double)n);
        dpt_field_destroy(field);
    }
    dpt_shard_destroy(&shard);
    dpt_catalog_destroy(&catalog);
    return st;
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    dpt_comm comm;
    dpt_status st = dpt_comm_create(MPI_COMM_WORLD, &comm);
    if (st == DPT_OK)
        bench_begin(&argc, argv, "bench_tensor", comm.rank, comm.size);
    n = argc > 1 ? strtoll(argv[1], NULL, 10) / 4096 * 4096 : INT64_C(1) << 26;
    values = dpt_mem_alloc(n, sizeof *values, "values");
    other = dpt_mem_alloc(n, sizeof *other, "values");
    codes = dpt_mem_alloc(n, sizeof *codes, "codes");
    if (st != DPT_OK || n <= 0 || values == NULL || other == NULL || codes == NULL) {
        fprintf(stderr, "bench_tensor: %s\n", dpt_error_message());
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
    int64_t drawn = n < PERIOD ? n : PERIOD;
    dpt_rng_normal(dpt_rng_make(1, "values", DPT_RNG_MASK), 0, drawn, values);
    for (int64_t i = drawn; i < n; i++)
        values[i] = values[i % PERIOD] * (float)(1 + i / PERIOD);
    if (comm.size == 1) {
        report("copy f32", copy, 8);
        report("f32 -> bf16", to_bf16, 6);
        report("bf16 -> f32", from_bf16, 6);
        report("NaN search in bf16", find_bf16, 2);
        report("f32 -> f16", to_f16, 6);
        report("f16 -> f32", from_f16, 6);
        report("sum in double", sum, 4);
        report("dot in double", dot, 8);
        report("Philox words", random_words, 4);
    }
    st = run_collective(&comm);
    if (st != DPT_OK)
        fprintf(stderr, "bench_tensor: %s\n", dpt_error_message());
    bench_end();
    dpt_mem_free(codes);
    dpt_mem_free(other);
    dpt_mem_free(values);
    dpt_comm_destroy(&comm);
    MPI_Finalize();
    return st != DPT_OK || sink == 0.5;
}
