#include "deltapath/nn/attention.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "vexp.h"
#include "gemm.h"

enum { QUERIES = 64, KEYS = 512, SLOT = 2 * QUERIES * KEYS, PARALLEL_MIN = 1 << 15 };

static int64_t attention_min64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t attention_max64(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/** First key that query i sees. */
static int64_t first_key(const dpt_attention_shape *s, int64_t i) {
    return s->causal && s->window > 0 ? attention_max64(0, i - s->window + 1) : 0;
}

/** One past the last key that query i sees. */
static int64_t end_key(const dpt_attention_shape *s, int64_t i) {
    return s->causal ? i + 1 : s->n;
}

static int thread_count(const dpt_attention_shape *s, int64_t tasks) {
    return (int)attention_max64(1, attention_min64(s->threads, tasks));
}

size_t dpt_nn_attention_scratch(const dpt_attention_shape *shape) {
    return (size_t)attention_max64(1, shape->threads) * (size_t)SLOT;
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

/** s = cap tanh(s / cap) on the visible part [a, b) of a row. */
static void cap_row(int64_t a, int64_t b, float cap, float *s) {
#pragma omp simd
    for (int64_t l = a; l < b; l++)
        s[l] = cap * dpt_nn_tanhf(s[l] / cap);
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
        int64_t width = attention_min64(KEYS, end - l0);
        gemm(false, true, rows, width, s->hd, s->scale, q, s->ldq, k + l0 * s->ldk, s->ldk, 0.0f,
             score, width);
        for (int64_t i = 0; i < rows; i++) {
            int64_t a = attention_min64(width, attention_max64(0, first_key(s, i0 + i) - l0));
            int64_t b = attention_min64(width, end_key(s, i0 + i) - l0);
            if (s->cap > 0.0f)
                cap_row(a, b, s->cap, score + i * width);
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
    /* No `if`: clang's OpenMP would keep the number of threads for the next region, one of OpenBLAS. */
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int64_t task = 0; task < tasks; task++) {
        /* The last query blocks see most keys: start with them. */
        int64_t j = task % s->hq, block = blocks - 1 - task / s->hq;
        int64_t i0 = block * QUERIES, i1 = attention_min64(s->n, i0 + QUERIES), g = s->kv_of[j];
        float *score = scratch + (int64_t)omp_get_thread_num() * SLOT;
        forward_block(s, j, i0, i1, q + i0 * s->ldq + j * s->hd, k + g * s->hd, v + g * s->hd,
                      o + i0 * s->ldo + j * s->hd, lse, score);
    }
}

/** forward: s = cap tanh(z / cap). On the visible part [a, b) of a row: s (z in, s out), and dp becomes
 * (dp - D) ds/dz. */
static void cap_row_backward(int64_t a, int64_t b, float cap, float row_dot, float *s, float *dp) {
#pragma omp simd
    for (int64_t l = a; l < b; l++) {
        float th = dpt_nn_tanhf(s[l] / cap);
        s[l] = cap * th;
        dp[l] = (dp[l] - row_dot) * ((1.0f - th) * (1.0f + th));
    }
}

/** ds = p (dp - D) with p = exp(score - lse) on the visible part of a row, 0 elsewhere. */
static void backward_row(int64_t width, int64_t a, int64_t b, float cap, float lse, float row_dot,
                         float *p, float *dp) {
    a = attention_min64(a, attention_max64(0, b));
    b = attention_max64(a, b);
    if (cap > 0.0f) {
        cap_row_backward(a, b, cap, row_dot, p, dp);
        row_dot = 0.0f;
    }
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

/** Arguments of a backward pass, shaped as in dpt_nn_attention_backward. */
typedef struct {
    const dpt_attention_shape *s;
    const float *q, *k, *v, *o, *lse, *d_o;
    float *dq, *dk, *dv;
} backward_call;

enum { WANT_DQ = 1, WANT_DKV = 2 };

/** Backward pass of head j for the queries from i0 of one block and the keys [lo, hi): adds to dk
 * and dv, writes dq if this call sees all the keys; want says which of them. */
static void backward_block(const backward_call *call, int64_t j, int64_t i0, int64_t lo, int64_t hi,
                           int want, float *scratch) {
    /* p, dp (rows, width); q, d_o, dq: (rows, hd) of the head; k, v, dk, dv: of its kv head */
    /* forward: s = scale q k^T, or cap tanh(of it / cap), p = exp(s - lse), o = p v */
    const dpt_attention_shape *s = call->s;
    int64_t hd = s->hd, g = s->kv_of[j], i1 = attention_min64(s->n, i0 + QUERIES), rows = i1 - i0;
    int64_t row = i0 * s->ldq + j * hd, orow = i0 * s->ldo + j * hd;
    int64_t begin = attention_max64(lo, first_key(s, i0)),
            end = attention_min64(hi, end_key(s, i1 - 1));
    const float *q = call->q + row, *d_o = call->d_o + orow, *lse = call->lse + j * s->n + i0;
    float row_dot[QUERIES], *p = scratch, *dp = scratch + QUERIES * KEYS;
    for (int64_t i = 0; i < rows && begin < end; i++)
        row_dot[i] = dot_row(hd, call->o + orow + i * s->ldo, d_o + i * s->ldo);
    for (int64_t l0 = begin; l0 < end; l0 += KEYS) {
        int64_t width = attention_min64(KEYS, end - l0);
        int64_t krow = l0 * s->ldk + g * hd, vrow = l0 * s->ldv + g * hd;
        gemm(false, true, rows, width, hd, s->scale, q, s->ldq, call->k + krow, s->ldk, 0.0f, p,
             width);
        gemm(false, true, rows, width, hd, 1.0f, d_o, s->ldo, call->v + vrow, s->ldv, 0.0f, dp,
             width);
        for (int64_t i = 0; i < rows; i++)
            backward_row(width,
                         attention_min64(width, attention_max64(0, first_key(s, i0 + i) - l0)),
                         attention_min64(width, end_key(s, i0 + i) - l0), s->cap, lse[i],
                         row_dot[i], p + i * width, dp + i * width);
        if (want & WANT_DKV) {
            gemm(true, false, width, hd, rows, 1.0f, p, width, d_o, s->ldo, 1.0f, call->dv + vrow,
                 s->ldv);
            gemm(true, false, width, hd, rows, s->scale, dp, width, q, s->ldq, 1.0f,
                 call->dk + krow, s->ldk);
        }
        if (want & WANT_DQ)
            gemm(false, false, rows, hd, width, s->scale, dp, width, call->k + krow, s->ldk,
                 l0 > begin ? 1.0f : 0.0f, call->dq + row, s->ldq);
    }
}

/** Backward pass of the keys [lo, hi) of kv head g with all the query heads of its group. */
static void backward_keys(const backward_call *call, int64_t g, int64_t lo, int64_t hi, int want,
                          float *scratch) {
    const dpt_attention_shape *s = call->s;
    for (int64_t l = lo; l < hi; l++) {
        memset(call->dk + l * s->ldk + g * s->hd, 0, (size_t)s->hd * sizeof(float));
        memset(call->dv + l * s->ldv + g * s->hd, 0, (size_t)s->hd * sizeof(float));
    }
    for (int64_t j = 0; j < s->hq; j++)
        for (int64_t i0 = 0; i0 < s->n && s->kv_of[j] == g; i0 += QUERIES)
            backward_block(call, j, i0, lo, hi, want, scratch);
}

/** Backward pass with more threads than kv heads: the probabilities are computed twice, once by
 * blocks of queries for dq and once by ranges of keys for dk and dv, so that no two threads add to
 * the same place. */
static void backward_twice(const backward_call *call, float *scratch) {
    const dpt_attention_shape *s = call->s;
    int64_t blocks = (s->n + QUERIES - 1) / QUERIES;
    /* Two ranges a thread even out the causal mask, under which early keys have more queries. */
    int64_t range =
        attention_max64(QUERIES, attention_min64(KEYS, s->n * s->hkv / (2 * s->threads)));
    int64_t ranges = (s->n + range - 1) / range;
#pragma omp parallel num_threads(s->threads)
    {
        float *slot = scratch + (int64_t)omp_get_thread_num() * SLOT;
#pragma omp for schedule(dynamic) nowait
        for (int64_t task = 0; task < s->hkv * ranges; task++) {
            int64_t g = task % s->hkv, lo = task / s->hkv * range;
            backward_keys(call, g, lo, attention_min64(s->n, lo + range), WANT_DKV, slot);
        }
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < s->hq * blocks; task++)
            backward_block(call, task % s->hq, (blocks - 1 - task / s->hq) * QUERIES, 0, s->n,
                           WANT_DQ, slot);
    }
}

void dpt_nn_attention_backward(const dpt_attention_shape *shape, const float *q, const float *k,
                               const float *v, const float *o, const float *lse, const float *d_o,
                               float *dq, float *dk, float *dv, float *scratch) {
    /* q, dq, o, d_o (n,hq*hd), k, v, dk, dv (n,hkv*hd), lse (hq,n) */
    const dpt_attention_shape *s = shape;
    const backward_call call = {s, q, k, v, o, lse, d_o, dq, dk, dv};
    int threads = thread_count(s, s->hkv);
    if (s->threads > s->hkv && s->hkv > 0 && s->n > QUERIES) {
        backward_twice(&call, scratch);
        return;
    }
    /* Query heads of a group add to the same dk and dv, so a group belongs to one thread. */
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int64_t g = 0; g < s->hkv; g++)
        backward_keys(&call, g, 0, s->n, WANT_DQ | WANT_DKV,
                      scratch + (int64_t)omp_get_thread_num() * SLOT);
}

void dpt_nn_attention_sink_forward(int64_t n, int64_t hq, int64_t hd, const float *sink, float *o,
                                   int64_t ldo, float *lse) {
    /* sink (hq), o (n,hq*hd), lse (hq,n) */
#pragma omp parallel for schedule(static) if (n * hq * hd >= PARALLEL_MIN)
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < hq; j++) {
            double gap = (double)sink[j] - (double)lse[j * n + i];
            /* share = sig(-gap), and log(1 + exp gap) without overflow */
            double share = 1.0 / (1.0 + exp(gap));
            lse[j * n + i] += (float)(fmax(gap, 0.0) + log1p(exp(-fabs(gap))));
            scale_row(hd, (float)share, o + i * ldo + j * hd);
        }
}

void dpt_nn_attention_sink_backward(int64_t n, int64_t hq, int64_t hd, const float *sink,
                                    const float *o, const float *d_o, int64_t ldo, const float *lse,
                                    float *d, int64_t ldd) {
    /* sink (hq), o, d_o (n,hq*hd), lse (hq,n), d (n,hq) */
    /* forward: o = sum_l exp(s[l] - lse) v[l], lse = log(sum_l exp s[l] + exp sink) */
#pragma omp parallel for schedule(static) if (n * hq * hd >= PARALLEL_MIN)
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < hq; j++) {
            int64_t at = i * ldo + j * hd;
            d[i * ldd + j] = -dpt_nn_expf(sink[j] - lse[j * n + i]) * dot_row(hd, o + at, d_o + at);
        }
}
