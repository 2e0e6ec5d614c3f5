/** Products of small matrices that lie in the cache, for which BLAS spends more on packing than on arithmetic, and
 * what brings matrices into the form that they take.
 */
#ifndef DELTAPATH_SRC_NN_TILE_H
#define DELTAPATH_SRC_NN_TILE_H

#include <stdbool.h>
#include <stdint.h>

#if defined(__AVX512F__)
enum { DPT_TILE_LANES = 16 };
#elif defined(__AVX__)
enum { DPT_TILE_LANES = 8 };
#else
enum { DPT_TILE_LANES = 4 };
#endif

/** A tile of at most so many rows and columns stays in registers: twelve vectors, two of the right factor and an
 * element of the left one are what 16 registers hold, twice as many 32. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define DPT_TILE_32_REGISTERS
enum { DPT_TILE_ROWS = 6, DPT_TILE_VECTORS = 4 };
#else
enum { DPT_TILE_ROWS = 6, DPT_TILE_VECTORS = 2 };
#endif
enum { DPT_TILE_COLUMNS = DPT_TILE_VECTORS * DPT_TILE_LANES };

/** Elements after each row of a packed matrix, that the rows of a column do not meet in the same sets of a cache. */
enum { DPT_TILE_GAP = 16 };

/** Elements of the right factor that stay in the first cache. */
enum { DPT_TILE_PANEL = 8192 };

/** Rows that are asked for ahead of the one that is read. */
enum { DPT_TILE_AHEAD = 4 };

/** x rounded up to whole vectors. */
static inline int64_t dpt_tile_up(int64_t x) {
    return (x + DPT_TILE_LANES - 1) / DPT_TILE_LANES * DPT_TILE_LANES;
}

/** Columns of the next tile of a product of K terms and n > 0 columns: few enough for these rows of the right factor
 * to stay in the first cache; with 32 registers no single vector is left, whose sums would wait for each other. */
static inline int64_t dpt_tile_next(int64_t K, int64_t n) {
    int64_t vectors = (n + DPT_TILE_LANES - 1) / DPT_TILE_LANES, most = DPT_TILE_VECTORS;
    if (K * most * DPT_TILE_LANES > DPT_TILE_PANEL)
        most = 2;
    if (vectors > most)
        vectors = vectors > most + 1 ? most : most < DPT_TILE_VECTORS ? most + 1 : (most + 2) / 2;
    return vectors * DPT_TILE_LANES < n ? vectors * DPT_TILE_LANES : n;
}

/** Factors of a product of K terms: element (m, k) of the left one at a[m * am + k * ak], row k of the right one,
 * with whole vectors of columns, at b + k * ldb. */
typedef struct {
    int64_t K;
    const float *a;
    int64_t am, ak;
    const float *b;
    int64_t ldb;
} dpt_tile_factors;

/** One tile: c[m,n] (+)= sum_k a(m,k) b(k,n), k from 0 up, in single precision.
 *
 * Local.
 * @param[in]     rows     1 to DPT_TILE_ROWS.
 * @param[in]     columns  1 to DPT_TILE_COLUMNS.
 * @param[in]     add      to c, or overwrite it.
 * @param[in,out] c        (rows, columns), leading dimension ldc.
 */
void dpt_tile_product(int64_t rows, int64_t columns, const dpt_tile_factors *f, bool add, float *c,
                      int64_t ldc);

/** Sum of whole vectors of x, each lane by itself first. Local. */
float dpt_tile_total(int64_t vectors, const float *x);

/** Asks for a row, which lies too far from the one before for the processor to expect it. Local. */
static inline void dpt_tile_prefetch(int64_t C, const float *x) {
    for (int64_t c = 0; c < C; c += DPT_TILE_GAP) /* a cache line */
        __builtin_prefetch(x + c);
}

/** Rows of x as rows of whole vectors: y[t,c] = x[t,c], 0 from column C on.
 *
 * Local.
 * @param[in]  x  (T, C), leading dimension ldx.
 * @param[out] y  (T, dpt_tile_up(C)), leading dimension ldy.
 */
void dpt_tile_copy(int64_t T, int64_t C, const float *x, int64_t ldx, float *y, int64_t ldy);

/** Rows of x as columns: y[c,t] = x[t,c], 0 from column T on.
 *
 * Local.
 * @param[in]  x  (T, C), leading dimension ldx.
 * @param[out] y  (C, dpt_tile_up(T)), leading dimension ldy.
 */
void dpt_tile_transpose(int64_t T, int64_t C, const float *x, int64_t ldx, float *y, int64_t ldy);

#endif
