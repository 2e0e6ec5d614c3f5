#include "stage.h"
#include "allocate.h"
#include "group.h"
#include "rows.h"

#include "deltapath/edit/choices.h"
#include "deltapath/base/mem.h"
#include "deltapath/linalg/quantile.h"
#include "deltapath/tensor/redist.h"
#include "deltapath/tensor/role.h"

#include <math.h>
#include <omp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* What an edit needs in memory besides its input and its sink: what it holds from begin to end, and the most that one of
 * its steps takes in addition. */

enum { BITS_MOST = 8 }; /* of multibit */

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

/* Bits of each entry that `allocate` has for multibit on average, of the size that it is given. */
static int bytes_mean_bits(const dpt_edit_stage_spec *allocate, const dpt_edit_input *input) {
    const dpt_catalog *catalog = input->post.catalog;
    double bits = dpt_edit_value(allocate, DPT_ALLOCATE_MEAN), n = 0.0, covered = 0.0;
    double all = (double)dpt_catalog_bytes(catalog);
    for (int t = 0; t < catalog->count; t++)
        if (dpt_edit_covers(allocate, input, t)) {
            const dpt_tensor_info *info = &catalog->tensors[t];
            n += (double)info->numel;
            covered += (double)info->numel * (double)dpt_dtype_size(info->dtype);
        }
    if (!allocate->given[DPT_ALLOCATE_MEAN]) {
        double bytes = dpt_edit_value(allocate, DPT_ALLOCATE_BYTES);
        bytes = bytes <= 1.0 ? bytes * all : bytes;
        bits = n > 0.0 ? 8.0 * (bytes - (all - covered)) / n - 1.0 : 0.0;
    }
    return (int)fmin(fmax(rint(bits), 0.0), BITS_MOST);
}

/* The edit with what `allocate` stands for. @param[in] most  with the most bits that a tensor may get, else their mean. */
static dpt_edit_spec bytes_stand_for(const dpt_edit_spec *spec, const dpt_edit_input *input,
                                     bool most) {
    dpt_edit_spec stands = *spec;
    for (int s = 0; s < spec->nstages; s++) {
        const dpt_edit_stage_spec *allocate = &spec->stages[s];
        char bits[16];
        if (!dpt_edit_method_get(allocate->method)->found)
            continue;
        dpt_edit_allocate_stage(allocate, &stands.stages[s]);
        snprintf(bits, sizeof bits, "%d", most ? BITS_MOST : bytes_mean_bits(allocate, input));
        if ((int)dpt_edit_value(allocate, DPT_ALLOCATE_EDIT) == DPT_ALLOCATE_MULTIBIT &&
            dpt_edit_stage_set(&stands.stages[s], "bits", bits) != DPT_OK)
            dpt_error_clear(); /* cannot be: it is a number of bits that multibit takes */
    }
    return stands;
}

static bool bytes_is_covered(const bytes_case *of, const dpt_edit_stage_spec *stage, int t) {
    return dpt_edit_covers(stage, of->input, t);
}

/* Room of the engine: cells of both models and of the result, and the pieces of the threads. */
static int64_t bytes_of_room(const bytes_case *of) {
    int64_t scratch =
        (int64_t)omp_get_max_threads() * DPT_EDIT_SCRATCH * DPT_EDIT_PIECE * (int64_t)sizeof(float);
    int64_t cells = (int64_t)DPT_CELL * (bytes_widest(of->input->pre.catalog) +
                                         bytes_widest(of->catalog) + bytes_widest(of->out));
    return scratch + cells;
}

/* Statistics. */
static int64_t bytes_of_sums(const bytes_case *of) {
    int64_t sums = of->own * DPT_EDIT_SUMS * (int64_t)sizeof(double);
    return sums + of->catalog->count * (int64_t)sizeof(dpt_edit_tensor_stats);
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

/* Who decomposes what, and which tensors the stage covers; no groups without memory, or where they are refused. */
static dpt_edit_plan bytes_plan(const bytes_case *of, const dpt_edit_stage_spec *spec,
                                bool *covers) {
    const dpt_edit_stage stage = {
        .spec = spec, .input = of->input, .catalog = of->catalog, .covers = covers};
    dpt_edit_plan plan;
    for (int t = 0; t < of->catalog->count; t++)
        covers[t] = bytes_is_covered(of, spec, t);
    if (dpt_edit_plan_make(&stage, of->input->shard->ranks, &plan) != DPT_OK)
        dpt_error_clear(); /* the run says it */
    return plan;
}

/* Most deltas of a round that lie on one rank, which may have the cells of what all groups are at. */
static int64_t bytes_of_round(const bytes_case *of, const dpt_edit_plan *plan) {
    const dpt_shard *shard = of->input->shard;
    int64_t *open = dpt_mem_alloc(shard->ranks, sizeof *open, "deltas of ranks"), most = 0;
    int *seen = dpt_mem_zalloc(of->catalog->count, sizeof *seen, "tensors of a round");
    for (int round = 0; round < plan->rounds && open != NULL && seen != NULL; round++) {
        memset(open, 0, (size_t)shard->ranks * sizeof *open);
        for (int g = 0; g < plan->groups; g++) {
            int i = dpt_edit_plan_matrix(plan, g, round);
            int t = i >= 0 ? plan->matrices[i].tensor : -1;
            if (t < 0 || seen[t] == round + 1)
                continue;
            seen[t] = round + 1;
            int64_t limit =
                open_elements(of->input->parts, t, of->catalog->tensors[t].numel, plan->groups);
            for (int r = 0; r < shard->ranks; r++) {
                int64_t begin, end;
                dpt_shard_owned(shard, r, t, &begin, &end);
                open[r] += end - begin < limit ? end - begin : limit;
                most = bytes_larger(most, open[r]);
            }
        }
    }
    dpt_mem_free(open);
    dpt_mem_free(seen);
    return most;
}

/* Elements of small matrices that are made together, which may all lie on one rank, next to its rows of them. */
static int64_t bytes_of_bundle(int ranks, int64_t all) {
    int64_t most = (int64_t)ranks * DPT_EDIT_TOGETHER;
    most = most < DPT_EDIT_TOGETHER_ALL ? most : DPT_EDIT_TOGETHER_ALL;
    most = most < all ? most : all;
    return most + (most < DPT_EDIT_TOGETHER ? most : DPT_EDIT_TOGETHER);
}

/* The largest matrix of a rank, and the deltas that a rank holds until they are written: those of one
 * round, or of all matrices when a later stage must see them together. */
static int64_t bytes_of_whole(const bytes_case *of, int index, int64_t *held) {
    const dpt_catalog *catalog = of->catalog;
    const dpt_parts *parts = of->input->parts;
    const dpt_edit_stage_spec *stage = &of->spec->stages[index];
    int64_t matrix = 0, slab = 0, open = 0, all = 0;
    int ranks = of->input->shard->ranks;
    bool *covers = dpt_mem_zalloc(catalog->count, sizeof *covers, "tensors of an edit");
    dpt_edit_plan plan = {.groups = 0};
    if (covers != NULL)
        plan = bytes_plan(of, stage, covers);
    for (int i = 0; i < plan.count; i++) {
        const dpt_edit_matrices *m = &plan.matrices[i];
        matrix = bytes_larger(matrix, dpt_edit_matrices_bytes(stage, parts, m, plan.size, true));
        slab = bytes_larger(slab, dpt_edit_matrices_slab(m, plan.size));
    }
    for (int t = 0; t < catalog->count && plan.groups > 0; t++)
        all += covers[t] ? catalog->tensors[t].numel : 0;
    if (plan.groups > 0)
        open = bytes_of_round(of, &plan);
    dpt_edit_plan_destroy(&plan);
    dpt_mem_free(covers);
    /* Deltas come after the decomposition, next to its rows, and so do those of small matrices. */
    const int64_t number = (int64_t)sizeof(float);
    int64_t after =
        bytes_larger(open + slab, bytes_of_bundle(ranks, all)) * number + dpt_redist_bytes(ranks);
    if (bytes_keeps_deltas(of->spec, index))
        *held += (all / ranks + DPT_CELL) * number;
    return bytes_larger(matrix, after);
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
        prepare = bytes_of_whole(of, index, held);
    if (method->cuts != NULL)
        prepare = bytes_of_cuts(of, stage, method->cuts(stage));
    *step = bytes_larger(*step, prepare);
}

dpt_edit_needs dpt_edit_bytes(const dpt_edit_spec *spec, const dpt_edit_input *input,
                              const dpt_catalog *out, bool gradient) {
    dpt_edit_spec stands = bytes_stand_for(spec, input, true);
    bytes_case of = {.spec = &stands,
                     .input = input,
                     .catalog = input->post.catalog,
                     .out = out,
                     .gradient = gradient};
    for (int r = 0; r < input->shard->ranks; r++)
        of.own =
            bytes_larger(of.own, input->shard->rank_first[r + 1] - input->shard->rank_first[r]);
    int64_t held = bytes_of_sums(&of);
    /* The report adds up the sums of all cells on every rank. */
    int64_t step = input->shard->cells * DPT_EDIT_SUMS * (int64_t)sizeof(double);
    for (int s = 0; s < spec->nstages; s++)
        bytes_of_stage(&of, s, &held, &step);
    if (spec->calibrate != DPT_CALIBRATE_NONE)
        step = bytes_larger(step, 2 * (int64_t)DPT_CELL * (int64_t)sizeof(float));
    if (gradient && dpt_edit_draws_mask(&stands))
        step = bytes_larger(step, (int64_t)DPT_CELL * (int64_t)(sizeof(float) + sizeof(uint8_t)));
    return (dpt_edit_needs){.shared = bytes_of_room(&of), .held = held, .step = step};
}

bool dpt_edit_joins(const dpt_edit_spec *spec) {
    for (int s = 0; s < spec->nstages; s++) {
        const dpt_edit_method *method = dpt_edit_method_get(spec->stages[s].method);
        if (method->whole || method->found)
            return false;
    }
    return true;
}

/* Bytes of a tensor of the post- or the pre-trained model in its files. */
static double bytes_of_tensor(const dpt_edit_input *input, bool post, int t) {
    const double *stored = post ? input->post_bytes : input->pre_bytes;
    const dpt_catalog *catalog = post ? input->post.catalog : input->pre.catalog;
    const dpt_tensor_info *info = &catalog->tensors[t];
    return stored != NULL ? stored[t] : (double)info->numel * (double)dpt_dtype_size(info->dtype);
}

/* Bytes of both models of the tensors that a stage covers. @param[out] half  the half of them, from whole cells: as far
 * as the place of a cut is sought in each. */
static double bytes_covered(const dpt_edit_input *input, const dpt_edit_stage_spec *stage,
                            double *half) {
    double sum = 0.0;
    *half = 0.0;
    for (int t = 0; t < input->post.catalog->count; t++) {
        if (!dpt_edit_covers(stage, input, t))
            continue;
        double bytes = bytes_of_tensor(input, true, t) + bytes_of_tensor(input, false, t);
        double n = fmax((double)input->post.catalog->tensors[t].numel, 1.0);
        sum += bytes;
        *half += bytes * fmax(fmin(n, DPT_CELL), n / 2.0) / n;
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

static bool bytes_in_order(const dpt_edit_spec *spec) {
    const dpt_edit_method *method = dpt_edit_method_get(spec->stages[0].method);
    return method->cuts == NULL || method->cuts(&spec->stages[0]) == 0;
}

bool dpt_edit_reads_in_order(const dpt_edit_spec *spec, const dpt_edit_input *input) {
    dpt_edit_spec stands = bytes_stand_for(spec, input, false);
    return bytes_in_order(&stands);
}

/* Tensors that a mask is drawn for, and the mask's deltas correlated with a gradient, once. */
static double bytes_of_correlation(const dpt_edit_spec *spec, const dpt_edit_input *input) {
    double half;
    for (int s = 0; s < spec->nstages; s++)
        if (dpt_edit_method_get(spec->stages[s].method)->mask != NULL)
            return bytes_covered(input, &spec->stages[s], &half);
    return 0.0;
}

double dpt_edit_correlation_bytes(const dpt_edit_spec *spec, const dpt_edit_input *input) {
    dpt_edit_spec stands = bytes_stand_for(spec, input, false);
    return bytes_of_correlation(&stands, input);
}

/* Passes of `prepare` over the deltas. */
static double bytes_of_prepare(const dpt_edit_spec *spec, const dpt_edit_input *input) {
    double sum = 0.0, most = 0.0;
    bool held = false; /* what a stage made of whole matrices stays in memory */
    for (int s = 0; s < spec->nstages; s++) {
        const dpt_edit_method *method = dpt_edit_method_get(spec->stages[s].method);
        double half, covered = bytes_covered(input, &spec->stages[s], &half);
        held = held || method->whole;
        sum += covered * (method->reads != NULL ? method->reads(&spec->stages[s]) : 0.0);
        int cuts = method->cuts != NULL ? method->cuts(&spec->stages[s]) : 0;
        sum += cuts * half;
        if (cuts > 0 && bytes_has_vocabulary(input, &spec->stages[s]))
            sum += DPT_QUANTILE_MISLED * covered;
        most = covered > most ? covered : most;
    }
    if (spec->calibrate != DPT_CALIBRATE_NONE)
        sum += (held ? 1.0 : 2.0) * most; /* Delta and F(Delta) */
    return sum;
}

/* Whether an edit changes a tensor. */
static bool bytes_touches(const dpt_edit_spec *spec, const dpt_edit_input *input, int t) {
    for (int s = 0; s < spec->nstages; s++)
        if (dpt_edit_covers(&spec->stages[s], input, t))
            return true;
    return false;
}

double dpt_edit_bytes_made(int count, const dpt_edit_spec *const *specs,
                           const dpt_edit_input *input, bool written) {
    double sum = 0.0;
    for (int t = 0; t < input->pre.catalog->count; t++) {
        bool touched = false;
        for (int i = 0; i < count && !touched; i++)
            touched = bytes_touches(specs[i], input, t);
        sum += touched || written ? bytes_of_tensor(input, true, t) : 0.0;
        sum += touched ? bytes_of_tensor(input, false, t) : 0.0;
    }
    return sum;
}

/* One run. */
static double bytes_of_run(const dpt_edit_spec *spec, const dpt_edit_input *input) {
    return bytes_of_prepare(spec, input) + dpt_edit_bytes_made(1, &spec, input, true);
}

double dpt_edit_bytes_prepared(const dpt_edit_spec *spec, const dpt_edit_input *input) {
    dpt_edit_spec stands = bytes_stand_for(spec, input, false);
    return bytes_of_prepare(&stands, input);
}

/* Stages before that see whole cells have read them already. */
double dpt_edit_bytes_decomposed(const dpt_edit_spec *spec, const dpt_edit_input *input) {
    double half;
    for (int s = 0; s < spec->nstages && !dpt_edit_own_only(&spec->stages[s]); s++)
        if (dpt_edit_method_get(spec->stages[s].method)->whole)
            return bytes_covered(input, &spec->stages[s], &half);
    return 0.0;
}

/* What `allocate` reads before the edit is known: every matrix decomposed, or magnitudes counted. */
static double bytes_of_search(const dpt_edit_spec *spec, const dpt_edit_spec *stands,
                              const dpt_edit_input *input) {
    double half, sum = 0.0;
    for (int s = 0; s < spec->nstages; s++) {
        if (!dpt_edit_method_get(spec->stages[s].method)->found)
            continue;
        int edit = (int)dpt_edit_value(&spec->stages[s], DPT_ALLOCATE_EDIT);
        if (edit == DPT_ALLOCATE_LOWRANK)
            sum += bytes_of_prepare(stands, input) + dpt_edit_bytes_made(1, &stands, input, false);
        else if (edit != DPT_ALLOCATE_DARE)
            sum += bytes_covered(input, &stands->stages[s], &half);
    }
    return sum;
}

double dpt_edit_bytes_read(const dpt_edit_spec *spec, const dpt_edit_input *input, bool gradient) {
    dpt_edit_spec stands = bytes_stand_for(spec, input, false);
    return bytes_of_run(&stands, input) + bytes_of_search(spec, &stands, input) +
           (gradient ? bytes_of_correlation(&stands, input) : 0.0);
}

/* A multiply-add of single precision takes as long as one operation in double. */
double dpt_edit_decompositions(const dpt_edit_spec *spec, const dpt_edit_input *input,
                               double *flops) {
    dpt_edit_spec stands = bytes_stand_for(spec, input, false);
    double count = 0.0;
    *flops = 0.0;
    for (int s = 0; s < spec->nstages; s++) {
        const dpt_edit_stage_spec *stage = &stands.stages[s];
        double runs = dpt_edit_method_get(spec->stages[s].method)->found ? 2.0 : 1.0;
        if (!dpt_edit_method_get(stage->method)->whole)
            continue;
        for (int p = 0; p < input->parts->count; p++) {
            const dpt_part *part = &input->parts->items[p];
            dpt_edit_matrices m;
            if (!dpt_edit_covers(stage, input, part->tensor) ||
                !dpt_edit_matrices_of(input->parts, p, &m))
                continue;
            count += runs * m.count;
            *flops += runs * dpt_edit_matrices_cost(stage, input->parts, &m);
        }
    }
    return count;
}
