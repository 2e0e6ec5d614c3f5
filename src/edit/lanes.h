#ifndef DELTAPATH_SRC_EDIT_LANES_H
#define DELTAPATH_SRC_EDIT_LANES_H

/* Vectors of the kernels. Private to src/edit. */

#include <stdint.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

/* Vectors of 16 elements; the compiler splits them where registers are narrower, with the same
 * results. Squares are summed in float lanes over one piece, then in double. A sum that is finite says
 * that every element was; one that is not, or so small that squares may have been lost, is not
 * trusted. */
#pragma GCC diagnostic ignored "-Wpsabi" /* no vector crosses the border of this file */
enum { WIDTH = 16 };
typedef float floats __attribute__((vector_size(4 * WIDTH)));
typedef uint32_t words __attribute__((vector_size(4 * WIDTH)));
typedef int32_t ints __attribute__((vector_size(4 * WIDTH)));
typedef uint16_t halves __attribute__((vector_size(2 * WIDTH)));

static inline floats load_f32(const void *stored, int64_t i) {
    floats x;
    memcpy(&x, (const float *)stored + i, sizeof x);
    return x;
}

#ifdef __AVX512F__ /* one instruction each, which the compiler does not find by itself */
static inline words extend(halves x) {
    return (words)_mm512_cvtepu16_epi32((__m256i)x);
}

static inline halves narrow(words x) {
    return (halves)_mm512_cvtepi32_epi16((__m512i)x);
}
#else
static inline words extend(halves x) {
    return __builtin_convertvector(x, words);
}

static inline halves narrow(words x) {
    return __builtin_convertvector(x, halves);
}
#endif

/* Where a bit is set, b; elsewhere a. */
static inline floats choose(uint64_t bits, floats a, floats b) {
#ifdef __AVX512F__
    return (floats)_mm512_mask_blend_ps((__mmask16)bits, (__m512)a, (__m512)b);
#else
    static const words shift = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    words set = -((words){0} + (uint32_t)(bits & 0xffff) >> shift & 1);
    return (floats)(((words)a & ~set) | ((words)b & set));
#endif
}

static inline floats widen(halves x) {
    return (floats)(extend(x) << 16);
}

static inline floats load_bf16(const void *stored, int64_t i) {
    halves x;
    memcpy(&x, (const uint16_t *)stored + i, sizeof x);
    return widen(x);
}

/* Ask for the next piece while this one is worked on: the three streams of an edit are short runs that
 * the hardware sees too late. A fetch beyond the end of a block does nothing. */
static inline void fetch_f32(const void *stored, int64_t i) {
    __builtin_prefetch((const float *)stored + i);
}

static inline void fetch_bf16(const void *stored, int64_t i) {
    __builtin_prefetch((const uint16_t *)stored + i);
}

static inline void own_f32(const void *stored, int64_t i) {
    __builtin_prefetch((const float *)stored + i, 1);
}

static inline void own_bf16(const void *stored, int64_t i) {
    __builtin_prefetch((const uint16_t *)stored + i, 1);
}

static inline floats store_f32(floats x, void *out, int64_t i) {
    memcpy((float *)out + i, &x, sizeof x);
    return x;
}

/* As dpt_dtype_from_f32 for values that are not NaN; what was stored, widened. */
static inline floats store_bf16(floats x, void *out, int64_t i) {
    words bits = (words)x;
    words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    halves codes = narrow(rounded);
    memcpy((uint16_t *)out + i, &codes, sizeof codes);
    return (floats)(rounded << 16);
}

static inline double fold(floats lanes) {
    double sum = 0.0;
    for (int l = 0; l < WIDTH; l++)
        sum += (double)lanes[l];
    return sum;
}

/* Whether a sum of squares in float lanes can be trusted. */
static inline int trusted(double sum) {
    return sum > 1e-24 && sum < 1e36;
}

#endif
