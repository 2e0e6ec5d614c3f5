#include "deltapath/nn/mlp.h"

#include <math.h>
#include <stdbool.h>

#include "verf.h"
#include "vexp.h"

enum { PARALLEL_MIN = 1 << 15, PIECE = 1 << 12 };

/* sqrt(2/pi) and sqrt(1/2) */
static const float root_2_over_pi = 0.797884561f, root_half = 0.707106781f;
static const float quick_slope = 1.702f;

/** Calls LOOP with each kind as a constant, so that the loop of each is vectorised without a branch. */
#define MLP_DISPATCH(KIND, LOOP, ...)                                                              \
    switch (KIND) {                                                                                \
    case DPT_ACT_SILU:                                                                             \
        LOOP(DPT_ACT_SILU, __VA_ARGS__);                                                           \
        break;                                                                                     \
    case DPT_ACT_GELU:                                                                             \
        LOOP(DPT_ACT_GELU, __VA_ARGS__);                                                           \
        break;                                                                                     \
    case DPT_ACT_GELU_TANH:                                                                        \
        LOOP(DPT_ACT_GELU_TANH, __VA_ARGS__);                                                      \
        break;                                                                                     \
    case DPT_ACT_QUICK_GELU:                                                                       \
        LOOP(DPT_ACT_QUICK_GELU, __VA_ARGS__);                                                     \
        break;                                                                                     \
    case DPT_ACT_CLAMPED_SWIGLU:                                                                   \
        LOOP(DPT_ACT_CLAMPED_SWIGLU, __VA_ARGS__);                                                 \
        break;                                                                                     \
    }

#define MLP_INLINE static inline __attribute__((always_inline))

typedef struct {
    float y, slope; /**< act(x), act'(x) */
} mlp_value;

/** x sig(z), given sig = sig(z) and z'(x). */
MLP_INLINE mlp_value value_of_gate(float x, float z, float dz) {
    float sig = 1.0f / (1.0f + dpt_nn_expf(-z));
    return (mlp_value){x * sig, sig + x * sig * (1.0f - sig) * dz};
}

MLP_INLINE mlp_value value_of(dpt_act_kind kind, float x) {
    switch (kind) {
    case DPT_ACT_SILU:
        return value_of_gate(x, x, 1.0f);
    case DPT_ACT_GELU: { /* x Phi(x) */
        float below = 0.5f * (1.0f + dpt_nn_erff(x * root_half));
        float density = 0.5f * root_2_over_pi * dpt_nn_expf(-0.5f * x * x);
        return (mlp_value){x * below, below + x * density};
    }
    case DPT_ACT_GELU_TANH: /* (1 + tanh a)/2 = sig(2a) */
        return value_of_gate(x, 2.0f * root_2_over_pi * (x + 0.044715f * x * x * x),
                             2.0f * root_2_over_pi * (1.0f + 3.0f * 0.044715f * x * x));
    case DPT_ACT_QUICK_GELU:
    case DPT_ACT_CLAMPED_SWIGLU: /* its gate, once this is clamped */
        break;
    }
    return value_of_gate(x, quick_slope * x, quick_slope);
}

#ifdef __AVX512F__
enum { GELU_STEP = 256 }; /* values of Phi that wait for the density */

/** Phi(x) */
static inline __m512 gelu_below(__m512 x) {
    const __m512 half = _mm512_set1_ps(0.5f), root = _mm512_set1_ps(root_half);
    return _mm512_fmadd_ps(half, dpt_nn_erf16(_mm512_mul_ps(x, root)), half);
}

static inline __mmask16 gelu_lanes(int64_t left) {
    return (__mmask16)((UINT32_C(1) << (left < 16 ? left : 16)) - 1);
}

/** x Phi(x) */
static void gelu_forward(int64_t n, const float *x, float *y) {
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 own = gelu_lanes(n - i);
        __m512 v = _mm512_maskz_loadu_ps(own, x + i);
        _mm512_mask_storeu_ps(y + i, own, _mm512_mul_ps(v, gelu_below(v)));
    }
}

/** dy (Phi(x) + x Phi'(x)) */
static void gelu_backward(int64_t n, const float *dy, const float *x, float *dx) {
    float below[GELU_STEP];
    for (int64_t at = 0; at < n; at += GELU_STEP) {
        int64_t step = n - at < GELU_STEP ? n - at : GELU_STEP;
        for (int64_t i = 0; i < step; i += 16) {
            __m512 v = _mm512_maskz_loadu_ps(gelu_lanes(step - i), x + at + i);
            _mm512_storeu_ps(below + i, gelu_below(v));
        }
#pragma omp simd
        for (int64_t i = 0; i < step; i++) {
            float v = x[at + i];
            float density = 0.5f * root_2_over_pi * dpt_nn_expf(-0.5f * v * v);
            dx[at + i] = dy[at + i] * (below[i] + v * density);
        }
    }
}
#endif

MLP_INLINE void act_forward(dpt_act_kind kind, int64_t n, const float *x, float *y) {
#ifdef __AVX512F__
    if (kind == DPT_ACT_GELU) {
        gelu_forward(n, x, y);
        return;
    }
#endif
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = value_of(kind, x[i]).y;
}

MLP_INLINE void act_backward(dpt_act_kind kind, int64_t n, const float *dy, const float *x,
                             float *dx) {
#ifdef __AVX512F__
    if (kind == DPT_ACT_GELU) {
        gelu_backward(n, dy, x, dx);
        return;
    }
#endif
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        dx[i] = dy[i] * value_of(kind, x[i]).slope;
}

void dpt_nn_act_forward(dpt_act_kind kind, int64_t n, const float *x, float *y) {
    /* x (n), y (n) */
#pragma omp parallel for schedule(static) if (n >= PARALLEL_MIN)
    for (int64_t i = 0; i < n; i += PIECE)
        MLP_DISPATCH(kind, act_forward, n - i < PIECE ? n - i : PIECE, x + i, y + i)
}

void dpt_nn_act_backward(dpt_act_kind kind, int64_t n, const float *dy, const float *x, float *dx) {
    /* dy (n), x (n), dx (n); forward: y = act(x) */
#pragma omp parallel for schedule(static) if (n >= PARALLEL_MIN)
    for (int64_t i = 0; i < n; i += PIECE)
        MLP_DISPATCH(kind, act_backward, n - i < PIECE ? n - i : PIECE, dy + i, x + i, dx + i)
}

MLP_INLINE float gated_clamp(float x, float low, float high) {
    x = x < low ? low : x;
    return x > high ? high : x;
}

MLP_INLINE void gated_forward(dpt_act_kind kind, float limit, int64_t F, const float *g,
                              const float *u, float *h) {
    const bool clamped = kind == DPT_ACT_CLAMPED_SWIGLU;
#pragma omp simd
    for (int64_t f = 0; f < F; f++) {
        float a = clamped ? gated_clamp(g[f], -INFINITY, limit) : g[f];
        float b = clamped ? gated_clamp(u[f], -limit, limit) + 1.0f : u[f];
        h[f] = value_of(kind, a).y * b;
    }
}

MLP_INLINE void gated_backward(dpt_act_kind kind, float limit, int64_t F, const float *dh,
                               const float *g, const float *u, float *dg, float *du) {
    const bool clamped = kind == DPT_ACT_CLAMPED_SWIGLU;
#pragma omp simd
    for (int64_t f = 0; f < F; f++) {
        float a = clamped ? gated_clamp(g[f], -INFINITY, limit) : g[f];
        float b = clamped ? gated_clamp(u[f], -limit, limit) + 1.0f : u[f];
        mlp_value v = value_of(kind, a);
        float by_g = dh[f] * b * v.slope, by_u = dh[f] * v.y;
        if (clamped) { /* a value at the limit still moves, as in torch */
            by_g = dpt_nn_select(g[f] <= limit, by_g, 0.0f);
            by_u = dpt_nn_select(fabsf(u[f]) <= limit, by_u, 0.0f);
        }
        dg[f] = by_g;
        du[f] = by_u;
    }
}

void dpt_nn_gated_forward(dpt_act_kind kind, float limit, int64_t T, int64_t F, const float *g,
                          int64_t ldg, const float *u, int64_t ldu, float *h, int64_t ldh) {
    /* g (T,F), u (T,F), h (T,F) */
#pragma omp parallel for schedule(static) if (T * F >= PARALLEL_MIN)
    for (int64_t t = 0; t < T; t++)
        MLP_DISPATCH(kind, gated_forward, limit, F, g + t * ldg, u + t * ldu, h + t * ldh)
}

void dpt_nn_gated_backward(dpt_act_kind kind, float limit, int64_t T, int64_t F, const float *dh,
                           int64_t lddh, const float *g, int64_t ldg, const float *u, int64_t ldu,
                           float *dg, float *du) {
    /* dh (T,F), g (T,F), u (T,F), dg (T,F), du (T,F); forward: h = act(g) u */
#pragma omp parallel for schedule(static) if (T * F >= PARALLEL_MIN)
    for (int64_t t = 0; t < T; t++)
        MLP_DISPATCH(kind, gated_backward, limit, F, dh + t * lddh, g + t * ldg, u + t * ldu,
                     dg + t * ldg, du + t * ldu)
}
