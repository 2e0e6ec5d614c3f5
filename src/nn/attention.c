#include "deltapath/nn/attention.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "deltapath/nn/vexp.h"
#include "gemm.h"

enum { QUERIES = 64, KEYS = 512, SLOT = 2 * QUERIES * KEYS };

static int64_t min64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/** First key that query i sees. */
static int64_t first_key(const dpt_attention_shape *s, int64_t i) {
    return s->causal && s->window > 0 ? max64(0, i - s->window + 1) : 0;
}

/** One past the last key that query i sees. */
static int64_t end_key(const dpt_attention_shape *s, int64_t i) {
    return s->causal ? i + 1 : s->n;
}

static int thread_count(const dpt_attention_shape *s, int64_t tasks) {
    return (int)max64(1, min64(s->threads, tasks));
}

/** Parts into which the query heads of each group are split in the backward pass, so that there is
 * work for every thread; every part but the first sums its dk and dv apart. */
static int64_t part_count(const dpt_attention_shape *s) {
    if (s->hkv <= 0)
        return 1;
    int64_t wanted = (max64(1, s->threads) + s->hkv - 1) / s->hkv;
    return max64(1, min64(wanted, (s->hq + s->hkv - 1) / s->hkv));
}

size_t dpt_nn_attention_scratch(const dpt_attention_shape *shape) {
    int64_t parts = part_count(shape);
    size_t rows = (size_t)(2 * shape->n * shape->hd);
    return (size_t)max64(1, shape->threads) * (size_t)SLOT +
           (size_t)(shape->hkv * (parts - 1)) * rows;
}

/** Softmax of one row of scores against the running maximum; the masked part becomes 0.
 *
 * s (width): scores in, exp(score - new maximum) out; [a, b) is the visible part.
 * Returns the factor by which what was summed before must shrink. */
static float softmax_row(int64_t width, int64_t a, int64_t b, float *s, float *running_max,
                         double *running_sum) {
    if (b <= a) {
        memset(s, 0, (size_t)width * sizeof *s);
        return 1.0f;
    }
    memset(s, 0, (size_t)a * sizeof *s);
    memset(s + b, 0, (size_t)(width - b) * sizeof *s);
    float m = *running_max;
#pragma omp simd reduction(max : m)
    for (int64_t l = a; l < b; l++)
        m = s[l] > m ? s[l] : m;
        /* Two loops: gcc does not vectorise the exponential inside a reduction. */
#pragma omp simd
    for (int64_t l = a; l < b; l++)
        s[l] = dpt_nn_expf(s[l] - m);
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t l = a; l < b; l++)
        sum += s[l];
    float shrink = dpt_nn_expf(*running_max - m);
    *running_sum = *running_sum * (double)shrink + (double)sum;
    *running_max = m;
    return shrink;
}

static void scale_row(int64_t n, float factor, float *x) {
#pragma omp simd
    for (int64_t c = 0; c < n; c++)
        x[c] *= factor;
}

/** Forward pass of the queries [i0, i1) of head j. */
static void forward_block(const dpt_attention_shape *s, int64_t j, int64_t i0, int64_t i1,
                          const float *q, const float *k, const float *v, float *o, float *lse,
                          float *score) {
    /* q, o: rows i0.. of head j; k, v: its kv head; score (i1-i0, KEYS) */
    float row_max[QUERIES];
    double row_sum[QUERIES];
    int64_t rows = i1 - i0;
    for (int64_t i = 0; i < rows; i++) {
        row_max[i] = -INFINITY;
        row_sum[i] = 0.0;
    }
    int64_t begin = first_key(s, i0), end = end_key(s, i1 - 1);
    for (int64_t l0 = begin; l0 < end; l0 += KEYS) {
        int64_t width = min64(KEYS, end - l0);
        gemm(false, true, rows, width, s->hd, s->scale, q, s->ldq, k + l0 * s->ldk, s->ldk, 0.0f,
             score, width);
        for (int64_t i = 0; i < rows; i++) {
            int64_t a = min64(width, max64(0, first_key(s, i0 + i) - l0));
            int64_t b = min64(width, end_key(s, i0 + i) - l0);
            float shrink = softmax_row(width, a, b, score + i * width, &row_max[i], &row_sum[i]);
            if (l0 > begin && shrink != 1.0f)
                scale_row(s->hd, shrink, o + i * s->ldo);
        }
        gemm(false, false, rows, s->hd, width, 1.0f, score, width, v + l0 * s->ldv, s->ldv,
             l0 > begin ? 1.0f : 0.0f, o, s->ldo);
    }
    for (int64_t i = 0; i < rows; i++) {
        scale_row(s->hd, (float)(1.0 / row_sum[i]), o + i * s->ldo);
        if (lse)
            lse[j * s->n + i0 + i] = (float)((double)row_max[i] + log(row_sum[i]));
    }
}

void dpt_nn_attention_forward(const dpt_attention_shape *shape, const float *q, const float *k,
                              const float *v, float *o, float *lse, float *scratch) {
    /* q (n,hq*hd), k (n,hkv*hd), v (n,hkv*hd), o (n,hq*hd), lse (hq,n) */
    const dpt_attention_shape *s = shape;
    int64_t blocks = (s->n + QUERIES - 1) / QUERIES, tasks = s->hq * blocks;
    int threads = thread_count(s, tasks);
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
    for (int64_t task = 0; task < tasks; task++) {
        /* The last query blocks see most keys: start with them. */
        int64_t j = task % s->hq, block = blocks - 1 - task / s->hq;
        int64_t i0 = block * QUERIES, i1 = min64(s->n, i0 + QUERIES), g = s->kv_of[j];
        float *score = scratch + (int64_t)omp_get_thread_num() * SLOT;
        forward_block(s, j, i0, i1, q + i0 * s->ldq + j * s->hd, k + g * s->hd, v + g * s->hd,
                      o + i0 * s->ldo + j * s->hd, lse, score);
    }
}

/** ds = p (dp - D) with p = exp(score - lse) on the visible part of a row, 0 elsewhere. */
static void backward_row(int64_t width, int64_t a, int64_t b, float lse, float row_dot, float *p,
                         float *dp) {
    a = min64(a, max64(0, b));
    b = max64(a, b);
    memset(p, 0, (size_t)a * sizeof *p);
    memset(dp, 0, (size_t)a * sizeof *dp);
#pragma omp simd
    for (int64_t l = a; l < b; l++) {
        p[l] = dpt_nn_expf(p[l] - lse);
        dp[l] = p[l] * (dp[l] - row_dot);
    }
    memset(p + b, 0, (size_t)(width - b) * sizeof *p);
    memset(dp + b, 0, (size_t)(width - b) * sizeof *dp);
}

static float dot_row(int64_t n, const float *a, const float *b) {
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < n; c++)
        sum += (double)a[c] * (double)b[c];
    return (float)sum;
}

/** Where the gradients of one kv head are summed. */
typedef struct {
    float *dk, *dv;
    int64_t lddk, lddv;
} kv_gradient;

/** Backward pass of the queries [i0, i1) of one head: writes dq, adds to dk and dv. */
static void backward_block(const dpt_attention_shape *s, int64_t i0, int64_t i1, const float *q,
                           const float *k, const float *v, const float *o, const float *lse,
                           const float *d_o, float *dq, kv_gradient to, float *scratch) {
    /* q, o, d_o, dq: rows i0.. of the head; lse: its entries i0..; k, v, to: its kv head */
    /* forward: s = scale q k^T, p = exp(s - lse), o = p v */
    float row_dot[QUERIES];
    float *p = scratch, *dp = scratch + QUERIES * KEYS;
    int64_t rows = i1 - i0, begin = first_key(s, i0), end = end_key(s, i1 - 1);
    for (int64_t i = 0; i < rows; i++)
        row_dot[i] = dot_row(s->hd, o + i * s->ldo, d_o + i * s->ldo);
    for (int64_t l0 = begin; l0 < end; l0 += KEYS) {
        int64_t width = min64(KEYS, end - l0);
        gemm(false, true, rows, width, s->hd, s->scale, q, s->ldq, k + l0 * s->ldk, s->ldk, 0.0f, p,
             width);
        gemm(false, true, rows, width, s->hd, 1.0f, d_o, s->ldo, v + l0 * s->ldv, s->ldv, 0.0f, dp,
             width);
        for (int64_t i = 0; i < rows; i++)
            backward_row(width, min64(width, max64(0, first_key(s, i0 + i) - l0)),
                         min64(width, end_key(s, i0 + i) - l0), lse[i], row_dot[i], p + i * width,
                         dp + i * width);
        gemm(true, false, width, s->hd, rows, 1.0f, p, width, d_o, s->ldo, 1.0f,
             to.dv + l0 * to.lddv, to.lddv);
        gemm(true, false, width, s->hd, rows, s->scale, dp, width, q, s->ldq, 1.0f,
             to.dk + l0 * to.lddk, to.lddk);
        gemm(false, false, rows, s->hd, width, s->scale, dp, width, k + l0 * s->ldk, s->ldk,
             l0 > begin ? 1.0f : 0.0f, dq, s->ldq);
    }
}

static void zero_rows(int64_t rows, int64_t n, float *x, int64_t ld) {
    for (int64_t i = 0; i < rows; i++)
        memset(x + i * ld, 0, (size_t)n * sizeof *x);
}

static void add_rows(int64_t rows, int64_t n, const float *from, float *to, int64_t ld) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < n; c++)
            to[i * ld + c] += from[i * n + c];
}

void dpt_nn_attention_backward(const dpt_attention_shape *shape, const float *q, const float *k,
                               const float *v, const float *o, const float *lse, const float *d_o,
                               float *dq, float *dk, float *dv, float *scratch) {
    /* q, dq, o, d_o (n,hq*hd), k, v, dk, dv (n,hkv*hd), lse (hq,n) */
    /* scratch: a slot per thread, then 2 (n,hd) for each part but the first of each kv head */
    const dpt_attention_shape *s = shape;
    int64_t parts = part_count(s), rows = s->n * s->hd;
    float *apart = scratch + max64(1, s->threads) * SLOT;
    int threads = thread_count(s, s->hkv * parts);
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
    for (int64_t task = 0; task < s->hkv * parts; task++) {
        int64_t g = task / parts, part = task % parts, seen = 0;
        float *slot = scratch + (int64_t)omp_get_thread_num() * SLOT;
        kv_gradient to = {dk + g * s->hd, dv + g * s->hd, s->ldk, s->ldv};
        if (part > 0) {
            float *own = apart + (g * (parts - 1) + part - 1) * 2 * rows;
            to = (kv_gradient){own, own + rows, s->hd, s->hd};
        }
        zero_rows(s->n, s->hd, to.dk, to.lddk);
        zero_rows(s->n, s->hd, to.dv, to.lddv);
        for (int64_t j = 0; j < s->hq; j++) {
            if (s->kv_of[j] != g || seen++ % parts != part)
                continue;
            for (int64_t i0 = 0; i0 < s->n; i0 += QUERIES) {
                int64_t i1 = min64(s->n, i0 + QUERIES);
                int64_t row = i0 * s->ldq + j * s->hd, orow = i0 * s->ldo + j * s->hd;
                backward_block(s, i0, i1, q + row, k + g * s->hd, v + g * s->hd, o + orow,
                               lse + j * s->n + i0, d_o + orow, dq + row, to, slot);
            }
        }
    }
    for (int64_t g = 0; g < s->hkv; g++)
        for (int64_t part = 1; part < parts; part++) {
            const float *own = apart + (g * (parts - 1) + part - 1) * 2 * rows;
            add_rows(s->n, s->hd, own, dk + g * s->hd, s->ldk);
            add_rows(s->n, s->hd, own + rows, dv + g * s->hd, s->ldv);
        }
}
