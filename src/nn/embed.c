#include "deltapath/nn/embed.h"

#include <stddef.h>
#include <string.h>

enum { COLUMNS = 128, PARALLEL_MIN = 1 << 15 };

void dpt_nn_embed_backward(int64_t T, int64_t C, int64_t v0, int64_t v1, const int32_t *tokens,
                           const float *dx, int64_t lddx, float *dw, int64_t lddw) {
    /* tokens (T), dx (T,C), dw (v1-v0,C); forward: x[t] = w[tokens[t] - v0] */
    /* Threads share the columns, not the tokens: two tokens may add to the same row. */
#pragma omp parallel for schedule(static) if (T * C >= PARALLEL_MIN)
    for (int64_t c0 = 0; c0 < C; c0 += COLUMNS) {
        int64_t width = C - c0 < COLUMNS ? C - c0 : COLUMNS;
        for (int64_t t = 0; t < T; t++) {
            if (tokens[t] < v0 || tokens[t] >= v1)
                continue;
            const float *from = dx + t * lddx + c0;
            float *to = dw + (tokens[t] - v0) * lddw + c0;
#pragma omp simd
            for (int64_t c = 0; c < width; c++)
                to[c] += from[c];
        }
    }
}

void dpt_nn_embed_terms(int64_t T, int64_t C, int64_t v0, int64_t v1, const int32_t *tokens,
                        const float *dx, int64_t lddx, const float *e, int64_t lde, double *term) {
    /* tokens (T), dx (T,C), e (v1-v0,C), term (T); forward: x[t] = w[tokens[t] - v0] */
#pragma omp parallel for schedule(static) if (T * C >= PARALLEL_MIN)
    for (int64_t t = 0; t < T; t++) {
        if (tokens[t] < v0 || tokens[t] >= v1)
            continue;
        const float *a = dx + t * lddx, *b = e + (tokens[t] - v0) * lde;
        double sum = 0.0;
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < C; c++)
            sum += (double)a[c] * (double)b[c];
        term[t] += sum;
    }
}
