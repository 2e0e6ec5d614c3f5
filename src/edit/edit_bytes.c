#include "stage.h"
#include "group.h"
#include "rows.h"

#include "deltapath/edit/choices.h"
#include "deltapath/tensor/role.h"

#include <omp.h>
#include <stddef.h>

/* What an edit needs in memory besides its input and its sink. */

static int64_t stream_bytes(int64_t widest) {
    int64_t scratch =
        (int64_t)omp_get_max_threads() * DPT_EDIT_SCRATCH * DPT_EDIT_PIECE * (int64_t)sizeof(float);
    int64_t cell = (int64_t)DPT_CELL * (3 * widest + (int64_t)sizeof(float));
    return scratch + cell;
}

/* Elements of a tensor that are held until all before them are done: of experts, those that are in work. */
static int64_t open_elements(const dpt_parts *parts, int tensor, int64_t numel, int groups) {
    dpt_part_item item = dpt_parts_item(parts, tensor, 0);
    int64_t in_work = (groups + 1) * item.end + DPT_CELL;
    return in_work < numel ? in_work : numel;
}

/* The largest matrix of a rank, and the deltas that a rank holds until they are written: those of one
 * round, or of all matrices when a later stage must see them together. */
static int64_t whole_bytes(const dpt_edit_spec *spec, int index, const dpt_catalog *catalog,
                           const dpt_parts *parts, const bool *selected, int ranks, int svd_group) {
    const dpt_edit_stage_spec *stage = &spec->stages[index];
    dpt_svd_method svd = dpt_edit_lowrank_svd(stage);
    int64_t matrix = 0, largest = 0, all = 0;
    int group = svd_group > 0 ? svd_group : 1;
    bool keeps = spec->calibrate != DPT_CALIBRATE_NONE;
    for (int s = index + 1; s < spec->nstages; s++)
        keeps = keeps || dpt_edit_method_get(spec->stages[s].method)->prepare != NULL;
    for (int s = 0; s < index; s++)
        keeps = keeps || dpt_edit_own_only(&spec->stages[s]);
    for (int t = 0; t < catalog->count; t++) {
        const dpt_tensor_info *info = &catalog->tensors[t];
        if ((selected != NULL && !selected[t]) || !dpt_role_is_matrix(info) || info->numel == 0)
            continue;
        int64_t open = open_elements(parts, t, info->numel, ranks / group);
        for (int p = parts->first[t]; p < parts->first[t + 1]; p++) {
            dpt_edit_matrices m;
            int64_t bytes = dpt_edit_matrices_of(parts, p, &m)
                                ? dpt_edit_matrices_bytes(stage, parts, &m, svd, group)
                                : 0;
            matrix = bytes > matrix ? bytes : matrix;
        }
        largest = open > largest ? open : largest;
        all += info->numel;
    }
    int64_t held = keeps ? all / ranks + DPT_CELL : largest;
    return matrix + held * (int64_t)sizeof(float);
}

/* Rows of one output of all matrices, by the most that a tensor can have. */
static int64_t bytes_rows(const dpt_catalog *catalog, const dpt_parts *parts) {
    int64_t rows = 0;
    for (int p = 0; p < parts->count; p++)
        if (dpt_role_is_matrix(&catalog->tensors[parts->items[p].tensor]))
            rows += parts->items[p].layout.rows;
    return rows;
}

int64_t dpt_edit_bytes(const dpt_edit_spec *spec, const dpt_catalog *catalog,
                       const dpt_parts *parts, const bool *selected, int ranks, int svd_group) {
    int64_t widest = 4, rows = bytes_rows(catalog, parts), bytes = 0;
    int64_t cells = 0;
    dpt_edit_spec stands = *spec; /* for what allocate stands for */
    for (int s = 0; s < spec->nstages; s++)
        if (dpt_edit_method_get(spec->stages[s].method)->found)
            dpt_edit_allocate_stage(&spec->stages[s], &stands.stages[s]);
    for (int t = 0; t < catalog->count; t++) {
        const dpt_tensor_info *info = &catalog->tensors[t];
        int64_t size = dpt_dtype_size(info->dtype);
        widest = size > widest ? size : widest;
        cells += info->numel / DPT_CELL + 1;
    }
    for (int s = 0; s < spec->nstages; s++) {
        const dpt_edit_method *method = dpt_edit_method_get(stands.stages[s].method);
        if (method->by_row)
            bytes += rows * (int64_t)(sizeof(float) + DPT_EDIT_ABS_SUMS * sizeof(double));
        if (method->apply_cell != NULL)
            bytes += dpt_edit_rows_bytes(catalog, selected, ranks);
        if (method->whole)
            bytes += whole_bytes(&stands, s, catalog, parts, selected, ranks, svd_group);
    }
    if (spec->calibrate != DPT_CALIBRATE_NONE)
        bytes += 2 * (int64_t)DPT_CELL * (int64_t)sizeof(float);
    if (dpt_edit_draws_mask(&stands))
        bytes += (int64_t)DPT_CELL * (int64_t)(sizeof(float) + sizeof(uint8_t));
    return bytes + stream_bytes(widest) + 2 * cells * DPT_EDIT_SUMS * (int64_t)sizeof(double);
}
