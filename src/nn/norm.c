#include "deltapath/nn/norm.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

enum {
    COLUMNS = 256,      /* columns summed at a time in double */
    COLUMNS_LEAST = 16, /* and of short rows, which several threads share: a cache line */
    PARALLEL_MIN = 1 << 15
};

static double row_squares(int64_t C, const float *x) {
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < C; c++)
        sum += (double)x[c] * (double)x[c];
    return sum;
}

/** y = w (x rstd), from the sum of squares of a row of `total` elements; @return rstd. */
static float row_scale(int64_t C, int64_t total, double sum, float eps, const float *x,
                       const float *w, float *y) {
    float r = (float)(1.0 / sqrt(sum / (double)total + (double)eps));
#pragma omp simd
    for (int64_t c = 0; c < C; c++)
        y[c] = w[c] * (x[c] * r);
    return r;
}

/** sum_c dy w x */
static double row_dot(int64_t C, const float *dy, const float *w, const float *x) {
    double dot = 0.0;
#pragma omp simd reduction(+ : dot)
    for (int64_t c = 0; c < C; c++)
        dot += (double)(dy[c] * w[c]) * (double)x[c];
    return dot;
}

/** Factor of x in the gradient of a row of `total` elements. */
static float row_shift(int64_t total, double dot, float r) {
    return (float)(dot / (double)total * (double)r * (double)r * (double)r);
}

void dpt_nn_rmsnorm_heads_forward(int64_t T, int64_t heads, int64_t C, const float *x, int64_t ldx,
                                  const float *w, float eps, float *y, int64_t ldy, float *kept,
                                  int64_t ldkept, float *rstd) {
    /* x, y, kept (T,heads,C), w (C), rstd (T,heads) */
#pragma omp parallel for schedule(static) if (T * heads * C >= PARALLEL_MIN)
    for (int64_t t = 0; t < T; t++) {
        if (kept)
            memcpy(kept + t * ldkept, x + t * ldx, (size_t)(heads * C) * sizeof *kept);
        for (int64_t j = 0; j < heads; j++) {
            const float *xt = x + t * ldx + j * C;
            float r = row_scale(C, C, row_squares(C, xt), eps, xt, w, y + t * ldy + j * C);
            if (rstd)
                rstd[t * heads + j] = r;
        }
    }
}

void dpt_nn_rmsnorm_forward(int64_t T, int64_t C, const float *x, int64_t ldx, const float *w,
                            float eps, float *y, int64_t ldy, float *rstd) {
    /* x (T,C), w (C), y (T,C), rstd (T) */
    dpt_nn_rmsnorm_heads_forward(T, 1, C, x, ldx, w, eps, y, ldy, NULL, 0, rstd);
}

/** dx (+)= dy w r - x shift of one row. */
static void row_backward(int64_t C, const float *dy, const float *x, const float *w, float r,
                         bool accumulate, float *dx) {
    float shift = row_shift(C, row_dot(C, dy, w, x), r);
    if (accumulate) {
#pragma omp simd
        for (int64_t c = 0; c < C; c++)
            dx[c] += dy[c] * w[c] * r - x[c] * shift;
    } else {
#pragma omp simd
        for (int64_t c = 0; c < C; c++)
            dx[c] = dy[c] * w[c] * r - x[c] * shift;
    }
}

void dpt_nn_rmsnorm_heads_backward_input(int64_t T, int64_t heads, int64_t C, const float *dy,
                                         int64_t lddy, const float *x, int64_t ldx, const float *w,
                                         const float *rstd, bool accumulate, float *dx,
                                         int64_t lddx) {
    /* dy, x, dx (T,heads,C), w (C), rstd (T,heads) */
    /* forward: rstd = 1/sqrt(mean(x^2) + eps), y = w (x rstd) */
#pragma omp parallel for schedule(static) if (T * heads * C >= PARALLEL_MIN)
    for (int64_t t = 0; t < T; t++)
        for (int64_t j = 0; j < heads; j++)
            row_backward(C, dy + t * lddy + j * C, x + t * ldx + j * C, w, rstd[t * heads + j],
                         accumulate, dx + t * lddx + j * C);
}

void dpt_nn_rmsnorm_backward_input(int64_t T, int64_t C, const float *dy, int64_t lddy,
                                   const float *x, int64_t ldx, const float *w, const float *rstd,
                                   bool accumulate, float *dx, int64_t lddx) {
    /* dy (T,C), x (T,C), w (C), rstd (T), dx (T,C); forward: y = w (x rstd) */
    dpt_nn_rmsnorm_heads_backward_input(T, 1, C, dy, lddy, x, ldx, w, rstd, accumulate, dx, lddx);
}

void dpt_nn_rmsnorm_squares(int64_t T, int64_t C, const float *x, int64_t ldx, double *sum) {
    /* x (T,C), sum (T) */
#pragma omp parallel for schedule(static) if (T * C >= PARALLEL_MIN)
    for (int64_t t = 0; t < T; t++)
        sum[t] += row_squares(C, x + t * ldx);
}

void dpt_nn_rmsnorm_scale(int64_t T, int64_t C, int64_t total, const double *sum, float eps,
                          const float *x, int64_t ldx, const float *w, float *y, int64_t ldy,
                          float *rstd) {
    /* sum (T), x (T,C), w (C), y (T,C), rstd (T) */
#pragma omp parallel for schedule(static) if (T * C >= PARALLEL_MIN)
    for (int64_t t = 0; t < T; t++) {
        float r = row_scale(C, total, sum[t], eps, x + t * ldx, w, y + t * ldy);
        if (rstd)
            rstd[t] = r;
    }
}

void dpt_nn_rmsnorm_dots(int64_t T, int64_t C, const float *dy, int64_t lddy, const float *x,
                         int64_t ldx, const float *w, double *dot) {
    /* dy (T,C), x (T,C), w (C), dot (T) */
#pragma omp parallel for schedule(static) if (T * C >= PARALLEL_MIN)
    for (int64_t t = 0; t < T; t++)
        dot[t] += row_dot(C, dy + t * lddy, w, x + t * ldx);
}

void dpt_nn_rmsnorm_backward_scale(int64_t T, int64_t C, int64_t own, int64_t total,
                                   const double *dot, const float *dy, int64_t lddy, const float *x,
                                   int64_t ldx, const float *w, const float *rstd, float *dx,
                                   int64_t lddx) {
    /* dot (T), dy (T,C), x (T,C), w (C), rstd (T), dx (T,C) */
    /* forward: rstd = 1/sqrt(mean(x^2) + eps) over `total` columns, y = w (x rstd) */
#pragma omp parallel for schedule(static) if (T * C >= PARALLEL_MIN)
    for (int64_t t = 0; t < T; t++) {
        const float *dyt = dy + t * lddy, *xt = x + t * ldx;
        float *dxt = dx + t * lddx;
        float r = rstd[t], shift = row_shift(total, dot[t], r);
#pragma omp simd
        for (int64_t c = 0; c < own; c++)
            dxt[c] = dyt[c] * w[c] * r - xt[c] * shift;
#pragma omp simd
        for (int64_t c = own; c < C; c++)
            dxt[c] = dyt[c] * w[c] * r;
    }
}

void dpt_nn_scale(int64_t T, int64_t C, const float *x, int64_t ldx, const float *w, float *y,
                  int64_t ldy) {
    /* x (T,C), w (C), y (T,C) */
#pragma omp parallel for schedule(static) if (T * C >= PARALLEL_MIN)
    for (int64_t t = 0; t < T; t++) {
        const float *xt = x + t * ldx;
        float *yt = y + t * ldy;
#pragma omp simd
        for (int64_t c = 0; c < C; c++)
            yt[c] = xt[c] * w[c];
    }
}

/** The heads of T tokens: rows of C elements each, and their statistics. mean NULL stands for 0, rstd NULL for 1. */
typedef struct {
    int64_t T, heads, C;
    const float *dy;
    int64_t lddy;
    const float *x;
    int64_t ldx;
    const float *mean, *rstd; /**< (T,heads) */
} norm_rows;

/** sum[c] += dy[c] (x[c] - m) r of the columns [c0, c0 + width) of all rows. */
static void add_columns(const norm_rows *n, int64_t c0, int64_t width, double *sum) {
    for (int64_t t = 0; t < n->T; t++)
        for (int64_t j = 0; j < n->heads; j++) {
            const float *dy = n->dy + t * n->lddy + j * n->C + c0;
            const float *x = n->x + t * n->ldx + j * n->C + c0;
            float m = n->mean ? n->mean[t * n->heads + j] : 0.0f;
            float r = n->rstd ? n->rstd[t * n->heads + j] : 1.0f;
            for (int64_t c = 0; c < width; c++)
                sum[c] += (double)(dy[c] * ((x[c] - m) * r));
        }
}

/** dw[c] (+)= sum over the rows of dy[c] (x[c] - m) r */
static void add_weight_gradient(const norm_rows *n, bool accumulate, float *dw) {
    int64_t C = n->C, piece = C > COLUMNS ? COLUMNS : COLUMNS_LEAST;
#pragma omp parallel for schedule(static) if (n->T * n->heads * C >= PARALLEL_MIN)
    for (int64_t c0 = 0; c0 < C; c0 += piece) {
        double sum[COLUMNS] = {0};
        int64_t width = C - c0 < piece ? C - c0 : piece;
        add_columns(n, c0, width, sum);
        for (int64_t c = 0; c < width; c++)
            dw[c0 + c] = (float)(accumulate ? (double)dw[c0 + c] + sum[c] : sum[c]);
    }
}

/** term[t] += sum over the heads of r sum_c dy[c] (x[c] - m) e[c] */
static void add_terms(const norm_rows *n, const float *e, double *term) {
#pragma omp parallel for schedule(static) if (n->T * n->heads * n->C >= PARALLEL_MIN)
    for (int64_t t = 0; t < n->T; t++)
        for (int64_t j = 0; j < n->heads; j++) {
            const float *dy = n->dy + t * n->lddy + j * n->C, *x = n->x + t * n->ldx + j * n->C;
            float m = n->mean ? n->mean[t * n->heads + j] : 0.0f;
            double sum = 0.0;
#pragma omp simd reduction(+ : sum)
            for (int64_t c = 0; c < n->C; c++)
                sum += (double)(dy[c] * (x[c] - m)) * (double)e[c];
            term[t] += n->rstd ? sum * (double)n->rstd[t * n->heads + j] : sum;
        }
}

void dpt_nn_rmsnorm_heads_backward_weight(int64_t T, int64_t heads, int64_t C, const float *dy,
                                          int64_t lddy, const float *x, int64_t ldx,
                                          const float *rstd, bool accumulate, float *dw) {
    /* dy, x (T,heads,C), rstd (T,heads), dw (C); forward: y = w (x rstd) */
    add_weight_gradient(&(norm_rows){T, heads, C, dy, lddy, x, ldx, NULL, rstd}, accumulate, dw);
}

void dpt_nn_rmsnorm_backward_weight(int64_t T, int64_t C, const float *dy, int64_t lddy,
                                    const float *x, int64_t ldx, const float *rstd, bool accumulate,
                                    float *dw) {
    /* dy (T,C), x (T,C), rstd (T), dw (C); forward: y = w (x rstd) */
    dpt_nn_rmsnorm_heads_backward_weight(T, 1, C, dy, lddy, x, ldx, rstd, accumulate, dw);
}

void dpt_nn_rmsnorm_heads_terms(int64_t T, int64_t heads, int64_t C, const float *dy, int64_t lddy,
                                const float *x, int64_t ldx, const float *rstd, const float *e,
                                double *term) {
    /* dy, x (T,heads,C), rstd (T,heads), e (C), term (T); forward: y = w (x rstd) */
    add_terms(&(norm_rows){T, heads, C, dy, lddy, x, ldx, NULL, rstd}, e, term);
}

void dpt_nn_rmsnorm_terms(int64_t T, int64_t C, const float *dy, int64_t lddy, const float *x,
                          int64_t ldx, const float *rstd, const float *e, double *term) {
    /* dy (T,C), x (T,C), rstd (T), e (C), term (T); forward: y = w (x rstd) */
    dpt_nn_rmsnorm_heads_terms(T, 1, C, dy, lddy, x, ldx, rstd, e, term);
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
    add_weight_gradient(&(norm_rows){T, 1, C, dy, lddy, x, ldx, mean, rstd}, accumulate, dw);
}

void dpt_nn_layernorm_terms(int64_t T, int64_t C, const float *dy, int64_t lddy, const float *x,
                            int64_t ldx, const float *mean, const float *rstd, const float *e,
                            double *term) {
    /* dy (T,C), x (T,C), mean (T), rstd (T), e (C), term (T); forward: y = w ((x - mean) rstd) + b */
    add_terms(&(norm_rows){T, 1, C, dy, lddy, x, ldx, mean, rstd}, e, term);
}
