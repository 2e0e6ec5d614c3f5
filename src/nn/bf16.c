#include "deltapath/nn/bf16.h"

#include "deltapath/tensor/dtype.h"

#include <stddef.h>

enum { PARALLEL_MIN = 1 << 15 };

void dpt_nn_bf16_round(int64_t T, int64_t N, const float *x, int64_t ldx, uint16_t *out) {
    /* x (T,N), out (T,N) */
#pragma omp parallel for schedule(static) if (T * N >= PARALLEL_MIN)
    for (int64_t i = 0; i < T; i++)
        dpt_dtype_from_f32(DPT_BF16, x + i * ldx, out + i * N, N);
}

/* One row of both products. */
static inline __attribute__((always_inline)) void join_row(int64_t N, const float *a,
                                                           const float *b, float t,
                                                           const float *bias, bool add, float *y) {
#pragma omp simd
    for (int64_t n = 0; n < N; n++) {
        float sum = b != NULL ? a[n] + t * (b[n] - a[n]) : a[n];
        sum = bias != NULL ? bias[n] + sum : sum;
        y[n] = add ? y[n] + sum : sum;
    }
}

void dpt_nn_bf16_join(int64_t T, int64_t N, const float *a, const float *b, float t,
                      const float *bias, bool add, float *y, int64_t ldy) {
    /* a, b (T,N), bias (N), y (T,N) */
#pragma omp parallel for schedule(static) if (T * N >= PARALLEL_MIN)
    for (int64_t i = 0; i < T; i++) {
        const float *from = a + i * N, *to = b != NULL ? b + i * N : NULL;
        float *row = y + i * ldy;
        if (bias == NULL && to != NULL && !add)
            join_row(N, from, to, t, NULL, false, row);
        else if (bias == NULL && to != NULL)
            join_row(N, from, to, t, NULL, true, row);
        else
            join_row(N, from, to, t, bias, add, row);
    }
}

/* One row of dx, and its term. */
static inline __attribute__((always_inline)) double
terms_row(int64_t N, const float *a, const float *b, float t, const float *x, bool add, float *dx) {
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t n = 0; n < N; n++) {
        float delta = b[n] - a[n];
        sum += (double)x[n] * (double)delta; /* before dx, which may be x */
        if (dx != NULL)
            dx[n] = (add ? dx[n] : 0.0F) + (a[n] + t * delta);
    }
    return sum;
}

void dpt_nn_bf16_terms(int64_t T, int64_t N, const float *a, const float *b, float t,
                       const float *x, int64_t ldx, double *term, bool add, float *dx,
                       int64_t lddx) {
    /* a, b (T,N), x, dx (T,N), term (T) */
#pragma omp parallel for schedule(static) if (T * N >= PARALLEL_MIN)
    for (int64_t i = 0; i < T; i++) {
        const float *from = a + i * N, *to = b + i * N, *in = x + i * ldx;
        if (dx == NULL)
            term[i] += terms_row(N, from, to, t, in, false, NULL);
        else if (add)
            term[i] += terms_row(N, from, to, t, in, true, dx + i * lddx);
        else
            term[i] += terms_row(N, from, to, t, in, false, dx + i * lddx);
    }
}
