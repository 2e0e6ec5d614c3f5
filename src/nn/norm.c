#include "deltapath/nn/norm.h"

#include <math.h>
#include <omp.h>
#include <stddef.h>
#include <string.h>

enum {
    COLUMNS = 256,      /* columns summed at a time in double */
    COLUMNS_LEAST = 16, /* and of short rows, which several threads share: a cache line */
    PARALLEL_MIN = 1 << 15
};

#define NORM_INLINE static inline __attribute__((always_inline))

/* Rows of RMSNorm.
 *
 * The problem: a row is read for its sum before anything of it can be written, and then read from cache. While it is
 * summed no store is under way, and while it is written no load from memory.
 *
 * The idea: one loop sums a row and writes the row before, so that loads and stores of memory are under way together.
 * The first row of a block is only summed, the last only written. Sums are taken in lanes that depend on nothing else, so
 * that a row has the same bits wherever it stands. Vectors are loaded before any of their places is written: the result
 * may stand in place of what it is made of. */

#pragma GCC diagnostic ignored "-Wpsabi" /* no vector crosses the border of this file */
enum { WIDTH = 16, BLOCK = 16 };         /* lanes of a vector, rows of a block at most */
typedef float floats __attribute__((vector_size(4 * WIDTH)));
typedef float floats8 __attribute__((vector_size(2 * WIDTH)));
typedef double doubles __attribute__((vector_size(4 * WIDTH)));

typedef struct {
    doubles low, high;
    double rest; /* of the last elements, which fill no vector */
} norm_sum;

NORM_INLINE floats row_load(const float *x) {
    floats v;
    memcpy(&v, x, sizeof v);
    return v;
}

/** sum += (double)a (double)b */
NORM_INLINE void sum_add(norm_sum *sum, floats a, floats b) {
    floats8 a0 = __builtin_shufflevector(a, a, 0, 1, 2, 3, 4, 5, 6, 7);
    floats8 a1 = __builtin_shufflevector(a, a, 8, 9, 10, 11, 12, 13, 14, 15);
    floats8 b0 = __builtin_shufflevector(b, b, 0, 1, 2, 3, 4, 5, 6, 7);
    floats8 b1 = __builtin_shufflevector(b, b, 8, 9, 10, 11, 12, 13, 14, 15);
    sum->low += __builtin_convertvector(a0, doubles) * __builtin_convertvector(b0, doubles);
    sum->high += __builtin_convertvector(a1, doubles) * __builtin_convertvector(b1, doubles);
}

NORM_INLINE double sum_total(const norm_sum *sum) {
    doubles lanes = sum->low + sum->high;
    double total = sum->rest;
    for (int l = 0; l < WIDTH / 2; l++)
        total += lanes[l];
    return total;
}

/** @return sum_c x^2 of a row, unless NULL; and y = w (before r) of the row before, unless NULL. */
NORM_INLINE double row_forward(int64_t C, const float *x, const float *before, float r,
                               const float *w, float *y) {
    norm_sum sum = {.rest = 0.0};
    int64_t c = 0;
    for (; c + WIDTH <= C; c += WIDTH) {
        if (x)
            sum_add(&sum, row_load(x + c), row_load(x + c));
        if (before) {
            floats out = row_load(w + c) * (row_load(before + c) * r);
            memcpy(y + c, &out, sizeof out);
        }
    }
    for (; c < C; c++) {
        if (x)
            sum.rest += (double)x[c] * (double)x[c];
        if (before)
            y[c] = w[c] * (before[c] * r);
    }
    return sum_total(&sum);
}

static double row_squares(int64_t C, const float *x) {
    return row_forward(C, x, NULL, 0.0f, NULL, NULL);
}

static void row_write(int64_t C, const float *x, float r, const float *w, float *y) {
    row_forward(C, NULL, x, r, w, y);
}

/** 1 / sqrt(mean + eps) of a row of `total` elements. */
static float row_rstd(int64_t total, double sum, float eps) {
    return (float)(1.0 / sqrt(sum / (double)total + (double)eps));
}

/** One gradient of RMSNorm: dx (+)= dy w r - x shift. */
typedef struct {
    const float *dy, *x;
    float r, shift;
    float *dx;
} norm_row;

/** @return sum_c dy w x of a row, unless NULL; and dx of the row before, unless NULL. */
NORM_INLINE double row_backward(int64_t C, const float *w, const norm_row *row,
                                const norm_row *before, bool accumulate) {
    norm_sum sum = {.rest = 0.0};
    int64_t c = 0;
    for (; c + WIDTH <= C; c += WIDTH) {
        if (row)
            sum_add(&sum, row_load(row->dy + c) * row_load(w + c), row_load(row->x + c));
        if (before) {
            floats out = row_load(before->dy + c) * row_load(w + c) * before->r -
                         row_load(before->x + c) * before->shift;
            if (accumulate)
                out = row_load(before->dx + c) + out;
            memcpy(before->dx + c, &out, sizeof out);
        }
    }
    for (; c < C; c++) {
        if (row)
            sum.rest += (double)(row->dy[c] * w[c]) * (double)row->x[c];
        if (before) {
            float out = before->dy[c] * w[c] * before->r - before->x[c] * before->shift;
            before->dx[c] = accumulate ? before->dx[c] + out : out;
        }
    }
    return sum_total(&sum);
}

static double row_dot(int64_t C, const float *dy, const float *w, const float *x) {
    const norm_row row = {.dy = dy, .x = x};
    return row_backward(C, w, &row, NULL, false);
}

static void row_gradient(int64_t C, const float *w, const norm_row *row, bool accumulate) {
    if (accumulate)
        row_backward(C, w, NULL, row, true);
    else
        row_backward(C, w, NULL, row, false);
}

static double row_both(int64_t C, const float *w, const norm_row *row, const norm_row *before,
                       bool accumulate) {
    return accumulate ? row_backward(C, w, row, before, true)
                      : row_backward(C, w, row, before, false);
}

/** Factor of x in the gradient of a row of `total` elements. */
static float row_shift(int64_t total, double dot, float r) {
    return (float)(dot / (double)total * (double)r * (double)r * (double)r);
}

/** Rows of a block: as many for each thread, and few. */
static int64_t norm_block(int64_t T) {
    int64_t share = T / omp_get_max_threads();
    return share < 1 ? 1 : share < BLOCK ? share : BLOCK;
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
            float r = row_rstd(C, row_squares(C, xt), eps);
            row_write(C, xt, r, w, y + t * ldy + j * C);
            if (rstd)
                rstd[t * heads + j] = r;
        }
    }
}

void dpt_nn_rmsnorm_forward(int64_t T, int64_t C, const float *x, int64_t ldx, const float *w,
                            float eps, float *y, int64_t ldy, float *rstd) {
    /* x (T,C), w (C), y (T,C), rstd (T) */
    int64_t block = norm_block(T);
#pragma omp parallel for schedule(static) if (T * C >= PARALLEL_MIN)
    for (int64_t t0 = 0; t0 < T; t0 += block) {
        int64_t end = t0 + block < T ? t0 + block : T;
        float r = 0.0f;
        for (int64_t t = t0; t < end; t++) {
            const float *xt = x + t * ldx;
            double sum = t == t0 ? row_squares(C, xt)
                                 : row_forward(C, xt, xt - ldx, r, w, y + (t - 1) * ldy);
            r = row_rstd(C, sum, eps);
            if (rstd)
                rstd[t] = r;
        }
        row_write(C, x + (end - 1) * ldx, r, w, y + (end - 1) * ldy);
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
        for (int64_t j = 0; j < heads; j++) {
            norm_row row = {.dy = dy + t * lddy + j * C,
                            .x = x + t * ldx + j * C,
                            .r = rstd[t * heads + j],
                            .dx = dx + t * lddx + j * C};
            row.shift = row_shift(C, row_dot(C, row.dy, w, row.x), row.r);
            row_gradient(C, w, &row, accumulate);
        }
}

void dpt_nn_rmsnorm_backward_input(int64_t T, int64_t C, const float *dy, int64_t lddy,
                                   const float *x, int64_t ldx, const float *w, const float *rstd,
                                   bool accumulate, float *dx, int64_t lddx) {
    /* dy (T,C), x (T,C), w (C), rstd (T), dx (T,C); forward: y = w (x rstd) */
    int64_t block = norm_block(T);
#pragma omp parallel for schedule(static) if (T * C >= PARALLEL_MIN)
    for (int64_t t0 = 0; t0 < T; t0 += block) {
        int64_t end = t0 + block < T ? t0 + block : T;
        norm_row before = {.dy = NULL};
        for (int64_t t = t0; t < end; t++) {
            norm_row row = {
                .dy = dy + t * lddy, .x = x + t * ldx, .r = rstd[t], .dx = dx + t * lddx};
            double dot =
                t == t0 ? row_dot(C, row.dy, w, row.x) : row_both(C, w, &row, &before, accumulate);
            row.shift = row_shift(C, dot, row.r);
            before = row;
        }
        row_gradient(C, w, &before, accumulate);
    }
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
        float r = row_rstd(total, sum[t], eps);
        row_write(C, x + t * ldx, r, w, y + t * ldy);
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
