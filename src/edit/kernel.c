#include "kernel.h"

#include "deltapath/linalg/reduce.h"

#ifdef __AVX512F__
#include <immintrin.h>
#endif
#include <math.h>
#include <string.h>

/* Vectors of 16 elements; the compiler splits them where registers are narrower, with the same
 * results. Squares are summed in 16 float lanes over one piece, then in double. A sum that is finite
 * says that every element was; one that is not, or so small that squares may have been lost, is
 * taken again in double. */
#pragma GCC diagnostic ignored "-Wpsabi" /* no vector crosses the border of this file */
enum { WIDTH = 16 };
typedef float floats __attribute__((vector_size(4 * WIDTH)));
typedef uint32_t words __attribute__((vector_size(4 * WIDTH)));
typedef int32_t ints __attribute__((vector_size(4 * WIDTH)));
typedef uint16_t halves __attribute__((vector_size(2 * WIDTH)));

static const double TINY = 1e-24, HUGE_SUM = 1e36;

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

static double fold(floats lanes) {
    double sum = 0.0;
    for (int l = 0; l < WIDTH; l++)
        sum += (double)lanes[l];
    return sum;
}

/* The kernels for one stored type; n is a multiple of WIDTH. */
#define DEFINE_KERNELS(type)                                                                       \
    static double delta_##type(const void *pre, const void *post, int64_t n, float *delta,         \
                               const void *out) {                                                  \
        floats sum = {0};                                                                          \
        for (int64_t i = 0; i < n; i += WIDTH) {                                                   \
            if (out != NULL)                                                                       \
                own_##type(out, i);                                                                \
            floats d = load_##type(post, i) - load_##type(pre, i);                                 \
            sum += d * d;                                                                          \
            store_f32(d, delta, i);                                                                \
        }                                                                                          \
        return fold(sum);                                                                          \
    }                                                                                              \
    static double out_##type(const void *pre, const void *post, int64_t n, float *delta,           \
                             void *out, int64_t *changed) {                                        \
        floats sum = {0};                                                                          \
        ints count = {0};                                                                          \
        for (int64_t i = 0; i < n; i += WIDTH) {                                                   \
            fetch_##type(pre, i + n);                                                              \
            fetch_##type(post, i + n);                                                             \
            floats edited = load_##type(pre, i) + load_f32(delta, i);                              \
            floats e = store_##type(edited, out, i) - load_##type(post, i);                        \
            sum += e * e;                                                                          \
            count -= (ints)(e != 0.0f);                                                            \
            store_f32(e, delta, i);                                                                \
        }                                                                                          \
        for (int l = 0; l < WIDTH; l++)                                                            \
            *changed += count[l];                                                                  \
        return fold(sum);                                                                          \
    }

DEFINE_KERNELS(f32)
DEFINE_KERNELS(bf16)

/* The sum in double where the one in float cannot be trusted; false when it is not finite. */
static bool settle(double *sum, const float *x, int64_t n) {
    if (*sum > TINY && *sum < HUGE_SUM)
        return true;
    *sum = dpt_reduce_square(x, n);
    return isfinite(*sum);
}

static void delta_any(dpt_edit_types types, const char *pre, const char *post, int64_t n,
                      float *delta, float *spare) {
    dpt_dtype_to_f32(types.pre, pre, spare, n);
    dpt_dtype_to_f32(types.post, post, delta, n);
    for (int64_t i = 0; i < n; i++)
        delta[i] -= spare[i];
}

bool dpt_edit_kernel_delta(dpt_edit_types types, const void *pre, const void *post, int64_t n,
                           float *delta, float *spare, double *square, const void *out) {
    int64_t whole = n / WIDTH * WIDTH;
    double sum = 0.0;
    if (types.pre != types.post)
        whole = 0;
    else if (types.pre == DPT_BF16)
        sum = delta_bf16(pre, post, whole, delta, out);
    else if (types.pre == DPT_F32)
        sum = delta_f32(pre, post, whole, delta, out);
    else
        whole = 0;
    if (whole < n) {
        delta_any(types, (const char *)pre + whole * dpt_dtype_size(types.pre),
                  (const char *)post + whole * dpt_dtype_size(types.post), n - whole, delta + whole,
                  spare);
        sum += dpt_reduce_square(delta + whole, n - whole);
    }
    bool good = settle(&sum, delta, n);
    if (square != NULL)
        *square = sum;
    return good;
}

/* Leaves E in delta. */
static void out_any(dpt_edit_types types, const char *pre, const char *post, int64_t n,
                    float *delta, char *out, float *spare, int64_t *changed) {
    float *stored = spare, *after = spare + n;
    dpt_dtype_to_f32(types.pre, pre, stored, n);
    for (int64_t i = 0; i < n; i++)
        delta[i] = stored[i] + delta[i];
    dpt_dtype_from_f32(types.out, delta, out, n);
    dpt_dtype_to_f32(types.out, out, stored, n);
    dpt_dtype_to_f32(types.post, post, after, n);
    int count = 0;
    for (int i = 0; i < (int)n; i++) {
        delta[i] = stored[i] - after[i];
        count += delta[i] != 0.0f;
    }
    *changed += count;
}

bool dpt_edit_kernel_store(dpt_edit_types types, const void *pre, const void *post, int64_t n,
                           float *delta, void *out, float *spare, double *square,
                           int64_t *changed) {
    int64_t whole = n / WIDTH * WIDTH;
    double sum = 0.0;
    *changed = 0;
    if (types.pre != types.post || types.out != types.post)
        whole = 0;
    else if (types.pre == DPT_BF16)
        sum = out_bf16(pre, post, whole, delta, out, changed);
    else if (types.pre == DPT_F32)
        sum = out_f32(pre, post, whole, delta, out, changed);
    else
        whole = 0;
    if (whole < n) {
        out_any(types, (const char *)pre + whole * dpt_dtype_size(types.pre),
                (const char *)post + whole * dpt_dtype_size(types.post), n - whole, delta + whole,
                (char *)out + whole * dpt_dtype_size(types.out), spare, changed);
        sum += dpt_reduce_square(delta + whole, n - whole);
    }
    bool good = settle(&sum, delta, n);
    *square = sum;
    return good;
}
