/** Blocks of queries and keys, of which attention is made: what a mask leaves of them, and their products. Private to
 * src/nn.
 *
 * Scores are formed by tiles of a few queries and keys; only those that a mask cuts have pairs that are not needed. A
 * panel of keys stays in the first cache while the tiles of a block of queries go over it; keys and values of a block,
 * copied once for all query heads that use them, stay in the second.
 */
#ifndef DELTAPATH_SRC_NN_ATTENTION_BLOCK_H
#define DELTAPATH_SRC_NN_ATTENTION_BLOCK_H

#include "deltapath/nn/attention.h"

#include <math.h>

#include "tile.h"
#include "vexp.h"

enum {
    LANES = DPT_TILE_LANES,
    EDGE = 8, /* zeros around the keys of a tile of queries: a tile of keys reaches less far */
    BLOCK_FORWARD = 256, /* most keys of a block */
    BLOCK_BACKWARD = 128,
    BLOCK_FLOATS_FORWARD = 32768, /* and most elements: blocks of wide heads are shorter */
    BLOCK_FLOATS_BACKWARD = 32768,
    BLOCK_LEAST = 32,
    ROWS = 72,       /* most queries of a head whose scores are held */
    HEADS = 8,       /* most query heads of a forward task */
    QUERIES = 128,   /* and most queries of each */
    TASK_ROWS = 512, /* of these rows together, as far as QUERIES_LEAST allows */
    QUERIES_LEAST = 32,
    GAP = DPT_TILE_GAP,
    PARALLEL_MIN = 1 << 15
};

static inline int64_t attention_min64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static inline int64_t attention_max64(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/** First key that query i sees. */
static inline int64_t attention_first_key(const dpt_attention_shape *s, int64_t i) {
    return s->causal && s->window > 0 ? attention_max64(0, i - s->window + 1) : 0;
}

/** One past the last key that query i sees. */
static inline int64_t attention_end_key(const dpt_attention_shape *s, int64_t i) {
    return s->causal ? i + 1 : s->n;
}

/** Keys, or columns of scores. */
typedef struct {
    int64_t a, b; /**< [a, b); empty when b <= a */
} attention_range;

/** Keys of the block [l0, l0 + width) that any of the queries [i0, i1) sees, counted from l0. */
static inline attention_range attention_keys(const dpt_attention_shape *s, int64_t l0,
                                             int64_t width, int64_t i0, int64_t i1) {
    return (attention_range){attention_max64(0, attention_first_key(s, i0) - l0),
                             attention_min64(width, attention_end_key(s, i1 - 1) - l0)};
}

/** Copies of a block of keys and of a block of queries of one head, and their scores. */
typedef struct {
    int64_t keys;           /**< most of them */
    int64_t ldt, ld, ldw;   /**< leading dimensions of kt and vt, of p and dp, of the others */
    float *kt, *vt;         /**< (hd, keys) */
    float *k, *v, *dk, *dv; /**< (keys, hd) */
    float *q, *d_o;         /**< (ROWS, hd) */
    float *p, *dp;          /**< (ROWS, keys), with EDGE elements before each row */
} attention_room;

/** Queries [i0, i0 + rows) of a head against keys [l0, l0 + width). */
typedef struct {
    const dpt_attention_shape *s;
    int64_t i0, rows, l0, width;
} attention_block;

/** Query heads of kv head g from head j on, at most `count`. */
typedef struct {
    int64_t g, j, count;
} attention_group;

/** Keys that the tile of queries at row r sees, and its rows. */
static inline attention_range attention_tile_keys(const attention_block *b, int64_t r,
                                                  int64_t *rows) {
    *rows = attention_min64(DPT_TILE_ROWS, b->rows - r);
    return attention_keys(b->s, b->l0, b->width, b->i0 + r, b->i0 + r + *rows);
}

/** Whether the tile at row r sees keys of blocks before this one. */
static inline bool attention_tile_began(const attention_block *b, int64_t r) {
    return attention_first_key(b->s, b->i0 + r) < b->l0;
}

/** Columns of whole vectors around the keys that a tile sees. */
static inline attention_range attention_whole_vectors(attention_range keys) {
    if (keys.b <= keys.a)
        return (attention_range){0, 0};
    return (attention_range){keys.a / LANES * LANES, dpt_tile_up(keys.b)};
}

/** Keys that row r sees, counted from column `from`. */
static inline attention_range attention_row_keys(const attention_block *b, int64_t r,
                                                 int64_t from) {
    attention_range keys = attention_keys(b->s, b->l0, b->width, b->i0 + r, b->i0 + r + 1);
    return (attention_range){keys.a - from, keys.b - from};
}

/** x[l] where a row sees key l, elsewhere -infinity. */
static inline float attention_visible_score(int l, int a, int b, float x) {
    return dpt_nn_select((l >= a) & (l < b), x, -INFINITY);
}

static inline int attention_threads(const dpt_attention_shape *s, int64_t tasks) {
    return (int)attention_max64(1, attention_min64(s->threads, tasks));
}

/** Floats of scratch of a thread. */
int64_t dpt_attention_room_floats(int64_t hd);

/** That of the calling thread, laid out for one of the passes. */
attention_room dpt_attention_room_of_thread(int64_t hd, bool backward, float *scratch);

/** Queries of a head that are taken at a time: equal parts of all of them, in whole tiles. */
int64_t dpt_attention_block_rows(int64_t n);

/** The heads that are taken together with head j, if it is the first of them; else none. */
attention_group dpt_attention_group_of(const dpt_attention_shape *s, int64_t j);

/** Queries of a task: enough rows to be worth the copies of keys and values, and enough tasks for the threads. */
int64_t dpt_attention_task_queries(const dpt_attention_shape *s);

/** out[r,l] = sum_c a[r,c] bt[c,l], in the tiles that have a visible pair. */
void dpt_attention_scores(const attention_block *b, const float *a, int64_t lda, const float *bt,
                          int64_t ldt, float *out, int64_t ld);

/** out[r,c] (+)= sum_l p[r,l] w[l,c] over the visible keys; what blocks before this one gave is added to. */
void dpt_attention_add_keys(const attention_block *b, const float *p, int64_t ld, const float *w,
                            int64_t ldw, float *out, int64_t ldout);

/** Scale and cap of n scores. @return the factor, above 0, that is left for the exponential to apply. */
float dpt_attention_finish_scores(const dpt_attention_shape *s, int64_t n, float *x);

#endif
