#include "deltapath/nn/norm.h"

#include <math.h>
#include <stddef.h>

enum { COLUMNS = 256, PARALLEL_MIN = 1 << 15 };

void dpt_nn_rmsnorm_forward(int64_t T, int64_t C, const float *x, int64_t ldx, const float *w,
                            float eps, float *y, int64_t ldy, float *rstd) {
    /* x (T,C), w (C), y (T,C), rstd (T) */
#pragma omp parallel for schedule(static) if (T * C >= PARALLEL_MIN)
    for (int64_t t = 0; t < T; t++) {
        const float *xt = x + t * ldx;
        float *yt = y + t * ldy;
        double sum = 0.0;
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < C; c++)
            sum += (double)xt[c] * (double)xt[c];
        float r = (float)(1.0 / sqrt(sum / (double)C + (double)eps));
#pragma omp simd
        for (int64_t c = 0; c < C; c++)
            yt[c] = w[c] * (xt[c] * r);
        if (rstd)
            rstd[t] = r;
    }
}

void dpt_nn_rmsnorm_backward_input(int64_t T, int64_t C, const float *dy, int64_t lddy,
                                   const float *x, int64_t ldx, const float *w, const float *rstd,
                                   bool accumulate, float *dx, int64_t lddx) {
    /* dy (T,C), x (T,C), w (C), rstd (T), dx (T,C) */
    /* forward: rstd = 1/sqrt(mean(x^2) + eps), y = w (x rstd) */
#pragma omp parallel for schedule(static) if (T * C >= PARALLEL_MIN)
    for (int64_t t = 0; t < T; t++) {
        const float *dyt = dy + t * lddy, *xt = x + t * ldx;
        float *dxt = dx + t * lddx;
        float r = rstd[t];
        double dot = 0.0;
#pragma omp simd reduction(+ : dot)
        for (int64_t c = 0; c < C; c++)
            dot += (double)(dyt[c] * w[c]) * (double)xt[c];
        float shift = (float)(dot / (double)C * (double)r * (double)r * (double)r);
        if (accumulate) {
#pragma omp simd
            for (int64_t c = 0; c < C; c++)
                dxt[c] += dyt[c] * w[c] * r - xt[c] * shift;
        } else {
#pragma omp simd
            for (int64_t c = 0; c < C; c++)
                dxt[c] = dyt[c] * w[c] * r - xt[c] * shift;
        }
    }
}

/** dw[c] (+)= sum_t dy[t,c] (x[t,c] - mean[t]) rstd[t]; mean NULL stands for 0. */
static void add_weight_gradient(int64_t T, int64_t C, const float *dy, int64_t lddy, const float *x,
                                int64_t ldx, const float *mean, const float *rstd, bool accumulate,
                                float *dw) {
#pragma omp parallel for schedule(static) if (T * C >= PARALLEL_MIN)
    for (int64_t c0 = 0; c0 < C; c0 += COLUMNS) {
        double sum[COLUMNS] = {0};
        int64_t width = C - c0 < COLUMNS ? C - c0 : COLUMNS;
        for (int64_t t = 0; t < T; t++) {
            const float *dyt = dy + t * lddy + c0, *xt = x + t * ldx + c0;
            float m = mean ? mean[t] : 0.0f, r = rstd[t];
            for (int64_t c = 0; c < width; c++)
                sum[c] += (double)(dyt[c] * ((xt[c] - m) * r));
        }
        for (int64_t c = 0; c < width; c++)
            dw[c0 + c] = (float)(accumulate ? (double)dw[c0 + c] + sum[c] : sum[c]);
    }
}

/** term[t] += sum_c dy[t,c] (x[t,c] - mean[t]) rstd[t] e[c]; mean NULL stands for 0. */
static void add_terms(int64_t T, int64_t C, const float *dy, int64_t lddy, const float *x,
                      int64_t ldx, const float *mean, const float *rstd, const float *e,
                      double *term) {
#pragma omp parallel for schedule(static) if (T * C >= PARALLEL_MIN)
    for (int64_t t = 0; t < T; t++) {
        const float *dyt = dy + t * lddy, *xt = x + t * ldx;
        float m = mean ? mean[t] : 0.0f;
        double sum = 0.0;
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < C; c++)
            sum += (double)(dyt[c] * (xt[c] - m)) * (double)e[c];
        term[t] += sum * (double)rstd[t];
    }
}

void dpt_nn_rmsnorm_backward_weight(int64_t T, int64_t C, const float *dy, int64_t lddy,
                                    const float *x, int64_t ldx, const float *rstd, bool accumulate,
                                    float *dw) {
    /* dy (T,C), x (T,C), rstd (T), dw (C); forward: y = w (x rstd) */
    add_weight_gradient(T, C, dy, lddy, x, ldx, NULL, rstd, accumulate, dw);
}

void dpt_nn_rmsnorm_terms(int64_t T, int64_t C, const float *dy, int64_t lddy, const float *x,
                          int64_t ldx, const float *rstd, const float *e, double *term) {
    /* dy (T,C), x (T,C), rstd (T), e (C), term (T); forward: y = w (x rstd) */
    add_terms(T, C, dy, lddy, x, ldx, NULL, rstd, e, term);
}

void dpt_nn_layernorm_forward(int64_t T, int64_t C, const float *x, int64_t ldx, const float *w,
                              const float *b, float eps, float *y, int64_t ldy, float *mean,
                              float *rstd) {
    /* x (T,C), w (C), b (C), y (T,C), mean (T), rstd (T) */
#pragma omp parallel for schedule(static) if (T * C >= PARALLEL_MIN)
    for (int64_t t = 0; t < T; t++) {
        const float *xt = x + t * ldx;
        float *yt = y + t * ldy;
        double sum = 0.0, squares = 0.0;
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < C; c++)
            sum += (double)xt[c];
        float m = (float)(sum / (double)C);
#pragma omp simd reduction(+ : squares)
        for (int64_t c = 0; c < C; c++)
            squares += (double)(xt[c] - m) * (double)(xt[c] - m);
        float r = (float)(1.0 / sqrt(squares / (double)C + (double)eps));
        if (b) {
#pragma omp simd
            for (int64_t c = 0; c < C; c++)
                yt[c] = w[c] * ((xt[c] - m) * r) + b[c];
        } else {
#pragma omp simd
            for (int64_t c = 0; c < C; c++)
                yt[c] = w[c] * ((xt[c] - m) * r);
        }
        if (mean)
            mean[t] = m;
        if (rstd)
            rstd[t] = r;
    }
}

void dpt_nn_layernorm_backward_input(int64_t T, int64_t C, const float *dy, int64_t lddy,
                                     const float *x, int64_t ldx, const float *w, const float *mean,
                                     const float *rstd, bool accumulate, float *dx, int64_t lddx) {
    /* dy (T,C), x (T,C), w (C), mean (T), rstd (T), dx (T,C) */
    /* forward: y = w ((x - mean) rstd) + b */
#pragma omp parallel for schedule(static) if (T * C >= PARALLEL_MIN)
    for (int64_t t = 0; t < T; t++) {
        const float *dyt = dy + t * lddy, *xt = x + t * ldx;
        float *dxt = dx + t * lddx;
        float m = mean[t], r = rstd[t];
        double sum = 0.0, dot = 0.0;
#pragma omp simd reduction(+ : sum, dot)
        for (int64_t c = 0; c < C; c++) {
            double a = (double)(dyt[c] * w[c]);
            sum += a;
            dot += a * (double)(xt[c] - m);
        }
        float shift = (float)(sum / (double)C * (double)r);
        float slope = (float)(dot / (double)C * (double)r * (double)r * (double)r);
        if (accumulate) {
#pragma omp simd
            for (int64_t c = 0; c < C; c++)
                dxt[c] += dyt[c] * w[c] * r - shift - (xt[c] - m) * slope;
        } else {
#pragma omp simd
            for (int64_t c = 0; c < C; c++)
                dxt[c] = dyt[c] * w[c] * r - shift - (xt[c] - m) * slope;
        }
    }
}

void dpt_nn_layernorm_backward_weight(int64_t T, int64_t C, const float *dy, int64_t lddy,
                                      const float *x, int64_t ldx, const float *mean,
                                      const float *rstd, bool accumulate, float *dw) {
    /* dy (T,C), x (T,C), mean (T), rstd (T), dw (C); forward: y = w ((x - mean) rstd) + b */
    add_weight_gradient(T, C, dy, lddy, x, ldx, mean, rstd, accumulate, dw);
}

void dpt_nn_layernorm_terms(int64_t T, int64_t C, const float *dy, int64_t lddy, const float *x,
                            int64_t ldx, const float *mean, const float *rstd, const float *e,
                            double *term) {
    /* dy (T,C), x (T,C), mean (T), rstd (T), e (C), term (T); forward: y = w ((x - mean) rstd) + b */
    add_terms(T, C, dy, lddy, x, ldx, mean, rstd, e, term);
}
