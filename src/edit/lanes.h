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

static inline halves lanes_low_half(words x) {
    return (halves)_mm512_cvtepi32_epi16((__m512i)x);
}
#else
static inline words extend(halves x) {
    return __builtin_convertvector(x, words);
}

static inline halves lanes_low_half(words x) {
    return __builtin_convertvector(x, halves);
}
#endif

/* Where a bit of the lane is set, b; elsewhere a. */
static inline floats where_bit(uint32_t bits, words lane, floats a, floats b) {
#ifdef __AVX512F__
    __mmask16 set = _mm512_test_epi32_mask(_mm512_set1_epi32((int)bits), (__m512i)lane);
    return (floats)_mm512_mask_blend_ps(set, (__m512)a, (__m512)b);
#else
    words set = (words)((((words){0} + bits) & lane) != 0);
    return (floats)(((words)a & ~set) | ((words)b & set));
#endif
}

/* a b where a bit of the lane is clear; 0 elsewhere. */
static inline floats times_where_clear(uint32_t bits, words lane, floats a, floats b) {
#ifdef __AVX512F__
    __mmask16 clear = _mm512_testn_epi32_mask(_mm512_set1_epi32((int)bits), (__m512i)lane);
    return (floats)_mm512_maskz_mul_ps(clear, (__m512)a, (__m512)b);
#else
    words clear = (words)((((words){0} + bits) & lane) == 0);
    return (floats)((words)(a * b) & clear);
#endif
}

/* Where x is negative, b; elsewhere a. */
static inline floats where_negative(floats x, floats a, floats b) {
#ifdef __AVX512F__
    __mmask16 set = _mm512_cmp_ps_mask((__m512)x, _mm512_setzero_ps(), _CMP_LT_OQ);
    return (floats)_mm512_mask_blend_ps(set, (__m512)a, (__m512)b);
#else
    words set = (words)(x < 0.0f);
    return (floats)(((words)a & ~set) | ((words)b & set));
#endif
}

/* x where the bits of its magnitude, as an integer, are above the cut; 0 elsewhere. */
static inline floats where_larger(floats x, ints cut) {
    ints size = (ints)((words)x & 0x7fffffff);
#ifdef __AVX512F__
    __mmask16 set = _mm512_cmpgt_epi32_mask((__m512i)size, (__m512i)cut);
    return (floats)_mm512_maskz_mov_ps(set, (__m512)x);
#else
    return (floats)((words)x & (words)(size > cut));
#endif
}

/* size where x > 0, -size where x < 0, 0 where x is. */
static inline floats with_sign(floats size, floats x) {
    words signed_size = (words)size ^ ((words)x & 0x80000000);
#ifdef __AVX512F__
    __mmask16 set = _mm512_cmp_ps_mask((__m512)x, _mm512_setzero_ps(), _CMP_NEQ_UQ);
    return (floats)_mm512_maskz_mov_ps(set, (__m512)(floats)signed_size);
#else
    return (floats)(signed_size & (words)(x != 0.0f));
#endif
}

/* Adds 1 in each lane that is not 0. */
static inline ints count_changed(ints count, floats x) {
#ifdef __AVX512F__
    __mmask16 set = _mm512_cmp_ps_mask((__m512)x, _mm512_setzero_ps(), _CMP_NEQ_UQ);
    return (ints)_mm512_mask_sub_epi32((__m512i)count, set, (__m512i)count, _mm512_set1_epi32(-1));
#else
    return count - (ints)(x != 0.0f);
#endif
}

/* sum + x x, for statistics: fused where the processor can. */
static inline floats add_square(floats sum, floats x) {
#ifdef __AVX512F__
    return (floats)_mm512_fmadd_ps((__m512)x, (__m512)x, (__m512)sum);
#else
    return sum + x * x;
#endif
}

/* abs(x). */
static inline floats lanes_size(floats x) {
    return (floats)((words)x & 0x7fffffff);
}

/* The high halves of words hold bf16 numbers, or the odd ones of a run. */
static const uint32_t HIGH_HALF = 0xffff0000;

/* As dpt_dtype_from_f32 to bf16 for values that are not NaN, and widened again. */
static inline words round_bf16(floats x) {
    words bits = (words)x;
#ifdef __AVX512F__
    const __m512i half = _mm512_add_epi32((__m512i)bits, _mm512_set1_epi32(0x7fff));
    __mmask16 odd = _mm512_test_epi32_mask((__m512i)bits, _mm512_set1_epi32(0x10000));
    return (words)_mm512_mask_sub_epi32(half, odd, half, _mm512_set1_epi32(-1)) & HIGH_HALF;
#else
    return (bits + 0x7fff + (bits >> 16 & 1)) & HIGH_HALF;
#endif
}

static inline floats lanes_to_f32(halves x) {
    return (floats)(extend(x) << 16);
}

static inline floats load_bf16(const void *stored, int64_t i) {
    halves x;
    memcpy(&x, (const uint16_t *)stored + i, sizeof x);
    return lanes_to_f32(x);
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

/* Returns what was stored, widened. */
static inline floats store_bf16(floats x, void *out, int64_t i) {
    words rounded = round_bf16(x);
    halves codes = lanes_low_half(rounded >> 16);
    memcpy((uint16_t *)out + i, &codes, sizeof codes);
    return (floats)rounded;
}

static inline double horizontal_sum(floats lanes) {
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
