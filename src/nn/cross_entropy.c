#include "deltapath/nn/cross_entropy.h"

#include <math.h>
#include <stdbool.h>

#include "vexp.h"

enum { PARALLEL_MIN = 1 << 15, CHUNK = 512 };

static float row_max(int64_t V, const float *row) {
    float best = -INFINITY;
#pragma omp simd reduction(max : best)
    for (int64_t v = 0; v < V; v++)
        best = row[v] > best ? row[v] : best;
    return best;
}

/** sum_v exp(row[v] - max) in double; two loops, for gcc vectorises no loop that mixes the types. */
static double sum_exp(int64_t V, const float *row, float max) {
    double sum = 0.0;
    for (int64_t v0 = 0; v0 < V; v0 += CHUNK) {
        float e[CHUNK];
        int64_t width = V - v0 < CHUNK ? V - v0 : CHUNK;
#pragma omp simd
        for (int64_t v = 0; v < width; v++)
            e[v] = dpt_nn_expf(row[v0 + v] - max);
#pragma omp simd reduction(+ : sum)
        for (int64_t v = 0; v < width; v++)
            sum += (double)e[v];
    }
    return sum;
}

void dpt_nn_ce_cap(int64_t R, int64_t V, float cap, float *logits, int64_t ld) {
    /* logits (R,V) */
#pragma omp parallel for schedule(static) if (R * V >= PARALLEL_MIN)
    for (int64_t r = 0; r < R; r++) {
        float *row = logits + r * ld;
#pragma omp simd
        for (int64_t v = 0; v < V; v++)
            row[v] = cap * dpt_nn_tanhf(row[v] / cap);
    }
}

void dpt_nn_ce_row_max(int64_t R, int64_t V, const float *logits, int64_t ld, float *max) {
    /* logits (R,V), max (R) */
#pragma omp parallel for schedule(static) if (R * V >= PARALLEL_MIN)
    for (int64_t r = 0; r < R; r++)
        max[r] = row_max(V, logits + r * ld);
}

void dpt_nn_ce_sums(int64_t R, int64_t V, int64_t v0, const float *logits, int64_t ld,
                    const int32_t *targets, const float *max, double *sumexp,
                    double *target_logit) {
    /* logits (R,V), targets (R), max (R), sumexp (R), target_logit (R) */
#pragma omp parallel for schedule(static) if (R * V >= PARALLEL_MIN)
    for (int64_t r = 0; r < R; r++) {
        const float *row = logits + r * ld;
        sumexp[r] = sum_exp(V, row, max[r]);
        int64_t il = targets[r] - v0;
        target_logit[r] = il >= 0 && il < V ? (double)row[il] : 0.0;
    }
}

void dpt_nn_ce_loss(int64_t R, const float *max, const double *sumexp, const double *target_logit,
                    double *loss) {
    /* max (R), sumexp (R), target_logit (R), loss (R) */
    for (int64_t r = 0; r < R; r++)
        loss[r] = log(sumexp[r]) + ((double)max[r] - target_logit[r]);
}

/** Derivative of cap tanh(z / cap) where it has the value s; 1 without a cap. */
static inline float cap_slope(float cap, float s) {
    return cap > 0.0f ? (1.0f - s / cap) * (1.0f + s / cap) : 1.0f;
}

void dpt_nn_ce_backward(int64_t R, int64_t V, int64_t v0, float cap, float *logits, int64_t ld,
                        const int32_t *targets, const float *max, const double *sumexp,
                        const float *scale) {
    /* logits (R,V), targets (R), max (R), sumexp (R), scale (R) */
    /* forward: s = cap tanh(logits / cap), loss = log(sumexp) + max - s[target] */
#pragma omp parallel for schedule(static) if (R * V >= PARALLEL_MIN)
    for (int64_t r = 0; r < R; r++) {
        float *row = logits + r * ld;
        float m = max[r];
        float factor = (float)((double)scale[r] / sumexp[r]);
        int64_t il = targets[r] - v0;
        bool here = il >= 0 && il < V;
        float of_target = here ? scale[r] * cap_slope(cap, row[il]) : 0.0f;
        if (cap > 0.0f) {
#pragma omp simd
            for (int64_t v = 0; v < V; v++)
                row[v] = factor * dpt_nn_expf(row[v] - m) * cap_slope(cap, row[v]);
        } else {
#pragma omp simd
            for (int64_t v = 0; v < V; v++)
                row[v] = factor * dpt_nn_expf(row[v] - m);
        }
        if (here)
            row[il] -= of_target;
    }
}

void dpt_nn_ce_argmax(int64_t R, int64_t V, int64_t v0, const float *logits, int64_t ld,
                      float *value, int64_t *index) {
    /* logits (R,V), value (R), index (R) */
#pragma omp parallel for schedule(static) if (R * V >= PARALLEL_MIN)
    for (int64_t r = 0; r < R; r++) {
        const float *row = logits + r * ld;
        value[r] = row_max(V, row);
        int64_t il = 0;
        while (il < V && row[il] != value[r])
            il++;
        /* A row of NaN has no largest element: name the first so that the index is valid. */
        index[r] = V == 0 ? -1 : v0 + (il < V ? il : 0);
    }
}

/** The first arrival of one row. As -log(u) >= 1 - u, few entries need their logarithm. */
static int64_t draw_row(int64_t V, const float *row, float max, dpt_rng rng, int64_t first,
                        double *time) {
    int64_t index = -1;
    *time = INFINITY;
    for (int64_t v0 = 0; v0 < V; v0 += CHUNK) {
        float e[CHUNK];
        uint32_t words[CHUNK];
        int64_t width = V - v0 < CHUNK ? V - v0 : CHUNK;
        dpt_rng_words(rng, first + v0, width, words);
#pragma omp simd
        for (int64_t v = 0; v < width; v++)
            e[v] = dpt_nn_expf(row[v0 + v] - max);
        for (int64_t v = 0; v < width; v++) {
            double u = dpt_rng_uniform(words[v]);
            if (1.0 - u >= *time * (double)e[v])
                continue;
            double arrival = -log(u) / (double)e[v];
            if (arrival < *time) {
                *time = arrival;
                index = v0 + v;
            }
        }
    }
    return index;
}

void dpt_nn_ce_draw(int64_t R, int64_t V, int64_t v0, const float *logits, int64_t ld,
                    const float *max, dpt_rng rng, const int64_t *first, double *time,
                    int64_t *index) {
    /* logits (R,V), max (R), first (R), time (R), index (R) */
#pragma omp parallel for schedule(static) if (R * V >= PARALLEL_MIN)
    for (int64_t r = 0; r < R; r++) {
        int64_t il = draw_row(V, logits + r * ld, max[r], rng, first[r] + v0, time + r);
        index[r] = il >= 0 ? v0 + il : -1;
    }
}
