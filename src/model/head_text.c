#include "transformer.h"

#include "deltapath/nn/linear.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* forward: z = y P^T, summed over the ranks' columns, then divided by its length. */
void dpt_head_project(dpt_pass *pass, int64_t row, int64_t n, const float *y) {
    const dpt_work *k = pass->work;
    int64_t begin = pass->slice->begin[DPT_AXIS_INPUTS];
    int64_t inputs = pass->slice->end[DPT_AXIS_INPUTS] - begin;
    int64_t C = pass->width, D = pass->arch->length[DPT_AXIS_PROJECTION];
    float *first = k->z + row * D;
    dpt_nn_linear_forward(n, D, inputs, y + begin, C, k->w[DPT_SLOT_HEAD], inputs, NULL, first, D);
    dpt_pass_sum(pass, first, n * D);
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

/* forward: z = u / |u|, u = y P^T. dz holds the gradient of z. */
void dpt_head_project_backward(dpt_pass *pass, int64_t row, int64_t n, const float *y, float *dy) {
    const dpt_work *k = pass->work;
    int64_t begin = pass->slice->begin[DPT_AXIS_INPUTS];
    int64_t inputs = pass->slice->end[DPT_AXIS_INPUTS] - begin;
    int64_t C = pass->width, D = pass->arch->length[DPT_AXIS_PROJECTION];
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
    dpt_accumulate_linear(&pass->to, dpt_pass_index(pass, 0, DPT_SLOT_HEAD),
                          dpt_rows_of(n, k->row_sequence + row, first, D, y + begin, C));
    memset(dy, 0, (size_t)(n * C) * sizeof *dy);
    dpt_nn_linear_backward_input(n, D, inputs, first, D, k->w[DPT_SLOT_HEAD], inputs, false,
                                 dy + begin, C);
}
