#include "tile.h"

#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "vexp.h"

#define TILE_INLINE static inline __attribute__((always_inline))

enum { LANES = DPT_TILE_LANES, QUAD = 4 };

typedef float tile_vector __attribute__((vector_size(LANES * sizeof(float))));
typedef float tile_quad __attribute__((vector_size(QUAD * sizeof(float))));

TILE_INLINE tile_vector tile_load(const float *x) {
    tile_vector v;
    memcpy(&v, x, sizeof v);
    return v;
}

TILE_INLINE void tile_store(tile_vector v, float *x) {
    memcpy(x, &v, sizeof v);
}

/** a b + c of each lane: one instruction, which the compiler makes of the loop. */
TILE_INLINE tile_vector tile_fma(float a, tile_vector b, tile_vector c) {
#ifdef __AVX512F__ /* where it takes registers half as wide by itself */
    return (tile_vector)_mm512_fmadd_ps(_mm512_set1_ps(a), (__m512)b, (__m512)c);
#else
    for (int i = 0; i < LANES; i++)
        c[i] = dpt_nn_fma(a, b[i], c[i]);
    return c;
#endif
}

/** The tile with constants for rows, vectors and add: its sums stay in registers. */
TILE_INLINE void tile_sum(const int rows, const int vectors, const bool add,
                          const dpt_tile_factors *f, float *c, int64_t ldc) {
    tile_vector sum[DPT_TILE_ROWS][DPT_TILE_VECTORS];
    const float *a = f->a, *b = f->b;
    const int64_t am = f->am, ak = f->ak, ldb = f->ldb;
#pragma GCC unroll 6
    for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
        for (int n = 0; n < vectors; n++)
            sum[m][n] = add ? tile_load(c + m * ldc + n * LANES) : (tile_vector){0};
    for (int64_t k = 0; k < f->K; k++, a += ak, b += ldb) {
        tile_vector row[DPT_TILE_VECTORS];
#pragma GCC unroll 4
        for (int n = 0; n < vectors; n++)
            row[n] = tile_load(b + n * LANES);
#pragma GCC unroll 6
        for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
            for (int n = 0; n < vectors; n++)
                sum[m][n] = tile_fma(a[m * am], row[n], sum[m][n]);
    }
#pragma GCC unroll 6
    for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
        for (int n = 0; n < vectors; n++)
            tile_store(sum[m][n], c + m * ldc + n * LANES);
}

#ifdef DPT_TILE_32_REGISTERS
#define TILE_WIDE(ROWS, ADD)                                                                       \
    case 3:                                                                                        \
        tile_sum(ROWS, 3, ADD, f, c, ldc);                                                         \
        break;                                                                                     \
    case 4:                                                                                        \
        tile_sum(ROWS, 4, ADD, f, c, ldc);                                                         \
        break;
#else
#define TILE_WIDE(ROWS, ADD)
#endif

#define TILE_CASE(ROWS, ADD)                                                                       \
    case ROWS:                                                                                     \
        switch (vectors) {                                                                         \
        case 1:                                                                                    \
            tile_sum(ROWS, 1, ADD, f, c, ldc);                                                     \
            break;                                                                                 \
        case 2:                                                                                    \
            tile_sum(ROWS, 2, ADD, f, c, ldc);                                                     \
            break;                                                                                 \
            TILE_WIDE(ROWS, ADD)                                                                   \
        }                                                                                          \
        break;

#define TILE_CASES(ADD)                                                                            \
    TILE_CASE(1, ADD)                                                                              \
    TILE_CASE(2, ADD)                                                                              \
    TILE_CASE(3, ADD)                                                                              \
    TILE_CASE(4, ADD)                                                                              \
    TILE_CASE(5, ADD)                                                                              \
    TILE_CASE(6, ADD)

static void tile_vectors(int64_t rows, int64_t vectors, const dpt_tile_factors *f, bool add,
                         float *c, int64_t ldc) {
    if (add) {
        switch (rows) { TILE_CASES(true) }
    } else {
        switch (rows) { TILE_CASES(false) }
    }
}

void dpt_tile_product(int64_t rows, int64_t columns, const dpt_tile_factors *f, bool add, float *c,
                      int64_t ldc) {
    /* a (rows,K), b (K,columns), c (rows,columns) */
    float whole[DPT_TILE_ROWS][DPT_TILE_COLUMNS];
    int64_t vectors = (columns + LANES - 1) / LANES;
    if (columns % LANES == 0) {
        tile_vectors(rows, vectors, f, add, c, ldc);
        return;
    }
    tile_vectors(rows, vectors, f, false, whole[0], DPT_TILE_COLUMNS);
    for (int64_t m = 0; m < rows; m++)
        for (int64_t n = 0; n < columns; n++)
            c[m * ldc + n] = add ? c[m * ldc + n] + whole[m][n] : whole[m][n];
}

float dpt_tile_total(int64_t vectors, const float *x) {
    tile_vector sum = {0};
    tile_quad part[LANES / QUAD];
    for (int64_t i = 0; i < vectors; i++)
        sum += tile_load(x + i * LANES);
    memcpy(part, &sum, sizeof part);
    for (int i = 1; i < LANES / QUAD; i++)
        part[0] += part[i];
    return part[0][0] + part[0][1] + (part[0][2] + part[0][3]);
}

void dpt_tile_copy(int64_t T, int64_t C, const float *x, int64_t ldx, float *y, int64_t ldy) {
    /* x (T,C), y (T,up(C)) */
    int64_t whole = C / LANES * LANES, up = dpt_tile_up(C);
    for (int64_t t = 0; t < T; t++) {
        if (t + DPT_TILE_AHEAD < T)
            dpt_tile_prefetch(C, x + (t + DPT_TILE_AHEAD) * ldx);
        for (int64_t c = 0; c < whole; c += LANES)
            tile_store(tile_load(x + t * ldx + c), y + t * ldy + c);
        for (int64_t c = whole; c < up; c++)
            y[t * ldy + c] = c < C ? x[t * ldx + c] : 0.0f;
    }
}

TILE_INLINE tile_quad quad_load(const float *x) {
    tile_quad v;
    memcpy(&v, x, sizeof v);
    return v;
}

TILE_INLINE tile_quad quad_low(tile_quad a, tile_quad b) {
    return __builtin_shufflevector(a, b, 0, 4, 1, 5);
}

TILE_INLINE tile_quad quad_high(tile_quad a, tile_quad b) {
    return __builtin_shufflevector(a, b, 2, 6, 3, 7);
}

/** y[c,t] = x[t,c] of four rows and columns. */
TILE_INLINE void quad_transpose(const float *x, int64_t ldx, float *y, int64_t ldy) {
    tile_quad a = quad_load(x), b = quad_load(x + ldx);
    tile_quad c = quad_load(x + 2 * ldx), d = quad_load(x + 3 * ldx);
    tile_quad ac = quad_low(a, c), bd = quad_low(b, d);
    tile_quad out[QUAD] = {quad_low(ac, bd), quad_high(ac, bd)};
    ac = quad_high(a, c);
    bd = quad_high(b, d);
    out[2] = quad_low(ac, bd);
    out[3] = quad_high(ac, bd);
    for (int i = 0; i < QUAD; i++)
        memcpy(y + i * ldy, &out[i], sizeof out[i]);
}

void dpt_tile_transpose(int64_t T, int64_t C, const float *x, int64_t ldx, float *y, int64_t ldy) {
    /* x (T,C), y (C,up(T)) */
    int64_t whole_t = T / QUAD * QUAD, whole_c = C / QUAD * QUAD;
    for (int64_t t = 0; t < whole_t; t += QUAD) {
        for (int64_t i = t + QUAD; i < t + 2 * QUAD && i < T; i++)
            dpt_tile_prefetch(C, x + i * ldx);
        for (int64_t c = 0; c < whole_c; c += QUAD)
            quad_transpose(x + t * ldx + c, ldx, y + c * ldy + t, ldy);
    }
    for (int64_t c = 0; c < C; c++) {
        for (int64_t t = c < whole_c ? whole_t : 0; t < T; t++)
            y[c * ldy + t] = x[t * ldx + c];
        memset(y + c * ldy + T, 0, (size_t)(dpt_tile_up(T) - T) * sizeof *y);
    }
}
