#include "deltapath/nn/linear.h"

#include <string.h>

#include "gemm.h"

enum {
    TERMS_TOKENS = 1024, /* TERMS_TOKENS x TERMS_OUTPUTS floats stay near the cache */
    TERMS_OUTPUTS = 512,
    COLUMNS = 256, /* columns summed at a time in double */
    PARALLEL_MIN = 1 << 15
};

static int64_t linear_min64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

void dpt_nn_linear_forward(int64_t T, int64_t N, int64_t K, const float *x, int64_t ldx,
                           const float *w, int64_t ldw, const float *b, float *y, int64_t ldy) {
    /* x (T,K), w (N,K), b (N), y (T,N) */
    if (b) {
#pragma omp parallel for schedule(static) if (T * N >= PARALLEL_MIN)
        for (int64_t t = 0; t < T; t++)
            memcpy(y + t * ldy, b, (size_t)N * sizeof *y);
    }
    gemm(false, true, T, N, K, 1.0f, x, ldx, w, ldw, b ? 1.0f : 0.0f, y, ldy);
}

void dpt_nn_linear_backward_input(int64_t T, int64_t N, int64_t K, const float *dy, int64_t lddy,
                                  const float *w, int64_t ldw, bool accumulate, float *dx,
                                  int64_t lddx) {
    /* dy (T,N), w (N,K), dx (T,K); forward: y = x w^T + b */
    gemm(false, false, T, K, N, 1.0f, dy, lddy, w, ldw, accumulate ? 1.0f : 0.0f, dx, lddx);
}

void dpt_nn_linear_backward_weight(int64_t T, int64_t N, int64_t K, const float *dy, int64_t lddy,
                                   const float *x, int64_t ldx, bool accumulate, float *dw,
                                   int64_t lddw) {
    /* dy (T,N), x (T,K), dw (N,K); forward: y = x w^T + b */
    gemm(true, false, N, K, T, 1.0f, dy, lddy, x, ldx, accumulate ? 1.0f : 0.0f, dw, lddw);
}

void dpt_nn_linear_backward_bias(int64_t T, int64_t N, const float *dy, int64_t lddy,
                                 bool accumulate, float *db) {
    /* dy (T,N), db (N); forward: y = x w^T + b */
#pragma omp parallel for schedule(static) if (T * N >= PARALLEL_MIN)
    for (int64_t n0 = 0; n0 < N; n0 += COLUMNS) {
        double sum[COLUMNS] = {0};
        int64_t width = linear_min64(COLUMNS, N - n0);
        for (int64_t t = 0; t < T; t++) {
            const float *row = dy + t * lddy + n0;
            for (int64_t n = 0; n < width; n++)
                sum[n] += (double)row[n];
        }
        for (int64_t n = 0; n < width; n++)
            db[n0 + n] = (float)(accumulate ? (double)db[n0 + n] + sum[n] : sum[n]);
    }
}

size_t dpt_nn_linear_terms_scratch(int64_t T, int64_t N) {
    return (size_t)linear_min64(T, TERMS_TOKENS) * (size_t)linear_min64(N, TERMS_OUTPUTS);
}

void dpt_nn_linear_add_products(int64_t T, int64_t N, const float *dy, int64_t lddy, const float *z,
                                int64_t ldz, double *term) {
#pragma omp parallel for schedule(static) if (T * N >= PARALLEL_MIN)
    for (int64_t t = 0; t < T; t++) {
        const float *a = dy + t * lddy, *b = z + t * ldz;
        double sum = 0.0;
#pragma omp simd reduction(+ : sum)
        for (int64_t n = 0; n < N; n++)
            sum += (double)a[n] * (double)b[n];
        term[t] += sum;
    }
}

void dpt_nn_linear_terms(int64_t T, int64_t N, int64_t K, const float *dy, int64_t lddy,
                         const float *x, int64_t ldx, const float *e, int64_t lde, float *scratch,
                         double *term) {
    /* dy (T,N), x (T,K), e (N,K), scratch: a block of z = x e^T (T,N), term (T) */
    for (int64_t t0 = 0; t0 < T; t0 += TERMS_TOKENS) {
        int64_t tb = linear_min64(TERMS_TOKENS, T - t0);
        for (int64_t n0 = 0; n0 < N; n0 += TERMS_OUTPUTS) {
            int64_t nb = linear_min64(TERMS_OUTPUTS, N - n0);
            gemm(false, true, tb, nb, K, 1.0f, x + t0 * ldx, ldx, e + n0 * lde, lde, 0.0f, scratch,
                 nb);
            dpt_nn_linear_add_products(tb, nb, dy + t0 * lddy + n0, lddy, scratch, nb, term + t0);
        }
    }
}

void dpt_nn_linear_bias_terms(int64_t T, int64_t N, const float *dy, int64_t lddy, const float *e,
                              double *term) {
    /* dy (T,N), e (N), term (T) */
    dpt_nn_linear_add_products(T, N, dy, lddy, e, 0, term);
}
