#include "deltapath/nn/rope.h"

#include <math.h>

enum { PARALLEL_MIN = 1 << 15 };

/** Frequency after the LLaMA-3 scaling; the fp32 roundings follow transformers. */
static float scale_llama3(const dpt_rope_params *p, float freq) {
    float factor = (float)p->factor;
    float low = (float)p->low_freq_factor, high = (float)p->high_freq_factor;
    float context = (float)p->original_max_position;
    float low_wavelength = (float)((double)p->original_max_position / p->low_freq_factor);
    float high_wavelength = (float)((double)p->original_max_position / p->high_freq_factor);
    float wavelength = (1.0f / freq) * (float)(2.0 * M_PI);
    if (wavelength > low_wavelength)
        return freq / factor;
    if (wavelength < high_wavelength)
        return freq;
    float smooth = ((1.0f / wavelength) * context - low) / (float)((double)high - (double)low);
    return (1.0f - smooth) * freq / factor + smooth * freq;
}

void dpt_nn_rope_inv_freq(const dpt_rope_params *params, float *inv_freq) {
    /* inv_freq (dim/2) */
    for (int64_t i = 0; i < params->dim / 2; i++) {
        float exponent = (float)(2 * i) / (float)params->dim;
        float freq = 1.0f / (float)pow(params->theta, (double)exponent);
        if (params->kind == DPT_ROPE_LINEAR)
            freq /= (float)params->factor;
        else if (params->kind == DPT_ROPE_LLAMA3)
            freq = scale_llama3(params, freq);
        inv_freq[i] = freq;
    }
}

void dpt_nn_rope_table(int64_t n, int64_t half, const float *inv_freq, float *cos_table,
                       float *sin_table) {
    /* inv_freq (half), cos_table (n,half), sin_table (n,half) */
#pragma omp parallel for schedule(static) if (n * half >= PARALLEL_MIN)
    for (int64_t p = 0; p < n; p++) {
        for (int64_t i = 0; i < half; i++) {
            float angle = (float)p * inv_freq[i];
            cos_table[p * half + i] = (float)cos((double)angle);
            sin_table[p * half + i] = (float)sin((double)angle);
        }
    }
}

/** Rotates every head of one row by the angles of one position; sign is 1 or -1. */
static void rotate_row(int64_t heads, int64_t head_dim, int64_t half, const float *c,
                       const float *s, float sign, float *row) {
    for (int64_t j = 0; j < heads; j++) {
        float *x1 = row + j * head_dim, *x2 = x1 + half;
#pragma omp simd
        for (int64_t i = 0; i < half; i++) {
            float a = x1[i], b = x2[i], si = sign * s[i];
            x1[i] = a * c[i] - b * si;
            x2[i] = b * c[i] + a * si;
        }
    }
}

static void rotate_batch(int64_t n_seq, const int64_t *offsets, int64_t heads, int64_t head_dim,
                         int64_t half, const float *c, const float *s, float sign, float *x,
                         int64_t ldx) {
    for (int64_t q = 0; q < n_seq; q++) {
        int64_t n = offsets[q + 1] - offsets[q];
        float *first = x + offsets[q] * ldx;
#pragma omp parallel for schedule(static) if (n * heads * half >= PARALLEL_MIN)
        for (int64_t p = 0; p < n; p++)
            rotate_row(heads, head_dim, half, c + p * half, s + p * half, sign, first + p * ldx);
    }
}

void dpt_nn_rope_forward(int64_t n_seq, const int64_t *offsets, int64_t heads, int64_t head_dim,
                         int64_t half, const float *cos_table, const float *sin_table, float *x,
                         int64_t ldx) {
    /* offsets (n_seq+1), cos_table (n,half), sin_table (n,half), x (rows, heads*head_dim) */
    rotate_batch(n_seq, offsets, heads, head_dim, half, cos_table, sin_table, 1.0f, x, ldx);
}

void dpt_nn_rope_backward(int64_t n_seq, const int64_t *offsets, int64_t heads, int64_t head_dim,
                          int64_t half, const float *cos_table, const float *sin_table, float *dx,
                          int64_t lddx) {
    /* forward: y1 = x1 cos - x2 sin, y2 = x2 cos + x1 sin: orthogonal, so the transpose inverts */
    rotate_batch(n_seq, offsets, heads, head_dim, half, cos_table, sin_table, -1.0f, dx, lddx);
}
