#include "attention_block.h"

#include <omp.h>
#include <string.h>

/** One past the last query that sees key l. */
static int64_t end_query(const dpt_attention_shape *s, int64_t l) {
    return s->causal && s->window > 0 ? attention_min64(s->n, l + s->window) : s->n;
}

/** out[l,c] += sum_r p[r,l] w[r,c] over the queries that see any key of a tile. */
static void add_queries(const attention_block *b, const float *p, int64_t ld, const float *w,
                        int64_t ldw, float *out, int64_t ldout) {
    /* p (rows,width), w (rows,hd), out (width,hd) */
    for (int64_t c = 0, next; c < b->s->hd; c += next) {
        next = dpt_tile_next(b->rows, b->s->hd - c);
        for (int64_t l = 0; l < b->width; l += DPT_TILE_ROWS) {
            int64_t keys = attention_min64(DPT_TILE_ROWS, b->width - l);
            int64_t begin = b->s->causal ? attention_max64(0, b->l0 + l - b->i0) : 0;
            int64_t end = attention_min64(b->rows, end_query(b->s, b->l0 + l + keys - 1) - b->i0);
            if (end <= begin)
                continue;
            const dpt_tile_factors f = {end - begin, p + begin * ld + l,  1,
                                        ld,          w + begin * ldw + c, ldw};
            dpt_tile_product(keys, next, &f, true, out + l * ldout + c, ldout);
        }
    }
}

/** forward: s = cap tanh(z / cap). dp becomes (dp - D) ds/dz of n elements. */
static void slope_row(int64_t n, const dpt_attention_shape *s, float row_dot, const float *z,
                      float *dp) {
    float scale = s->scale, cap = s->cap;
#pragma omp simd
    for (int64_t l = 0; l < n; l++) {
        float th = dpt_nn_tanhf(z[l] * scale / cap);
        dp[l] = (dp[l] - row_dot) * ((1.0f - th) * (1.0f + th));
    }
}

/** Of whole vectors of a row, which sees `keys` of them: p = exp(score - lse) from q.k, and ds = p (dp - D) scale in
 * place of dp; 0 where it does not see, and on both sides, where tiles of keys reach. */
static void backward_row(const dpt_attention_shape *s, attention_range keys, int64_t vectors,
                         float lse, float row_dot, float *p, float *dp) {
    int n = (int)vectors * LANES, a = (int)attention_max64(0, keys.a);
    int b = (int)attention_min64(n, keys.b);
    if (s->cap > 0.0f) {
        slope_row(n, s, row_dot, p, dp);
        row_dot = 0.0f;
    }
    float scale = dpt_attention_finish_scores(s, n, p), outer = s->scale;
#pragma omp simd
    for (int l = 0; l < n; l++) {
        p[l] = dpt_nn_expf(dpt_nn_fma(attention_visible_score(l, a, b, p[l]), scale, -lse));
        dp[l] = p[l] * (dp[l] - row_dot) * outer;
    }
    float *edges[] = {p - EDGE, p + n, dp - EDGE, dp + n};
    for (int i = 0; i < 4; i++)
        memset(edges[i], 0, EDGE * sizeof *p);
}

/** D of each row. */
static void backward_dots(int64_t rows, int64_t hd, const float *o, int64_t ldo, const float *d_o,
                          int64_t ldw, float *dots) {
    for (int64_t i = 0; i < rows; i++) {
        const float *a = o + i * ldo, *b = d_o + i * ldw;
        float sum = 0.0f;
        if (i + DPT_TILE_AHEAD < rows)
            dpt_tile_prefetch(hd, a + DPT_TILE_AHEAD * ldo);
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < hd; c++)
            sum += a[c] * b[c];
        dots[i] = sum;
    }
}

/** Arguments of a backward pass, shaped as in dpt_nn_attention_backward. */
typedef struct {
    const dpt_attention_shape *s;
    const float *q, *k, *v, *o, *lse, *d_o;
    float *dq, *dk, *dv;
} backward_call;

enum { WANT_DQ = 1, WANT_DKV = 2 };

/** Backward pass of a block of queries of head j and a block of keys, which r holds: adds to its dk and dv,
 * and to dq. */
static void backward_block(const backward_call *call, const attention_block *b, int64_t j, int want,
                           const attention_room *r) {
    /* forward: s = scale q k^T, or cap tanh(of it / cap), p = exp(s - lse), o = p v */
    const dpt_attention_shape *s = b->s;
    int64_t hd = s->hd, row = b->i0 * s->ldq + j * hd;
    int64_t orow = b->i0 * s->ldo + j * hd;
    const float *o = call->o + orow, *d_o = call->d_o + orow, *lse = call->lse + j * s->n + b->i0;
    float dots[ROWS];
    dpt_tile_copy(b->rows, hd, call->q + row, s->ldq, r->q, r->ldw);
    dpt_tile_copy(b->rows, hd, d_o, s->ldo, r->d_o, r->ldw);
    backward_dots(b->rows, hd, o, s->ldo, r->d_o, r->ldw, dots);
    dpt_attention_scores(b, r->q, r->ldw, r->kt, r->ldt, r->p, r->ld);
    dpt_attention_scores(b, r->d_o, r->ldw, r->vt, r->ldt, r->dp, r->ld);
    for (int64_t i = 0; i < b->rows; i++) {
        int64_t rows, tile = i / DPT_TILE_ROWS * DPT_TILE_ROWS;
        attention_range v = attention_whole_vectors(attention_tile_keys(b, tile, &rows));
        if (v.a < v.b)
            backward_row(s, attention_row_keys(b, i, v.a), (v.b - v.a) / LANES, lse[i], dots[i],
                         r->p + i * r->ld + v.a, r->dp + i * r->ld + v.a);
    }
    if (want & WANT_DKV) {
        add_queries(b, r->p, r->ld, r->d_o, r->ldw, r->dv, r->ldw);
        add_queries(b, r->dp, r->ld, r->q, r->ldw, r->dk, r->ldw);
    }
    if (want & WANT_DQ)
        dpt_attention_add_keys(b, r->dp, r->ld, r->k, r->ldw, call->dq + row, s->ldq);
}

/** Brings in the keys of a block and their values, and clears their gradients. */
static void backward_load(const backward_call *call, const attention_block *b, int64_t g,
                          const attention_room *r) {
    const dpt_attention_shape *s = b->s;
    const float *k = call->k + b->l0 * s->ldk + g * s->hd;
    const float *v = call->v + b->l0 * s->ldv + g * s->hd;
    size_t bytes = (size_t)(b->width * r->ldw) * sizeof(float);
    dpt_tile_transpose(b->width, s->hd, k, s->ldk, r->kt, r->ldt);
    dpt_tile_transpose(b->width, s->hd, v, s->ldv, r->vt, r->ldt);
    dpt_tile_copy(b->width, s->hd, k, s->ldk, r->k, r->ldw);
    memset(r->dk, 0, bytes);
    memset(r->dv, 0, bytes);
}

static void backward_store(const backward_call *call, const attention_block *b, int64_t g,
                           const attention_room *r) {
    const dpt_attention_shape *s = b->s;
    float *dk = call->dk + b->l0 * s->ldk + g * s->hd;
    float *dv = call->dv + b->l0 * s->ldv + g * s->hd;
    size_t bytes = (size_t)s->hd * sizeof(float);
    for (int64_t l = 0; l < b->width; l++) {
        memcpy(dk + l * s->ldk, r->dk + l * r->ldw, bytes);
        memcpy(dv + l * s->ldv, r->dv + l * r->ldw, bytes);
    }
}

/** Backward pass of the queries [i0, i1) of some heads of a group and the keys [lo, hi). Writes dq if it is wanted,
 * for which these are all keys; dk and dv, for which those are all queries and heads. */
static void backward_range(const backward_call *call, attention_group of, int64_t i0, int64_t i1,
                           int64_t lo, int64_t hi, int want, const attention_room *r) {
    const dpt_attention_shape *s = call->s;
    int64_t step = dpt_attention_block_rows(i1 - i0);
    for (int64_t l0 = lo; l0 < hi; l0 += r->keys) {
        attention_block b = {s, i0, 0, l0, attention_min64(r->keys, hi - l0)};
        attention_range keys = attention_keys(s, l0, b.width, i0, i1);
        if (keys.b <= keys.a)
            continue;
        backward_load(call, &b, of.g, r);
        for (b.i0 = i0; b.i0 < i1; b.i0 += step) { /* rows of all heads lie together */
            b.rows = attention_min64(step, i1 - b.i0);
            keys = attention_keys(s, l0, b.width, b.i0, b.i0 + b.rows);
            for (int64_t j = of.j, h = 0; keys.a < keys.b && j < s->hq && h < of.count; j++)
                if (s->kv_of[j] == of.g) {
                    backward_block(call, &b, j, want, r);
                    h++;
                }
        }
        if (want & WANT_DKV)
            backward_store(call, &b, of.g, r);
    }
}

/** Backward pass of the keys [lo, hi) of kv head g with all the query heads of its group. */
static void backward_keys(const backward_call *call, int64_t g, int64_t lo, int64_t hi, int want,
                          const attention_room *r) {
    backward_range(call, (attention_group){g, 0, call->s->hq}, 0, call->s->n, lo, hi, want, r);
}

/** Backward pass with more threads than kv heads: the probabilities are computed twice, once by
 * blocks of queries for dq and once by ranges of keys for dk and dv, so that no two threads add to
 * the same place. */
static void backward_twice(const backward_call *call, float *scratch) {
    const dpt_attention_shape *s = call->s;
    int64_t rows = dpt_attention_task_queries(s), blocks = (s->n + rows - 1) / rows;
    /* Two ranges a thread even out the causal mask, under which early keys have more queries. */
    int64_t range = attention_max64(
        BLOCK_LEAST, attention_min64(BLOCK_BACKWARD, s->n * s->hkv / (2 * s->threads)));
    int64_t ranges = (s->n + range - 1) / range;
#pragma omp parallel num_threads(s->threads)
    {
        const attention_room room = dpt_attention_room_of_thread(s->hd, true, scratch);
#pragma omp for schedule(dynamic) nowait
        for (int64_t task = 0; task < s->hkv * ranges; task++) {
            int64_t g = task % s->hkv, lo = task / s->hkv * range;
            backward_keys(call, g, lo, attention_min64(s->n, lo + range), WANT_DKV, &room);
        }
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < s->hq * blocks; task++) {
            int64_t i0 = (blocks - 1 - task / s->hq) * rows;
            backward_range(call, dpt_attention_group_of(s, task % s->hq), i0,
                           attention_min64(s->n, i0 + rows), 0, s->n, WANT_DQ, &room);
        }
    }
}

void dpt_nn_attention_backward(const dpt_attention_shape *shape, const float *q, const float *k,
                               const float *v, const float *o, const float *lse, const float *d_o,
                               float *dq, float *dk, float *dv, float *scratch) {
    /* q, dq, o, d_o (n,hq*hd), k, v, dk, dv (n,hkv*hd), lse (hq,n) */
    const dpt_attention_shape *s = shape;
    const backward_call call = {s, q, k, v, o, lse, d_o, dq, dk, dv};
    int threads = attention_threads(s, s->hkv);
    if (s->threads > s->hkv && s->hkv > 0 && s->n > QUERIES_LEAST) {
        backward_twice(&call, scratch);
        return;
    }
    /* Query heads of a group add to the same dk and dv, so a group belongs to one thread. */
#pragma omp parallel num_threads(threads)
    {
        const attention_room room = dpt_attention_room_of_thread(s->hd, true, scratch);
#pragma omp for schedule(dynamic)
        for (int64_t g = 0; g < s->hkv; g++)
            backward_keys(&call, g, 0, s->n, WANT_DQ | WANT_DKV, &room);
    }
}
