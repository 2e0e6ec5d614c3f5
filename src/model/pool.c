#include "transformer.h"

#include <string.h>

/* Number of the first token of an image that is in the mean. */
static int64_t pool_first(const dpt_pass *pass, int64_t image) {
    const dpt_arch *arch = pass->arch;
    bool patches = arch->pool == DPT_POOL_CLASS_MEAN;
    return pass->first[image] + (patches ? arch->image_tokens - arch->patches : 0);
}

/* Where among the features of an image the mean begins: after the class token. */
static int64_t pool_begin(const dpt_pass *pass) {
    return pass->arch->pool == DPT_POOL_CLASS_MEAN ? pass->width : 0;
}

static void pool_mean(int64_t n, int64_t C, const float *x, float *y) {
    memset(y, 0, (size_t)C * sizeof *y);
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < C; c++)
            y[c] += x[i * C + c];
    for (int64_t c = 0; c < C; c++)
        y[c] /= (float)n;
}

void dpt_pool_forward(dpt_pass *pass, const float *x, float *y) {
    const dpt_work *k = pass->work;
    int64_t C = pass->width, F = pass->arch->length[DPT_AXIS_FEATURES], at = pool_begin(pass);
    if (pass->arch->pool == DPT_POOL_ATTENTION) {
        dpt_pool_attention_forward(pass, x, y);
        return;
    }
    dpt_pass_norm(pass, DPT_SLOT_FINAL_NORM, pass->tokens, x, k->n1, k->norm1);
    for (int64_t s = 0; s < pass->sequences; s++) {
        memcpy(y + s * F, k->n1 + pass->first[s] * C, (size_t)at * sizeof *y);
        pool_mean(pass->first[s + 1] - pool_first(pass, s), C, k->n1 + pool_first(pass, s) * C,
                  y + s * F + at);
    }
}

/* forward: y = [class; mean] of norm(x), or the mean of it. */
void dpt_pool_backward(dpt_pass *pass, const float *x, float *d) {
    const dpt_work *k = pass->work;
    int64_t C = pass->width, F = pass->arch->length[DPT_AXIS_FEATURES], at = pool_begin(pass);
    if (pass->arch->pool == DPT_POOL_ATTENTION) {
        dpt_pool_attention_backward(pass, x, d);
        return;
    }
    memset(k->n1, 0, (size_t)(pass->tokens * C) * sizeof *k->n1);
    for (int64_t s = 0; s < pass->sequences; s++) {
        int64_t first = pool_first(pass, s), end = pass->first[s + 1];
        memcpy(k->n1 + pass->first[s] * C, d + s * F, (size_t)at * sizeof *d);
        for (int64_t i = first; i < end; i++)
            for (int64_t c = 0; c < C; c++)
                k->n1[i * C + c] = d[s * F + at + c] / (float)(end - first);
    }
    dpt_pass_norm_backward(pass, 0, DPT_SLOT_FINAL_NORM, dpt_pass_rows(pass, k->n1, C, x, C),
                           k->norm1, false, k->dx);
}
