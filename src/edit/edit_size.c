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

/* Bytes of the matrices of a tensor that were decomposed, each of which has a rank of its own.
 * @param[in,out] at  first spectrum of the tensor; of the next one. */
static double size_of_spectra(const dpt_edit_stage_spec *stage, const dpt_edit_input *input,
                              const dpt_tensor_info *info, const dpt_edit_report *report,
                              int64_t *at) {
    double sum = 0.0;
    for (int t = report->spectra[*at].tensor;
         *at < report->nspectra && report->spectra[*at].tensor == t; ++*at) {
        const dpt_edit_packed of = {.info = info,
                                    .parts = &input->parts->items[report->spectra[*at].part],
                                    .count = 1,
                                    .value = (double)report->spectra[*at].rank};
        sum += dpt_edit_method_get(stage->method)->bytes(stage, &of);
    }
    return sum;
}

double dpt_edit_size(const dpt_edit_spec *spec, const dpt_edit_input *input, const dpt_catalog *out,
                     const dpt_edit_report *report) {
    const dpt_edit_stage_spec *stage = &spec->stages[0];
    const dpt_edit_method *method = dpt_edit_method_get(stage->method);
    const dpt_parts *parts = input->parts;
    double sum = 0.0;
    int64_t at = 0;
    if (spec->nstages != 1)
        return NAN;
    for (int t = 0; t < out->count; t++) {
        const dpt_tensor_info *info = &out->tensors[t];
        dpt_tensor_info edited =
            *info; /* but for rows without a partner, which are stored as they are */
        int64_t left_out = dpt_edit_left_out(input, t);
        edited.numel -= left_out;
        const dpt_edit_packed of = {.info = &edited,
                                    .parts = parts->items + parts->first[t],
                                    .count = parts->first[t + 1] - parts->first[t],
                                    .value = stage->tensor_values != NULL ? stage->tensor_values[t]
                                                                          : NAN};
        bool packed = method->bytes != NULL && dpt_edit_covers(stage, input, t);
        if (packed && at < report->nspectra && report->spectra[at].tensor == t)
            sum += size_of_spectra(stage, input, info, report, &at);
        else
            sum += packed ? method->bytes(stage, &of) +
                                (double)(left_out * dpt_dtype_size(info->dtype))
                          : dpt_edit_dense_bytes(info);
    }
    return sum;
}
