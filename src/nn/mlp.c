#include "deltapath/nn/mlp.h"

#include <math.h>

#include "vexp.h"

enum { PARALLEL_MIN = 1 << 15 };

static inline float sigmoid(float x) {
    return 1.0f / (1.0f + dpt_nn_expf(-x));
}

void dpt_nn_swiglu_forward(int64_t T, int64_t F, const float *g, int64_t ldg, const float *u,
                           int64_t ldu, float *h, int64_t ldh) {
    /* g (T,F), u (T,F), h (T,F) */
#pragma omp parallel for schedule(static) if (T * F >= PARALLEL_MIN)
    for (int64_t t = 0; t < T; t++) {
        const float *gt = g + t * ldg, *ut = u + t * ldu;
        float *ht = h + t * ldh;
#pragma omp simd
        for (int64_t f = 0; f < F; f++)
            ht[f] = gt[f] * sigmoid(gt[f]) * ut[f];
    }
}

void dpt_nn_swiglu_backward(int64_t T, int64_t F, const float *dh, int64_t lddh, const float *g,
                            int64_t ldg, const float *u, int64_t ldu, float *dg, float *du) {
    /* dh (T,F), g (T,F), u (T,F), dg (T,F), du (T,F); forward: h = g sig(g) u */
#pragma omp parallel for schedule(static) if (T * F >= PARALLEL_MIN)
    for (int64_t t = 0; t < T; t++) {
        const float *dht = dh + t * lddh, *gt = g + t * ldg, *ut = u + t * ldu;
        float *dgt = dg + t * ldg, *dut = du + t * ldu;
#pragma omp simd
        for (int64_t f = 0; f < F; f++) {
            float a = gt[f], b = ut[f], d = dht[f], sig = sigmoid(a);
            dgt[f] = d * b * sig * (1.0f + a * (1.0f - sig));
            dut[f] = d * a * sig;
        }
    }
}

/* sqrt(2/pi) and sqrt(1/2) */
static const float root_2_over_pi = 0.797884561f, root_half = 0.707106781f;
static const float quick_slope = 1.702f;

/** Argument a of tanh in GELU's approximation, doubled: (1 + tanh a)/2 = sig(2a). */
static inline float gelu_argument(float x) {
    return 2.0f * root_2_over_pi * (x + 0.044715f * x * x * x);
}

void dpt_nn_act_forward(dpt_act_kind kind, int64_t n, const float *x, float *y) {
    /* x (n), y (n) */
    switch (kind) {
    case DPT_ACT_SILU:
#pragma omp parallel for simd schedule(static) if (parallel : n >= PARALLEL_MIN)
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] * sigmoid(x[i]);
        break;
    case DPT_ACT_GELU:
#pragma omp parallel for simd schedule(static) if (parallel : n >= PARALLEL_MIN)
        for (int64_t i = 0; i < n; i++)
            y[i] = 0.5f * x[i] * (1.0f + dpt_nn_erff(x[i] * root_half));
        break;
    case DPT_ACT_GELU_TANH:
#pragma omp parallel for simd schedule(static) if (parallel : n >= PARALLEL_MIN)
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] * sigmoid(gelu_argument(x[i]));
        break;
    case DPT_ACT_QUICK_GELU:
#pragma omp parallel for simd schedule(static) if (parallel : n >= PARALLEL_MIN)
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] * sigmoid(quick_slope * x[i]);
        break;
    }
}

/** Derivative of x sig(z(x)), given sig = sig(z) and z'(x). */
static inline float gated_slope(float x, float sig, float dz) {
    return sig + x * sig * (1.0f - sig) * dz;
}

void dpt_nn_act_backward(dpt_act_kind kind, int64_t n, const float *dy, const float *x, float *dx) {
    /* dy (n), x (n), dx (n) */
    switch (kind) {
    case DPT_ACT_SILU: /* forward: y = x sig(x) */
#pragma omp parallel for simd schedule(static) if (parallel : n >= PARALLEL_MIN)
        for (int64_t i = 0; i < n; i++)
            dx[i] = dy[i] * gated_slope(x[i], sigmoid(x[i]), 1.0f);
        break;
    case DPT_ACT_GELU: /* forward: y = x Phi(x) */
#pragma omp parallel for simd schedule(static) if (parallel : n >= PARALLEL_MIN)
        for (int64_t i = 0; i < n; i++) {
            float density = 0.5f * root_2_over_pi * dpt_nn_expf(-0.5f * x[i] * x[i]);
            dx[i] = dy[i] * (0.5f * (1.0f + dpt_nn_erff(x[i] * root_half)) + x[i] * density);
        }
        break;
    case DPT_ACT_GELU_TANH: /* forward: y = x sig(z), z = 2 sqrt(2/pi) (x + 0.044715 x^3) */
#pragma omp parallel for simd schedule(static) if (parallel : n >= PARALLEL_MIN)
        for (int64_t i = 0; i < n; i++) {
            float dz = 2.0f * root_2_over_pi * (1.0f + 3.0f * 0.044715f * x[i] * x[i]);
            dx[i] = dy[i] * gated_slope(x[i], sigmoid(gelu_argument(x[i])), dz);
        }
        break;
    case DPT_ACT_QUICK_GELU: /* forward: y = x sig(1.702 x) */
#pragma omp parallel for simd schedule(static) if (parallel : n >= PARALLEL_MIN)
        for (int64_t i = 0; i < n; i++)
            dx[i] = dy[i] * gated_slope(x[i], sigmoid(quick_slope * x[i]), quick_slope);
        break;
    }
}
