#include "attention_block.h"

#include <omp.h>

static int64_t block_keys(int64_t hd, int64_t floats, int64_t most) {
    int64_t keys = floats / attention_max64(1, dpt_tile_up(hd)) / BLOCK_LEAST * BLOCK_LEAST;
    return attention_min64(most, attention_max64(BLOCK_LEAST, keys));
}

int64_t dpt_attention_block_rows(int64_t n) {
    int64_t parts = (n + ROWS - 1) / ROWS, rows = (n + parts - 1) / attention_max64(1, parts);
    return attention_max64(DPT_TILE_ROWS,
                           (rows + DPT_TILE_ROWS - 1) / DPT_TILE_ROWS * DPT_TILE_ROWS);
}

/** The next rows x ld elements of scratch, from `skip` on; NULL while they are only counted. */
static float *room_take(float *base, int64_t *used, int64_t rows, int64_t ld, int64_t skip) {
    float *at = base != NULL ? base + *used + skip : NULL;
    *used += (rows * ld + GAP - 1) / GAP * GAP;
    return at;
}

/** Lays out scratch from base, which may be NULL; @return the floats. */
static int64_t room_of(int64_t hd, bool backward, float *base, attention_room *r) {
    int64_t used = 0;
    r->keys = backward ? block_keys(hd, BLOCK_FLOATS_BACKWARD, BLOCK_BACKWARD)
                       : block_keys(hd, BLOCK_FLOATS_FORWARD, BLOCK_FORWARD);
    r->ldt = r->keys + GAP;
    r->ld = r->keys + 3 * GAP; /* two edges, and an odd number of cache lines */
    r->ldw = dpt_tile_up(hd) + GAP;
    r->kt = room_take(base, &used, hd, r->ldt, 0);
    r->p = room_take(base, &used, ROWS, r->ld, EDGE);
    if (!backward) {
        r->v = room_take(base, &used, r->keys, r->ldw, 0);
        return used;
    }
    r->vt = room_take(base, &used, hd, r->ldt, 0);
    r->k = room_take(base, &used, r->keys, r->ldw, 0);
    r->dk = room_take(base, &used, r->keys, r->ldw, 0);
    r->dv = room_take(base, &used, r->keys, r->ldw, 0);
    r->q = room_take(base, &used, ROWS, r->ldw, 0);
    r->d_o = room_take(base, &used, ROWS, r->ldw, 0);
    r->dp = room_take(base, &used, ROWS, r->ld, EDGE);
    return used;
}

int64_t dpt_attention_room_floats(int64_t hd) {
    attention_room r;
    return attention_max64(room_of(hd, false, NULL, &r), room_of(hd, true, NULL, &r));
}

attention_room dpt_attention_room_of_thread(int64_t hd, bool backward, float *scratch) {
    attention_room r = {.keys = 0};
    room_of(hd, backward, scratch + omp_get_thread_num() * dpt_attention_room_floats(hd), &r);
    return r;
}

attention_group dpt_attention_group_of(const dpt_attention_shape *s, int64_t j) {
    attention_group of = {s->kv_of[j], j, 0};
    int64_t before = 0;
    for (int64_t i = 0; i < j; i++)
        before += s->kv_of[i] == of.g;
    if (before % HEADS != 0)
        return of;
    for (int64_t i = j; i < s->hq && of.count < HEADS; i++)
        of.count += s->kv_of[i] == of.g;
    return of;
}

int64_t dpt_attention_task_queries(const dpt_attention_shape *s) {
    int64_t group = attention_min64(HEADS, s->hq / attention_max64(1, s->hkv));
    int64_t rows = attention_min64(QUERIES, TASK_ROWS / attention_max64(1, group));
    while (rows > QUERIES_LEAST && s->hkv * ((s->n + rows - 1) / rows) < 2 * (int64_t)s->threads)
        rows /= 2;
    return rows;
}

void dpt_attention_scores(const attention_block *b, const float *a, int64_t lda, const float *bt,
                          int64_t ldt, float *out, int64_t ld) {
    /* a (rows,hd), bt (hd,width), out (rows,width) */
    for (int64_t l = 0, next; l < b->width; l += next) {
        next = dpt_tile_next(b->s->hd, b->width - l);
        for (int64_t r = 0, rows; r < b->rows; r += DPT_TILE_ROWS) {
            attention_range keys = attention_tile_keys(b, r, &rows);
            int64_t begin = attention_max64(l, keys.a / LANES * LANES);
            int64_t end = attention_min64(dpt_tile_up(l + next), dpt_tile_up(keys.b));
            if (keys.b <= keys.a || end <= begin)
                continue;
            const dpt_tile_factors f = {b->s->hd, a + r * lda, lda, 1, bt + begin, ldt};
            dpt_tile_product(rows, end - begin, &f, false, out + r * ld + begin, ld);
        }
    }
}

void dpt_attention_add_keys(const attention_block *b, const float *p, int64_t ld, const float *w,
                            int64_t ldw, float *out, int64_t ldout) {
    /* p (rows,width), w (width,hd), out (rows,hd) */
    for (int64_t c = 0, next; c < b->s->hd; c += next) {
        next = dpt_tile_next(b->width, b->s->hd - c);
        for (int64_t r = 0, rows; r < b->rows; r += DPT_TILE_ROWS) {
            attention_range keys = attention_tile_keys(b, r, &rows);
            if (keys.b <= keys.a)
                continue;
            const dpt_tile_factors f = {
                keys.b - keys.a, p + r * ld + keys.a, ld, 1, w + keys.a * ldw + c, ldw};
            dpt_tile_product(rows, next, &f, attention_tile_began(b, r), out + r * ldout + c,
                             ldout);
        }
    }
}

float dpt_attention_finish_scores(const dpt_attention_shape *s, int64_t n, float *x) {
    float scale = s->scale, cap = s->cap;
    if (cap > 0.0f) {
#pragma omp simd
        for (int64_t l = 0; l < n; l++)
            x[l] = cap * dpt_nn_tanhf(x[l] * scale / cap);
        return 1.0f;
    }
    if (scale > 0.0f)
        return scale; /* which keeps the maximum where it is, and -infinity */
#pragma omp simd
    for (int64_t l = 0; l < n; l++)
        x[l] *= scale;
    return 1.0f;
}
