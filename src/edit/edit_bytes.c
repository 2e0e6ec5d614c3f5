#include "stage.h"

#include <omp.h>

/* What an edit needs in memory beside its input and its sink. */

static int64_t stream_bytes(int64_t widest) {
    int64_t scratch =
        (int64_t)omp_get_max_threads() * DPT_EDIT_SCRATCH * DPT_EDIT_PIECE * (int64_t)sizeof(float);
    int64_t cell = (int64_t)DPT_CELL * (3 * widest + (int64_t)sizeof(float));
    return scratch + cell;
}

int64_t dpt_edit_bytes(const dpt_edit_spec *spec, const dpt_catalog *catalog, const bool *selected,
                       int ranks, int svd_group) {
    (void)selected;
    (void)ranks;
    (void)svd_group;
    int64_t widest = 4, rows = 0, bytes = 0;
    int64_t cells = 0;
    for (int t = 0; t < catalog->count; t++) {
        const dpt_tensor_info *info = &catalog->tensors[t];
        int64_t size = dpt_dtype_size(info->dtype);
        widest = size > widest ? size : widest;
        cells += info->numel / DPT_CELL + 1;
        rows += info->ndim == 2 ? info->shape[0] : 0;
    }
    for (int s = 0; s < spec->nstages; s++)
        if (dpt_edit_method_get(spec->stages[s].method)->by_row)
            bytes += rows * (int64_t)(sizeof(float) + sizeof(double));
    return bytes + stream_bytes(widest) + 2 * cells * DPT_EDIT_SUMS * (int64_t)sizeof(double);
}
