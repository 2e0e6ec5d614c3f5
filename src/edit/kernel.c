#include "kernel.h"

#include "lanes.h"

#include "deltapath/linalg/reduce.h"

#include <math.h>

/* What is counted besides the squares. Rounding is monotone, so where W_post itself can be stored it never turns the
 * sign of E. */
typedef struct kernel_counts {
    int64_t changed, lost;
    double size, kept; /* abs(E) before it is rounded, and E with the sign of that */
} kernel_counts;

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
        return horizontal_sum(sum);                                                                \
    }                                                                                              \
    static double out_##type(const void *pre, const void *post, int64_t n, float *delta,           \
                             void *out, kernel_counts *counts) {                                   \
        floats sum = {0}, whole = {0}, along = {0};                                                \
        ints count = {0};                                                                          \
        for (int64_t i = 0; i < n; i += WIDTH) {                                                   \
            fetch_##type(pre, i + n);                                                              \
            fetch_##type(post, i + n);                                                             \
            floats before = load_##type(pre, i), after = load_##type(post, i);                     \
            floats edited = before + load_f32(delta, i), exact = edited - after;                   \
            floats e = store_##type(edited, out, i) - after;                                       \
            sum += e * e;                                                                          \
            whole += lanes_size(exact);                                                            \
            along += lanes_size(e);                                                                \
            count -= (ints)(e != 0.0f);                                                            \
            store_f32(e, delta, i);                                                                \
        }                                                                                          \
        for (int l = 0; l < WIDTH; l++)                                                            \
            counts->changed += count[l];                                                           \
        counts->size = horizontal_sum(whole);                                                      \
        counts->kept = horizontal_sum(along);                                                      \
        return horizontal_sum(sum);                                                                \
    }

DEFINE_KERNELS(f32)
DEFINE_KERNELS(bf16)

/* The sum in double where the one in float cannot be trusted; false when it is not finite. */
static bool settle(double *sum, const float *x, int64_t n) {
    if (trusted(*sum))
        return true;
    *sum = dpt_reduce_square(x, n);
    return isfinite(*sum);
}

typedef float floats8 __attribute__((vector_size(32)));
typedef double doubles __attribute__((vector_size(64)));

/* Magnitudes of 16 floats, added in double to 8 lanes, the lower ones first. */
static inline doubles add_abs(doubles lanes, floats x) {
    floats size = lanes_size(x);
    floats8 low = __builtin_shufflevector(size, size, 0, 1, 2, 3, 4, 5, 6, 7);
    floats8 high = __builtin_shufflevector(size, size, 8, 9, 10, 11, 12, 13, 14, 15);
    lanes += __builtin_convertvector(low, doubles);
    return lanes + __builtin_convertvector(high, doubles);
}

double dpt_edit_kernel_abs(const uint16_t *pre, const uint16_t *post, int64_t n, double *zeros) {
    doubles even = {0}, odd = {0}; /* of the 16 lanes of dpt_reduce_abs */
    ints others = {0};             /* that are not 0 */
    for (int64_t i = 0; i < n; i += DPT_EDIT_UNIT) {
        words before, after;
        memcpy(&before, pre + i, sizeof before);
        memcpy(&after, post + i, sizeof after);
        floats low = (floats)(after << 16) - (floats)(before << 16);
        floats high = (floats)(after & HIGH_HALF) - (floats)(before & HIGH_HALF);
        even = add_abs(even, low);
        odd = add_abs(odd, high);
        others = count_changed(count_changed(others, low), high);
    }
    *zeros = (double)n;
    for (int l = 0; l < WIDTH; l++)
        *zeros -= (double)others[l];
    for (int half = 4; half > 0; half /= 2)
        for (int l = 0; l < half; l++) {
            even[l] += even[l + half];
            odd[l] += odd[l + half];
        }
    return even[0] + odd[0];
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
                    float *delta, char *out, float *spare, kernel_counts *counts) {
    float *stored = spare, *after = spare + n;
    dpt_dtype_to_f32(types.pre, pre, stored, n);
    for (int64_t i = 0; i < n; i++)
        delta[i] = stored[i] + delta[i];
    dpt_dtype_from_f32(types.out, delta, out, n);
    if (types.out != types.post)
        counts->lost = dpt_dtype_count_lost(types.out, delta, out, n);
    dpt_dtype_to_f32(types.out, out, stored, n);
    dpt_dtype_to_f32(types.post, post, after, n);
    int changed = 0;
    for (int i = 0; i < (int)n; i++) {
        float exact = delta[i] - after[i];
        delta[i] = stored[i] - after[i];
        changed += delta[i] != 0.0f;
        counts->size += fabs((double)exact);
        counts->kept += signbit(exact) ? -(double)delta[i] : (double)delta[i];
    }
    counts->changed += changed;
}

bool dpt_edit_kernel_store(dpt_edit_types types, const void *pre, const void *post, int64_t n,
                           float *delta, void *out, float *spare, double sums[DPT_EDIT_SUMS]) {
    int64_t whole = n / WIDTH * WIDTH;
    kernel_counts counts = {.changed = 0};
    double sum = 0.0;
    if (types.pre != types.post || types.out != types.post)
        whole = 0;
    else if (types.pre == DPT_BF16)
        sum = out_bf16(pre, post, whole, delta, out, &counts);
    else if (types.pre == DPT_F32)
        sum = out_f32(pre, post, whole, delta, out, &counts);
    else
        whole = 0;
    if (whole < n) {
        out_any(types, (const char *)pre + whole * dpt_dtype_size(types.pre),
                (const char *)post + whole * dpt_dtype_size(types.post), n - whole, delta + whole,
                (char *)out + whole * dpt_dtype_size(types.out), spare, &counts);
        sum += dpt_reduce_square(delta + whole, n - whole);
    }
    bool good = settle(&sum, delta, n);
    sums[DPT_EDIT_SUM_EDIT] = sum;
    sums[DPT_EDIT_SUM_CHANGED] = (double)counts.changed;
    sums[DPT_EDIT_SUM_LOST] = (double)counts.lost;
    sums[DPT_EDIT_SUM_SIZE] = counts.size;
    sums[DPT_EDIT_SUM_KEPT] = counts.kept;
    return good;
}
