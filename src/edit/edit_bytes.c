#include "stage.h"
#include "group.h"
#include "rows.h"

#include "deltapath/edit/choices.h"
#include "deltapath/base/mem.h"
#include "deltapath/linalg/quantile.h"
#include "deltapath/tensor/redist.h"
#include "deltapath/tensor/role.h"

#include <omp.h>
#include <stddef.h>

/* What an edit needs in memory besides its input and its sink: what it holds from begin to end, and the most that one of
 * its steps takes in addition. */

typedef struct bytes_case {
    const dpt_edit_spec *spec; /* with what `allocate` stands for */
    const dpt_edit_input *input;
    const dpt_catalog *catalog, *out;
    bool gradient;
    int64_t own; /* most cells of a rank */
} bytes_case;

static int64_t bytes_larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static int64_t bytes_widest(const dpt_catalog *catalog) {
    int64_t widest = 1;
    for (int t = 0; t < catalog->count; t++)
        widest = bytes_larger(widest, dpt_dtype_size(catalog->tensors[t].dtype));
    return widest;
}

static bool bytes_is_covered(const bytes_case *of, const dpt_edit_stage_spec *stage, int t) {
    return dpt_edit_covers(stage, of->input, t);
}

/* Buffers of the engine: cells of both models and of the result, and the pieces of the threads. */
static int64_t bytes_of_stream(const bytes_case *of) {
    int64_t scratch =
        (int64_t)omp_get_max_threads() * DPT_EDIT_SCRATCH * DPT_EDIT_PIECE * (int64_t)sizeof(float);
    int64_t cells = (int64_t)DPT_CELL * (bytes_widest(of->input->pre.catalog) +
                                         bytes_widest(of->catalog) + bytes_widest(of->out));
    int64_t sums = of->own * DPT_EDIT_SUMS * (int64_t)sizeof(double);
    return scratch + cells + sums + of->catalog->count * (int64_t)sizeof(dpt_edit_tensor_stats);
}

/* Elements of a tensor that are held until all before them are done: of experts, those that are in work. */
static int64_t open_elements(const dpt_parts *parts, int tensor, int64_t numel, int groups) {
    dpt_part_item item = dpt_parts_item(parts, tensor, 0);
    int64_t in_work = (groups + 1) * item.end + DPT_CELL;
    return in_work < numel ? in_work : numel;
}

/* Deltas stay until all stages have seen them, and are not written at once. */
static bool bytes_keeps_deltas(const dpt_edit_spec *spec, int index) {
    bool keeps = spec->calibrate != DPT_CALIBRATE_NONE;
    for (int s = index + 1; s < spec->nstages; s++)
        keeps = keeps || dpt_edit_method_get(spec->stages[s].method)->prepare != NULL;
    for (int s = 0; s < index; s++)
        keeps = keeps || dpt_edit_own_only(&spec->stages[s]);
    return keeps;
}

/* Ranks that share a matrix, and which tensors the stage covers; 0 without memory. */
static int bytes_group(const bytes_case *of, const dpt_edit_stage_spec *spec, bool *covers) {
    const dpt_edit_stage stage = {
        .spec = spec, .input = of->input, .catalog = of->catalog, .covers = covers};
    for (int t = 0; t < of->catalog->count; t++)
        covers[t] = bytes_is_covered(of, spec, t);
    return dpt_edit_plan_group(&stage, of->input->shard->ranks);
}

/* The largest matrix of a rank, and the deltas that a rank holds until they are written: those of one
 * round, or of all matrices when a later stage must see them together. */
static int64_t bytes_of_whole(const bytes_case *of, int index) {
    const dpt_catalog *catalog = of->catalog;
    const dpt_parts *parts = of->input->parts;
    const dpt_edit_stage_spec *stage = &of->spec->stages[index];
    int64_t matrix = 0, largest = 0, all = 0;
    int ranks = of->input->shard->ranks;
    bool *covers = dpt_mem_zalloc(catalog->count, sizeof *covers, "tensors of an edit");
    int group = covers != NULL ? bytes_group(of, stage, covers) : 0;
    for (int t = 0; t < catalog->count && group > 0; t++) {
        if (!covers[t])
            continue;
        int64_t open = open_elements(parts, t, catalog->tensors[t].numel, ranks / group);
        for (int p = parts->first[t]; p < parts->first[t + 1]; p++) {
            dpt_edit_matrices m;
            if (dpt_edit_matrices_of(parts, p, &m))
                matrix = bytes_larger(matrix, dpt_edit_matrices_bytes(stage, parts, &m,
                                                                      dpt_edit_lowrank_svd(stage),
                                                                      group, true));
        }
        largest = bytes_larger(largest, open);
        all += catalog->tensors[t].numel;
    }
    dpt_mem_free(covers);
    /* The deltas of a tensor come after its decomposition, next to its rows. */
    const int64_t number = (int64_t)sizeof(float);
    int64_t after =
        (largest + largest / (group > 0 ? group : 1)) * number + dpt_redist_bytes(ranks);
    int64_t held = bytes_keeps_deltas(of->spec, index) ? all / ranks + DPT_CELL : 0;
    return bytes_larger(matrix, after) + held * number;
}

/* Rows of one output of all matrices, by the most that a tensor can have. */
static int64_t bytes_rows(const bytes_case *of) {
    const dpt_parts *parts = of->input->parts;
    int64_t rows = 0;
    for (int p = 0; p < parts->count; p++)
        if (dpt_role_is_matrix(&of->catalog->tensors[parts->items[p].tensor]))
            rows += parts->items[p].layout.rows;
    return rows;
}

/* A selection of magnitudes, of all tensors together or each by itself. */
static int64_t bytes_of_cuts(const bytes_case *of, const dpt_edit_stage_spec *stage, int cuts) {
    bool together = (int)dpt_edit_stage_get(stage, "scope") != 0; /* "tensor|model" */
    bool *covers = dpt_mem_zalloc(of->catalog->count, sizeof *covers, "tensors of an edit");
    int64_t bytes = 0;
    for (int t = 0; t < of->catalog->count && covers != NULL; t++)
        covers[t] = bytes_is_covered(of, stage, t);
    if (cuts > 0 && covers != NULL)
        bytes = dpt_quantile_bytes(of->input->shard, covers, together, cuts);
    dpt_mem_free(covers);
    return bytes;
}

/* What a stage holds until the end of the edit, and the most that its `prepare` takes besides. */
static void bytes_of_stage(const bytes_case *of, int index, int64_t *held, int64_t *step) {
    const dpt_edit_stage_spec *stage = &of->spec->stages[index];
    const dpt_edit_method *method = dpt_edit_method_get(stage->method);
    int64_t cell = (int64_t)DPT_CELL * (int64_t)sizeof(float), prepare = 0;
    if (method->by_row) {
        *held += bytes_rows(of) * (int64_t)sizeof(float);
        prepare = bytes_rows(of) * DPT_EDIT_ABS_SUMS * (int64_t)sizeof(double) + cell;
    }
    if (method->apply_cell != NULL)
        *held += dpt_edit_rows_bytes(of->catalog, of->input->selected, of->input->shard->ranks);
    if (method->whole)
        prepare = bytes_of_whole(of, index);
    if (method->cuts != NULL)
        prepare = bytes_of_cuts(of, stage, method->cuts(stage));
    *step = bytes_larger(*step, prepare);
}

int64_t dpt_edit_bytes(const dpt_edit_spec *spec, const dpt_edit_input *input,
                       const dpt_catalog *out, bool gradient) {
    dpt_edit_spec stands = *spec;
    bytes_case of = {.spec = &stands,
                     .input = input,
                     .catalog = input->post.catalog,
                     .out = out,
                     .gradient = gradient};
    for (int s = 0; s < spec->nstages; s++)
        if (dpt_edit_method_get(spec->stages[s].method)->found)
            dpt_edit_allocate_stage(&spec->stages[s], &stands.stages[s]);
    for (int r = 0; r < input->shard->ranks; r++)
        of.own =
            bytes_larger(of.own, input->shard->rank_first[r + 1] - input->shard->rank_first[r]);
    int64_t held = bytes_of_stream(&of);
    /* The report adds up the sums of all cells on every rank. */
    int64_t step = input->shard->cells * DPT_EDIT_SUMS * (int64_t)sizeof(double);
    for (int s = 0; s < spec->nstages; s++)
        bytes_of_stage(&of, s, &held, &step);
    if (spec->calibrate != DPT_CALIBRATE_NONE)
        step = bytes_larger(step, 2 * (int64_t)DPT_CELL * (int64_t)sizeof(float));
    if (gradient && dpt_edit_draws_mask(&stands))
        step = bytes_larger(step, (int64_t)DPT_CELL * (int64_t)(sizeof(float) + sizeof(uint8_t)));
    return held + step;
}

/* Bytes of both models of the tensors that a stage covers. @param[out] half  the half of them, from whole cells: as far
 * as the place of a cut is sought in each. */
static double bytes_covered(const dpt_edit_input *input, const dpt_edit_stage_spec *stage,
                            double *half) {
    double sum = 0.0;
    *half = 0.0;
    for (int t = 0; t < input->post.catalog->count; t++) {
        const dpt_tensor_info *post = &input->post.catalog->tensors[t];
        const dpt_tensor_info *pre = &input->pre.catalog->tensors[t];
        if (!dpt_edit_covers(stage, input, t))
            continue;
        double size = (double)(dpt_dtype_size(post->dtype) + dpt_dtype_size(pre->dtype));
        int64_t least = post->numel < DPT_CELL ? post->numel : DPT_CELL;
        sum += (double)post->numel * size;
        *half += (double)bytes_larger(least, post->numel / 2) * size;
    }
    return sum;
}

/* Whether a stage covers an embedding or a head of tokens. */
static bool bytes_has_vocabulary(const dpt_edit_input *input, const dpt_edit_stage_spec *stage) {
    for (int t = 0; t < input->post.catalog->count; t++)
        if (dpt_edit_covers(stage, input, t) &&
            dpt_role_has_vocabulary(input->post.catalog->tensors[t].name))
            return true;
    return false;
}

bool dpt_edit_reads_in_order(const dpt_edit_spec *spec) {
    const dpt_edit_method *method = dpt_edit_method_get(spec->stages[0].method);
    return method->cuts == NULL || method->cuts(&spec->stages[0]) == 0;
}

double dpt_edit_bytes_read(const dpt_edit_spec *spec, const dpt_edit_input *input, bool gradient) {
    double sum = (double)dpt_catalog_bytes(input->post.catalog), most = 0.0;
    bool masks = gradient;
    for (int s = 0; s < spec->nstages; s++) {
        const dpt_edit_method *method = dpt_edit_method_get(spec->stages[s].method);
        double half, covered = bytes_covered(input, &spec->stages[s], &half);
        sum += covered * (method->reads != NULL ? method->reads(&spec->stages[s]) : 0.0);
        int cuts = method->cuts != NULL ? method->cuts(&spec->stages[s]) : 0;
        sum += cuts * half;
        if (cuts > 0 && bytes_has_vocabulary(input, &spec->stages[s]))
            sum += DPT_QUANTILE_MISLED * covered;
        most = covered > most ? covered : most;
        if (masks && method->mask != NULL) {
            sum += covered; /* its correlation */
            masks = false;
        }
    }
    sum += most * (spec->calibrate != DPT_CALIBRATE_NONE ? 2.0 : 0.0);
    for (int t = 0; t < input->pre.catalog->count;
         t++) { /* to write: all of post, touched of pre */
        bool touched = false;
        for (int s = 0; s < spec->nstages; s++)
            touched = touched || dpt_edit_covers(&spec->stages[s], input, t);
        const dpt_tensor_info *pre = &input->pre.catalog->tensors[t];
        sum += touched ? (double)pre->numel * (double)dpt_dtype_size(pre->dtype) : 0.0;
    }
    return sum;
}

double dpt_edit_flops(const dpt_edit_spec *spec, const dpt_edit_input *input) {
    double flops = 0.0;
    for (int s = 0; s < spec->nstages; s++) {
        if (!dpt_edit_method_get(spec->stages[s].method)->whole)
            continue;
        for (int p = 0; p < input->parts->count; p++) {
            const dpt_part *part = &input->parts->items[p];
            dpt_edit_matrices m;
            if (!dpt_edit_covers(&spec->stages[s], input, part->tensor) ||
                !dpt_edit_matrices_of(input->parts, p, &m))
                continue;
            flops += dpt_edit_matrices_flops(&spec->stages[s], input->parts, &m);
        }
    }
    return flops;
}
