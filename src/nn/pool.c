#include "deltapath/nn/pool.h"

#include <math.h>

static float pool_dot(int64_t n, const float *a, const float *b) {
    float sum = 0.0F;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* Scores to probabilities, in place. */
static void pool_softmax(int64_t n, float *p) {
    float max = p[0];
    double sum = 0.0;
    for (int64_t l = 1; l < n; l++)
        max = fmaxf(max, p[l]);
    for (int64_t l = 0; l < n; l++) {
        p[l] = expf(p[l] - max);
        sum += (double)p[l];
    }
    for (int64_t l = 0; l < n; l++)
        p[l] = (float)((double)p[l] / sum);
}

void dpt_nn_pool_forward(const dpt_pool_shape *shape, const float *q, const float *k,
                         const float *v, float *p, float *o) {
    int64_t n = shape->n, hd = shape->hd;
    for (int64_t j = 0; j < shape->heads; j++) {
        int64_t at = j * hd;
        float *row = p + j * n;
        for (int64_t l = 0; l < n; l++)
            row[l] = shape->scale * pool_dot(hd, q + at, k + l * shape->ldk + at);
        pool_softmax(n, row);
        for (int64_t c = at; c < at + hd; c++)
            o[c] = 0.0F;
        for (int64_t l = 0; l < n; l++)
            for (int64_t c = at; c < at + hd; c++)
                o[c] += row[l] * v[l * shape->ldv + c];
    }
}

void dpt_nn_pool_backward(const dpt_pool_shape *shape, const float *q, const float *k,
                          const float *v, const float *p, const float *o, const float *d_o,
                          float *dq, float *dk, float *dv) {
    int64_t n = shape->n, hd = shape->hd;
    for (int64_t j = 0; j < shape->heads; j++) {
        int64_t at = j * hd;
        float mean = pool_dot(hd, d_o + at, o + at);
        for (int64_t c = at; c < at + hd; c++)
            dq[c] = 0.0F;
        for (int64_t l = 0; l < n; l++) {
            float share = p[j * n + l];
            float ds = share * (pool_dot(hd, d_o + at, v + l * shape->ldv + at) - mean);
            for (int64_t c = at; c < at + hd; c++) {
                dq[c] += shape->scale * ds * k[l * shape->ldk + c];
                dk[l * shape->ldk + c] = shape->scale * ds * q[c];
                dv[l * shape->ldv + c] = share * d_o[c];
            }
        }
    }
}
