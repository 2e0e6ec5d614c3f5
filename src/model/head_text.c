#include "transformer.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* z = y P^T, summed over the ranks' columns; y itself without a projection. */
static void head_multiply(dpt_pass *pass, int64_t n, const float *y, float *z) {
    int64_t begin = pass->slice->begin[DPT_AXIS_INPUTS];
    int64_t C = pass->width, D = pass->arch->length[DPT_AXIS_PROJECTION];
    if (pass->arch->row[DPT_SLOT_HEAD] == NULL) {
        memcpy(z, y, (size_t)(n * D) * sizeof *z);
        return;
    }
    dpt_product_forward(pass, 0, DPT_SLOT_HEAD, DPT_SLOTS, n, y + begin, C, z, D);
    dpt_pass_sum(pass, z, n * D);
}

/* forward: z = y P^T divided by its length. */
void dpt_head_project(dpt_pass *pass, int64_t row, int64_t n, const float *y) {
    const dpt_work *k = pass->work;
    int64_t D = pass->arch->length[DPT_AXIS_PROJECTION];
    float *first = k->z + row * D;
    head_multiply(pass, n, y, first);
    for (int64_t s = 0; s < n; s++) {
        float *z = first + s * D;
        double squares = 0.0;
        for (int64_t i = 0; i < D; i++)
            squares += (double)z[i] * z[i];
        float length = fmaxf((float)sqrt(squares), FLT_MIN);
        for (int64_t i = 0; i < D; i++)
            z[i] /= length;
        k->length[row + s] = length;
    }
}

/* This rank's share of the gradient of y, given that of u = y P^T, which all ranks have. */
static void head_multiply_backward(const dpt_pass *pass, int64_t row, int64_t n, const float *y,
                                   const float *du, float *dy) {
    const dpt_work *k = pass->work;
    int64_t begin = pass->slice->begin[DPT_AXIS_INPUTS];
    int64_t C = pass->width, D = pass->arch->length[DPT_AXIS_PROJECTION];
    memset(dy, 0, (size_t)(n * C) * sizeof *dy);
    if (pass->arch->row[DPT_SLOT_HEAD] == NULL) {
        if (pass->slice->first)
            memcpy(dy, du, (size_t)(n * C) * sizeof *dy);
        return;
    }
    dpt_product_backward(pass, 0, DPT_SLOT_HEAD, DPT_SLOTS,
                         dpt_rows_of(n, k->row_sequence + row, du, D, y + begin, C), dy + begin, C);
}

/* forward: z = u / |u|, u = y P^T. dz holds the gradient of z. */
void dpt_head_project_backward(dpt_pass *pass, int64_t row, int64_t n, const float *y, float *dy) {
    const dpt_work *k = pass->work;
    int64_t D = pass->arch->length[DPT_AXIS_PROJECTION];
    float *first = k->dz + row * D;
    dpt_pass_sum(pass, first, n * D);
    for (int64_t s = 0; s < n; s++) {
        const float *z = k->z + (row + s) * D;
        float *dz = first + s * D;
        double along = 0.0;
        for (int64_t i = 0; i < D; i++)
            along += (double)z[i] * dz[i];
        for (int64_t i = 0; i < D; i++)
            dz[i] = (dz[i] - z[i] * (float)along) / k->length[row + s];
    }
    head_multiply_backward(pass, row, n, y, first, dy);
}
