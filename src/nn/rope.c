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

/** Where on the axis of pairs a frequency makes so many turns in the original context. */
static double yarn_pair(const dpt_rope_params *p, double turns) {
    double pair = (double)p->dim * log((double)p->original_max_position / (turns * 2.0 * M_PI));
    return pair / (2.0 * log(p->theta));
}

/** Frequency of pair i after the YaRN scaling, of the inverse `wave` of the frequency before it: kept before the
 * passage, divided by factor after it. */
static float scale_yarn(const dpt_rope_params *p, int64_t i, float wave) {
    double low = yarn_pair(p, p->beta_fast), high = yarn_pair(p, p->beta_slow);
    low = fmax(p->truncate ? floor(low) : low, 0.0);
    high = fmin(p->truncate ? ceil(high) : high, (double)(p->dim - 1));
    if (low == high)
        high += 0.001;
    float passed = fminf(fmaxf(((float)i - (float)low) / (float)(high - low), 0.0f), 1.0f);
    float kept = 1.0f - passed;
    return 1.0f / ((float)p->factor * wave) * (1.0f - kept) + 1.0f / wave * kept;
}

/** Base for a sequence of n positions, rounded as transformers rounds it: a tensor where it is not theta. */
static double base_dynamic(const dpt_rope_params *p, int64_t n) {
    if (!dpt_nn_rope_is_long(p, n))
        return p->theta;
    float stretch = (float)p->factor * (float)n / (float)p->original_max_position;
    float power = (float)((double)p->dim / ((double)p->dim - 2.0));
    return (double)((float)p->theta *
                    (float)pow((double)(stretch - (float)(p->factor - 1.0)), (double)power));
}

void dpt_nn_rope_inv_freq(const dpt_rope_params *params, int64_t n, float *inv_freq) {
    /* inv_freq (half) */
    const float *divisors =
        dpt_nn_rope_is_long(params, n) ? params->long_factor : params->short_factor;
    double base = params->kind == DPT_ROPE_DYNAMIC ? base_dynamic(params, n) : params->theta;
    for (int64_t i = 0; i < dpt_nn_rope_half(params); i++) {
        float exponent = (float)(2 * i) / (float)params->dim;
        float wave = (float)pow(base, (double)exponent);
        switch (params->kind) {
        case DPT_ROPE_DEFAULT:
        case DPT_ROPE_DYNAMIC:
            inv_freq[i] = 1.0f / wave;
            break;
        case DPT_ROPE_LINEAR:
            inv_freq[i] = 1.0f / wave / (float)params->factor;
            break;
        case DPT_ROPE_LLAMA3:
            inv_freq[i] = scale_llama3(params, 1.0f / wave);
            break;
        case DPT_ROPE_YARN:
            inv_freq[i] = scale_yarn(params, i, wave);
            break;
        case DPT_ROPE_LONGROPE:
            inv_freq[i] = 1.0f / (divisors[i] * wave);
            break;
        }
    }
}

bool dpt_nn_rope_is_long(const dpt_rope_params *params, int64_t n) {
    return (params->kind == DPT_ROPE_LONGROPE || params->kind == DPT_ROPE_DYNAMIC) &&
           n > params->original_max_position;
}

static double yarn_scale(double factor, double mscale) {
    return factor <= 1.0 ? 1.0 : 0.1 * mscale * log(factor) + 1.0;
}

double dpt_nn_rope_scale(const dpt_rope_params *params) {
    double factor = params->factor;
    if (params->kind != DPT_ROPE_YARN && params->kind != DPT_ROPE_LONGROPE)
        return 1.0;
    if (params->attention_factor > 0.0)
        return params->attention_factor;
    if (params->kind == DPT_ROPE_YARN && params->mscale > 0.0 && params->mscale_all_dim > 0.0)
        return yarn_scale(factor, params->mscale) / yarn_scale(factor, params->mscale_all_dim);
    if (params->kind == DPT_ROPE_YARN || factor <= 1.0)
        return yarn_scale(factor, 1.0);
    return sqrt(1.0 + log(factor) / log((double)params->original_max_position));
}

void dpt_nn_rope_table(int64_t n, int64_t half, const float *inv_freq, float scale,
                       float *cos_table, float *sin_table) {
    /* inv_freq (half), cos_table (n,half), sin_table (n,half) */
#pragma omp parallel for schedule(static) if (n * half >= PARALLEL_MIN)
    for (int64_t p = 0; p < n; p++) {
        for (int64_t i = 0; i < half; i++) {
            float angle = (float)p * inv_freq[i];
            cos_table[p * half + i] = (float)cos((double)angle) * scale;
            sin_table[p * half + i] = (float)sin((double)angle) * scale;
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
    /* forward: y1 = x1 cos - x2 sin, y2 = x2 cos + x1 sin */
    rotate_batch(n_seq, offsets, heads, head_dim, half, cos_table, sin_table, -1.0f, dx, lddx);
}
