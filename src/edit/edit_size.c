#include "stage.h"

#include "deltapath/edit/choices.h"

#include <math.h>

/* Bytes of an edited delta; the layout is that of the header. */

enum { SIZE_RUN = 1 << 16 }; /* entries that a place of two bytes can tell apart */

double dpt_edit_dense_bytes(const dpt_tensor_info *info) {
    return (double)info->numel * (double)dpt_dtype_size(info->dtype);
}

double dpt_edit_sparse_bytes(const dpt_tensor_info *info, double kept) {
    double n = (double)info->numel;
    double places = fmin(ceil(n / 8.0), 2.0 * kept + 4.0 * ceil(n / SIZE_RUN));
    double bytes = kept * (double)dpt_dtype_size(info->dtype) + places;
    return fmin(bytes, dpt_edit_dense_bytes(info));
}

double dpt_edit_size_dense(const dpt_catalog *out) {
    double sum = 0.0;
    for (int t = 0; t < out->count; t++)
        sum += dpt_edit_dense_bytes(&out->tensors[t]);
    return sum;
}

/* Parameter of a low-rank edit that was made; that of others for the tensor. */
static double size_value(const dpt_edit_stage_spec *stage, const dpt_edit_report *report, int t) {
    if (report->stats[t].rank > 0)
        return (double)report->stats[t].rank;
    return stage->tensor_values != NULL ? stage->tensor_values[t] : NAN;
}

double dpt_edit_size(const dpt_edit_spec *spec, const dpt_edit_input *input, const dpt_catalog *out,
                     const dpt_edit_report *report) {
    const dpt_edit_stage_spec *stage = &spec->stages[0];
    const dpt_edit_method *method = dpt_edit_method_get(stage->method);
    double sum = 0.0;
    if (spec->nstages != 1)
        return NAN;
    for (int t = 0; t < out->count; t++) {
        const dpt_tensor_info *info = &out->tensors[t];
        bool packed = method->bytes != NULL && dpt_edit_covers(stage, input, t);
        sum += packed ? method->bytes(stage, info, size_value(stage, report, t))
                      : dpt_edit_dense_bytes(info);
    }
    return sum;
}
