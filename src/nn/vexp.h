/** Single-precision exponential, error function and tanh that the compiler can vectorise.
 *
 * Inline because a call would keep the loops around them scalar.
 */
#ifndef DELTAPATH_SRC_NN_VEXP_H
#define DELTAPATH_SRC_NN_VEXP_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/** a b + c, fused where the machine can: a loop of calls to fmaf would be slow elsewhere. */
static inline float dpt_nn_fma(float a, float b, float c) {
#ifdef __FMA__
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

/** first ? a : b by their bits. Between two products gcc makes a branch of `?:`, which keeps the loop scalar where
 * there are no masks (AVX2). */
static inline float dpt_nn_select(bool first, float a, float b) {
    uint32_t x, y, keep = first ? UINT32_MAX : 0u;
    memcpy(&x, &a, sizeof x);
    memcpy(&y, &b, sizeof y);
    x = (x & keep) | (y & ~keep);
    memcpy(&a, &x, sizeof a);
    return a;
}

/** exp(x) within 2 units in the last place for -87.33 <= x <= 88.37; 0 from -87.7 down, infinity
 * above. NaN gives NaN.
 *
 * Local.
 * Computes: 2^k P(r), x = k ln 2 + r, abs(r) <= ln(2)/2, P of degree 6; no branches, no calls. What is
 *   too small or too large has k = -127 or 128, whose bits are those of 0 and infinity.
 */
static inline float dpt_nn_expf(float x) {
    /* Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low mantissa bits. */
    const float round_magic = 12582912.0f;
    float c = x < -88.0f ? -88.0f : x;
    c = c > 88.8f ? 88.8f : c;
    float kf = dpt_nn_fma(c, 1.44269504f, round_magic);
    uint32_t bits;
    memcpy(&bits, &kf, sizeof bits);
    bits = (bits + 127u) << 23;
    float k = kf - round_magic;
    /* ln 2 in two parts, the first short enough for k * hi to be exact. */
    float r = dpt_nn_fma(k, -0.693359375f, c);
    r = dpt_nn_fma(k, 2.12194440e-4f, r);
    float p = 1.38888889e-3f;
    p = dpt_nn_fma(p, r, 8.33333333e-3f);
    p = dpt_nn_fma(p, r, 4.16666667e-2f);
    p = dpt_nn_fma(p, r, 1.66666667e-1f);
    p = dpt_nn_fma(p, r, 0.5f);
    p = dpt_nn_fma(p, r * r, r);
    float two_k;
    memcpy(&two_k, &bits, sizeof two_k);
    return (p + 1.0f) * two_k;
}

/** erf(x) within 2e-7 for every x. NaN gives NaN.
 *
 * Local.
 * Computes: x P(x^2) for abs(x) < 0.93, else 1 - exp(-Q(abs(x))) with the sign of x; P and Q are
 *   minimax fits, of degree 5 to erf(x)/x and of degree 8 to -log(erfc(x)) on [0.9, 4].
 */
static inline float dpt_nn_erff(float x) {
    float t = fabsf(x), s = x * x;
    float p = -5.97689380e-4f;
    p = dpt_nn_fma(p, s, 4.99098025e-3f);
    p = dpt_nn_fma(p, s, -2.67655670e-2f);
    p = dpt_nn_fma(p, s, 1.12818028e-1f);
    p = dpt_nn_fma(p, s, -3.76124943e-1f);
    p = dpt_nn_fma(p, s, 1.12837915f);
    /* From 4 on the result rounds to 1. */
    float c = t > 4.0f ? 4.0f : t;
    float q = -1.60248976e-6f;
    q = dpt_nn_fma(q, c, 4.53545726e-5f);
    q = dpt_nn_fma(q, c, -5.90715150e-4f);
    q = dpt_nn_fma(q, c, 4.73028042e-3f);
    q = dpt_nn_fma(q, c, -2.63355374e-2f);
    q = dpt_nn_fma(q, c, 1.09925181e-1f);
    q = dpt_nn_fma(q, c, 6.31995320e-1f);
    q = dpt_nn_fma(q, c, 1.13013148f);
    q = dpt_nn_fma(q, c, -2.94274185e-4f);
    float far = copysignf(1.0f - dpt_nn_expf(-q), x);
    return dpt_nn_select(t < 0.93f, x * p, far);
}

/** tanh(x) within 2 units in the last place for every x. NaN gives NaN.
 *
 * Local.
 * Computes: x + x^3 P(x^2) for abs(x) < 0.65, else 1 - 2 / (exp(2 abs(x)) + 1) with the sign of x; P is a minimax
 *   fit of degree 4.
 */
static inline float dpt_nn_tanhf(float x) {
    float t = fabsf(x), s = x * x;
    float p = -5.51509837e-3f;
    p = dpt_nn_fma(p, s, 2.04693588e-2f);
    p = dpt_nn_fma(p, s, -5.36880036e-2f);
    p = dpt_nn_fma(p, s, 1.33308301e-1f);
    p = dpt_nn_fma(p, s, -3.33332598e-1f);
    float far = copysignf(1.0f - 2.0f / (dpt_nn_expf(2.0f * t) + 1.0f), x);
    return dpt_nn_select(t < 0.65f, dpt_nn_fma(p * s, x, x), far);
}

#endif
