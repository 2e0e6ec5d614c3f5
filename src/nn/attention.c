#include "attention_block.h"

#include <omp.h>

size_t dpt_nn_attention_scratch(const dpt_attention_shape *shape) {
    return (size_t)attention_max64(1, shape->threads) *
           (size_t)dpt_attention_room_floats(shape->hd);
}

/** The largest of whole vectors of scores, of which the row sees `keys`; the others become -infinity. */
static float visible_maximum(attention_range keys, int n, float *x) {
    int a = (int)attention_max64(0, keys.a), b = (int)attention_min64(n, keys.b);
    float m = -INFINITY;
#pragma omp simd reduction(max : m)
    for (int l = 0; l < n; l++) {
        x[l] = attention_visible_score(l, a, b, x[l]);
        m = x[l] > m ? x[l] : m;
    }
    return m;
}

static void attention_scale_row(int64_t n, float factor, float *x) {
#pragma omp simd
    for (int64_t c = 0; c < n; c++)
        x[c] *= factor;
}

/** Softmax of a tile of `rows` queries at row r, of whole vectors v, against the running maximum of each: exp(score -
 * new maximum), 0 where a row does not see. One step for all rows after the other, that they need not wait for each
 * other. @param[out] shrink  (rows) factors by which what was summed before must shrink. */
static void softmax_tile(const attention_block *b, int64_t r, int64_t rows, attention_range v,
                         float *x, int64_t ld, float *row_max, double *row_sum, float *shrink) {
    int n = (int)((v.b - v.a) / LANES) * LANES;
    float scale[DPT_TILE_ROWS], shift[DPT_TILE_ROWS];
    for (int64_t i = 0; i < rows; i++) {
        attention_range keys = attention_row_keys(b, r + i, v.a);
        scale[i] = dpt_attention_finish_scores(b->s, n, x + i * ld);
        float before = row_max[i], m = visible_maximum(keys, n, x + i * ld);
        m = keys.a < keys.b ? m * scale[i] : before;
        row_max[i] = before > m ? before : m;
        shift[i] = row_max[i] == -INFINITY ? 0.0f : row_max[i]; /* of a row that sees nothing yet */
        shrink[i] = before == row_max[i] ? 1.0f : before == -INFINITY ? 0.0f : before - row_max[i];
    }
    for (int64_t i = 0; i < rows; i++) {
        float *row = x + i * ld, factor = scale[i], m = shift[i];
#pragma omp simd
        for (int l = 0; l < n; l++)
            row[l] = dpt_nn_expf(dpt_nn_fma(row[l], factor, -m));
    }
    for (int64_t i = 0; i < rows; i++) {
        if (shrink[i] < 0.0f)
            shrink[i] = dpt_nn_expf(shrink[i]);
        row_sum[i] = row_sum[i] * (double)shrink[i] + (double)dpt_tile_total(n / LANES, x + i * ld);
    }
}

/** Arguments of a forward pass, shaped as in dpt_nn_attention_forward. */
typedef struct {
    const dpt_attention_shape *s;
    const float *q, *k, *v;
    float *o, *lse;
} forward_call;

/** Running maximum and sum of the rows of a task. */
typedef struct {
    float max[HEADS * QUERIES];
    double sum[HEADS * QUERIES];
} softmax_state;

/** Adds a block of keys, which r holds, to the output of a block of queries of head j. */
static void forward_block(const forward_call *call, const attention_block *b, int64_t j,
                          const attention_room *r, float *row_max, double *row_sum) {
    const dpt_attention_shape *s = b->s;
    const float *q = call->q + b->i0 * s->ldq + j * s->hd;
    float *o = call->o + b->i0 * s->ldo + j * s->hd;
    for (int64_t i = 0; i < b->rows; i++)
        dpt_tile_prefetch(s->hd, q + i * s->ldq);
    dpt_attention_scores(b, q, s->ldq, r->kt, r->ldt, r->p, r->ld);
    for (int64_t t = 0, rows; t < b->rows; t += DPT_TILE_ROWS) {
        attention_range v = attention_whole_vectors(attention_tile_keys(b, t, &rows));
        float shrink[DPT_TILE_ROWS];
        if (v.b <= v.a)
            continue;
        softmax_tile(b, t, rows, v, r->p + t * r->ld + v.a, r->ld, row_max + t, row_sum + t,
                     shrink);
        for (int64_t i = 0; i < rows && attention_tile_began(b, t); i++)
            if (shrink[i] != 1.0f)
                attention_scale_row(s->hd, shrink[i], o + (t + i) * s->ldo);
    }
    dpt_attention_add_keys(b, r->p, r->ld, r->v, r->ldw, o, s->ldo);
}

static void forward_finish(const forward_call *call, int64_t j, int64_t i0, int64_t i1,
                           const float *row_max, const double *row_sum) {
    const dpt_attention_shape *s = call->s;
    for (int64_t i = i0; i < i1; i++) {
        attention_scale_row(s->hd, (float)(1.0 / row_sum[i - i0]),
                            call->o + i * s->ldo + j * s->hd);
        if (call->lse)
            call->lse[j * s->n + i] = (float)((double)row_max[i - i0] + log(row_sum[i - i0]));
    }
}

/** Forward pass of the queries [i0, i1) of some heads that share a kv head. */
static void forward_task(const forward_call *call, attention_group of, int64_t i0, int64_t i1,
                         const attention_room *r) {
    const dpt_attention_shape *s = call->s;
    softmax_state state;
    int64_t step = dpt_attention_block_rows(i1 - i0), end = attention_end_key(s, i1 - 1), h = 0;
    for (int64_t i = 0; i < of.count * QUERIES; i++) {
        state.max[i] = -INFINITY;
        state.sum[i] = 0.0;
    }
    for (int64_t l0 = attention_first_key(s, i0) / r->keys * r->keys; l0 < end; l0 += r->keys) {
        attention_block b = {s, i0, 0, l0, attention_min64(r->keys, end - l0)};
        dpt_tile_transpose(b.width, s->hd, call->k + l0 * s->ldk + of.g * s->hd, s->ldk, r->kt,
                           r->ldt);
        dpt_tile_copy(b.width, s->hd, call->v + l0 * s->ldv + of.g * s->hd, s->ldv, r->v, r->ldw);
        h = 0;
        for (int64_t j = of.j; h < of.count; j++) {
            if (s->kv_of[j] != of.g)
                continue;
            for (b.i0 = i0; b.i0 < i1; b.i0 += step) {
                b.rows = attention_min64(step, i1 - b.i0);
                attention_range keys = attention_keys(s, l0, b.width, b.i0, b.i0 + b.rows);
                if (keys.a < keys.b)
                    forward_block(call, &b, j, r, state.max + h * QUERIES + b.i0 - i0,
                                  state.sum + h * QUERIES + b.i0 - i0);
            }
            h++;
        }
    }
    h = 0;
    for (int64_t j = of.j; h < of.count; j++)
        if (s->kv_of[j] == of.g) {
            forward_finish(call, j, i0, i1, state.max + h * QUERIES, state.sum + h * QUERIES);
            h++;
        }
}

void dpt_nn_attention_forward(const dpt_attention_shape *shape, const float *q, const float *k,
                              const float *v, float *o, float *lse, float *scratch) {
    /* q (n,hq*hd), k (n,hkv*hd), v (n,hkv*hd), o (n,hq*hd), lse (hq,n) */
    const dpt_attention_shape *s = shape;
    const forward_call call = {s, q, k, v, o, lse};
    int64_t rows = dpt_attention_task_queries(s), blocks = (s->n + rows - 1) / rows,
            tasks = s->hq * blocks;
    int threads = attention_threads(s, tasks);
    /* No `if`: clang's OpenMP would keep the number of threads for the next region, one of OpenBLAS. */
#pragma omp parallel num_threads(threads)
    {
        const attention_room room = dpt_attention_room_of_thread(s->hd, false, scratch);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < tasks; task++) {
            /* The last query blocks see most keys: start with them. */
            int64_t i0 = (blocks - 1 - task / s->hq) * rows;
            attention_group of = dpt_attention_group_of(s, task % s->hq);
            if (of.count > 0)
                forward_task(&call, of, i0, attention_min64(s->n, i0 + rows), &room);
        }
    }
}

static float dot_row(int64_t n, const float *a, const float *b) {
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < n; c++)
        sum += (double)a[c] * (double)b[c];
    return (float)sum;
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
            attention_scale_row(hd, (float)share, o + i * ldo + j * hd);
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
