/* Speed of the local kernels, as ratios within one run: attention against sgemm, elementwise
 * kernels against the memory bandwidth of a copy. Usage: bench_nn [--json FILE] [attention], that alone, at 64 to 512
 * tokens; bench_nn elementwise; bench_nn sgemm. */
#include <cblas.h>
#include <omp.h>

#include "deltapath/nn/attention.h"
#include "deltapath/nn/cross_entropy.h"
#include "deltapath/nn/linear.h"
#include "deltapath/nn/mlp.h"
#include "deltapath/nn/norm.h"
#include "deltapath/nn/rope.h"

#include "bench_print.h"

enum { ELEMENTS = 1 << 24, ROW = 4096, ROWS = ELEMENTS / ROW, VOCAB = 32768 };

typedef void (*bench_fn)(void);

static float *a, *b, *c, *d, *scratch;
static dpt_attention_shape shape;
static int32_t kv_of[8];
static int64_t gemm_size;

static float *filled(size_t n) {
    float *x = malloc(n * sizeof *x);
    if (!x)
        exit(4);
    uint32_t state = 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = (float)(state >> 8) * 0x1p-23f - 1.0f;
    }
    return x;
}

enum { CALLS_MAX = 1000 };
static double seconds[CALLS_MAX]; /* of the calls of the last run_often */

/** Calls for at least 0.3 s, after one that warms up. @return how many calls. */
static int run_often(bench_fn run) {
    int calls = 0;
    run();
    double begin = omp_get_wtime();
    while (calls < CALLS_MAX && (calls < 5 || omp_get_wtime() - begin < 0.3)) {
        double t = omp_get_wtime();
        run();
        seconds[calls++] = omp_get_wtime() - t;
    }
    return calls;
}

/** Rate of a kernel that does `amount` units of work a call, next to a limit; 0: to none. */
static double measure(const char *name, const char *unit, bench_fn run, double amount,
                      double limit) {
    int calls = run_often(run);
    bench_figure rate = bench_over(seconds, calls, amount);
    bench_say((bench_result){.name = name,
                             .unit = unit,
                             .figure = rate,
                             .limit = limit,
                             .ratio = limit > 0.0 ? rate.median / limit : 0.0,
                             .seconds = seconds[calls / 2]});
    return rate.median;
}

static void run_sgemm(void) {
    blasint n = (blasint)gemm_size;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, n, n, 1.0f, a, n, b, n, 0.0f, c, n);
}

static void run_attention_forward(void) {
    dpt_nn_attention_forward(&shape, a, b, b + shape.ldk / 2, c, d, scratch);
}

static void run_attention_backward(void) {
    int64_t whole = shape.n * shape.ldq;
    dpt_nn_attention_backward(&shape, a, b, b + shape.ldk / 2, c, d, a + whole, d + ELEMENTS / 2,
                              d + ELEMENTS / 2 + whole, d + ELEMENTS / 2 + whole + shape.ldk / 2,
                              scratch);
}

static void run_copy(void) {
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < ROWS; t++)
        memcpy(c + t * ROW, a + t * ROW, ROW * sizeof *a);
}

static void run_swiglu_forward(void) {
    dpt_nn_gated_forward(DPT_ACT_SILU, 0.0f, ROWS, ROW, a, ROW, b, ROW, c, ROW);
}

static void run_swiglu_backward(void) {
    dpt_nn_gated_backward(DPT_ACT_SILU, 0.0f, ROWS, ROW, c, ROW, a, ROW, b, ROW, d, c);
}

static void run_act(dpt_act_kind kind) {
    dpt_nn_act_forward(kind, ELEMENTS, a, c);
}

static void run_silu(void) {
    run_act(DPT_ACT_SILU);
}

static void run_gelu(void) {
    run_act(DPT_ACT_GELU);
}

static void run_gelu_tanh(void) {
    run_act(DPT_ACT_GELU_TANH);
}

static void run_rmsnorm_forward(void) {
    dpt_nn_rmsnorm_forward(ROWS, ROW, a, ROW, b, 1e-5f, c, ROW, d);
}

static void run_rmsnorm_backward(void) {
    dpt_nn_rmsnorm_backward_input(ROWS, ROW, c, ROW, a, ROW, b, scratch, false, d, ROW);
}

static void run_rmsnorm_terms(void) {
    dpt_nn_rmsnorm_terms(ROWS, ROW, c, ROW, a, ROW, scratch, b, (double *)d);
}

static void run_rope(void) {
    const int64_t offsets[] = {0, ROWS};
    dpt_nn_rope_forward(1, offsets, ROW / 128, 128, 64, a, b, c, ROW);
}

static void run_ce_sums(void) {
    static int32_t targets[ELEMENTS / VOCAB];
    double *sums = (double *)(void *)d;
    dpt_nn_ce_sums(ELEMENTS / VOCAB, VOCAB, 0, a, VOCAB, targets, b, sums, sums + ELEMENTS / VOCAB);
}

static void run_ce_backward(void) {
    static int32_t targets[ELEMENTS / VOCAB];
    static double sums[ELEMENTS / VOCAB];
    for (int64_t i = 0; i < ELEMENTS / VOCAB; i++)
        sums[i] = 1e6;
    dpt_nn_ce_backward(ELEMENTS / VOCAB, VOCAB, 0, 0.0f, c, VOCAB, targets, b, sums, scratch);
}

static void run_terms(void) {
    dpt_nn_linear_terms(gemm_size, gemm_size, gemm_size, a, gemm_size, b, gemm_size, c, gemm_size,
                        scratch, (double *)(void *)d);
}

/** Attention at one length: useful operations are those of the unmasked half. */
static void bench_attention(int64_t n, int64_t hkv, int64_t hd, double gemm_rate) {
    shape = (dpt_attention_shape){.n = n, .hq = 8, .hkv = hkv, .hd = hd, .kv_of = kv_of};
    for (int64_t i = 0; i < shape.hq; i++)
        kv_of[i] = (int32_t)(i * hkv / shape.hq);
    shape.ldq = shape.ldo = shape.hq * hd;
    shape.ldk = shape.ldv = 2 * shape.hkv * hd;
    shape.scale = 0.1f;
    shape.causal = true;
    shape.threads = omp_get_max_threads();
    double pairs = 1e-9 * (double)shape.hq * (double)n * (double)(n + 1) / 2.0;
    char name[64];
    const char *text = "attn %s n=%lld kv=%lld hd=%lld";
    snprintf(name, sizeof name, text, "fwd", (long long)n, (long long)hkv, (long long)hd);
    measure(name, "GF/s", run_attention_forward, 4.0 * pairs * (double)hd, gemm_rate);
    snprintf(name, sizeof name, text, "bwd", (long long)n, (long long)hkv, (long long)hd);
    measure(name, "GF/s", run_attention_backward, 10.0 * pairs * (double)hd, gemm_rate);
}

static void bench_elementwise(void) {
    const struct {
        const char *name;
        bench_fn run;
        double streams; /* arrays of ELEMENTS read or written once */
    } elementwise[] = {
        {"swiglu forward", run_swiglu_forward, 3},
        {"swiglu backward", run_swiglu_backward, 5},
        {"silu", run_silu, 2},
        {"gelu", run_gelu, 2},
        {"gelu_tanh", run_gelu_tanh, 2},
        {"rmsnorm forward", run_rmsnorm_forward, 2},
        {"rmsnorm backward", run_rmsnorm_backward, 3},
        {"rmsnorm terms", run_rmsnorm_terms, 2},
        {"rope", run_rope, 2},
        {"cross-entropy sums", run_ce_sums, 1},
        {"cross-entropy backward", run_ce_backward, 2},
    };
    double bytes = 1e-9 * (double)ELEMENTS * sizeof(float);
    double copy_rate = measure("copy", "GB/s", run_copy, 2.0 * bytes, 0.0);
    for (size_t i = 0; i < sizeof elementwise / sizeof elementwise[0]; i++)
        measure(elementwise[i].name, "GB/s", elementwise[i].run, elementwise[i].streams * bytes,
                copy_rate);
}

int main(int argc, char **argv) {
    bench_begin(&argc, argv, "bench_nn", 0, 1);
    const char *part = argc > 1 ? argv[1] : "";
    bool alone = strcmp(part, "attention") == 0;
    a = filled(ELEMENTS);
    b = filled(ELEMENTS);
    c = filled(ELEMENTS);
    d = filled(ELEMENTS);
    shape.threads = omp_get_max_threads();
    shape.hd = 256;
    size_t need = dpt_nn_attention_scratch(&shape);
    scratch = filled(need > (1 << 20) ? need : 1 << 20);

    printf("nn kernels, %d thread(s)\n", omp_get_max_threads());
    if (strcmp(part, "elementwise") == 0) {
        bench_elementwise();
        bench_end();
        return 0;
    }
    gemm_size = 2048;
    double cube = 2e-9 * (double)gemm_size * (double)gemm_size * (double)gemm_size;
    double gemm_rate = measure("sgemm 2048", "GF/s", run_sgemm, cube, 0.0);
    measure("linear terms 2048", "GF/s", run_terms, cube, gemm_rate);
    if (strcmp(part, "sgemm") == 0)
        return 0;
    const int64_t lengths[] = {64, 128, 256, 512, 1024, 2048};
    const int64_t heads[][2] = {{2, 64}, {2, 80}, {2, 128}, {2, 256}, {8, 64}};
    size_t count = sizeof lengths / sizeof lengths[0] - (alone ? 2 : 0);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < sizeof heads / sizeof heads[0]; j++)
            bench_attention(lengths[i], heads[j][0], heads[j][1], gemm_rate);
    if (!alone)
        bench_elementwise();
    bench_end();
    free(a);
    free(b);
    free(c);
    free(d);
    free(scratch);
    return 0;
}
