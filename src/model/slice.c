#include "transformer.h"

#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/tensor/prefix.h"
#include "deltapath/tensor/shard.h"

#include <string.h>

/* Axes of which each rank has a share; the heads have their own rule. */
static const bool slice_splits[DPT_AXES] = {
    [DPT_AXIS_HEADS] = true,      [DPT_AXIS_KV_HEADS] = true, [DPT_AXIS_UNITS] = true,
    [DPT_AXIS_VOCABULARY] = true, [DPT_AXIS_PIXELS] = true,   [DPT_AXIS_INPUTS] = true,
    [DPT_AXIS_HEAD_COUNT] = true};

static int64_t slice_width(const dpt_slice *slice, dpt_axis axis) {
    return slice->end[axis] - slice->begin[axis];
}

/* A boundary inside a group of query heads leaves its key-value head on both sides. Each side has the part of
 * dk and dv that its own queries give, and the parts add up over the ranks. */
static void slice_find_heads(const dpt_arch *arch, int rank, int size, dpt_slice *out) {
    int64_t end, hd = arch->head_dim, group = arch->heads / arch->kv_heads, first_kv = 0;
    dpt_shard_split(arch->heads, size, rank, &out->first_head, &end);
    out->heads = end - out->first_head;
    if (out->heads > 0) {
        first_kv = out->first_head / group;
        out->kv_heads = (end - 1) / group + 1 - first_kv;
    }
    out->begin[DPT_AXIS_HEADS] = out->first_head * hd;
    out->end[DPT_AXIS_HEADS] = end * hd;
    out->begin[DPT_AXIS_HEAD_COUNT] = out->first_head;
    out->end[DPT_AXIS_HEAD_COUNT] = end;
    out->begin[DPT_AXIS_KV_HEADS] = first_kv * hd;
    out->end[DPT_AXIS_KV_HEADS] = (first_kv + out->kv_heads) * hd;
}

void dpt_slice_find(const dpt_arch *arch, int rank, int size, dpt_slice *out) {
    *out = (dpt_slice){.first = rank == 0, .ranks = size};
    for (int axis = 0; axis < DPT_AXES; axis++) {
        out->end[axis] = arch->length[axis];
        if (slice_splits[axis])
            dpt_shard_split(arch->length[axis], size, rank, &out->begin[axis], &out->end[axis]);
    }
    slice_find_heads(arch, rank, size, out);
    dpt_shard_split(arch->experts.count, size, rank, &out->expert_begin, &out->expert_end);
    out->rows_maximum = (arch->length[DPT_AXIS_VOCABULARY] + size - 1) / size;
    out->q = slice_width(out, DPT_AXIS_HEADS);
    out->kv = slice_width(out, DPT_AXIS_KV_HEADS);
    out->qkv = out->q + 2 * out->kv;
    out->f = slice_width(out, DPT_AXIS_UNITS);
    out->hidden = arch->row[DPT_SLOT_GATE] != NULL ? 2 * out->f : out->f;
    out->v = slice_width(out, DPT_AXIS_VOCABULARY);
}

/* A matrix that is all of its tensor. */
static dpt_layout slice_whole(int64_t rows, int64_t cols) {
    return (dpt_layout){.rows = rows,
                        .cols = cols,
                        .run = rows > 0 ? rows : 1,
                        .run_stride = rows * cols,
                        .row_stride = cols,
                        .col_stride = 1};
}

bool dpt_slice_is_like(const dpt_slice *a, const dpt_slice *b) {
    bool like = a->first == b->first && a->heads == b->heads && a->kv_heads == b->kv_heads &&
                a->expert_end - a->expert_begin == b->expert_end - b->expert_begin;
    for (int axis = 0; axis < DPT_AXES; axis++)
        like = like && slice_width(a, (dpt_axis)axis) == slice_width(b, (dpt_axis)axis);
    return like;
}

/* The part of a row, or of an expert's, that this rank has. */
static dpt_param_part slice_of_row(const dpt_model *model, const dpt_row *row, int64_t expert,
                                   int tensor) {
    const dpt_arch *arch = &model->arch;
    const dpt_slice *slice = &model->slice;
    bool vector = row->cols == DPT_AXIS_NONE;
    dpt_param_part out = {
        .tensor = tensor,
        .matrix = -1,
        .layout = slice_whole(arch->length[row->rows], vector ? 1 : arch->length[row->cols]),
        .row_begin = slice->begin[row->rows],
        .row_end = slice->end[row->rows],
        .col_begin = slice->begin[row->cols],
        .col_end = vector ? 1 : slice->end[row->cols],
        .rows_split = slice_splits[row->rows],
        .cols_split = slice_splits[row->cols]};
    bool here = !row->expert || (expert >= slice->expert_begin && expert < slice->expert_end);
    if (!here || (row->share == DPT_SHARE_FIRST && !slice->first))
        out.row_end = out.row_begin;
    out.counted = row->share == DPT_SHARE_EACH || (slice->first && row->share != DPT_SHARE_FIXED);
    return out;
}

dpt_tensor_info dpt_slice_shape(const dpt_arch *arch, const dpt_row *row) {
    const dpt_axis own[] = {row->rows, row->cols, DPT_AXIS_NONE};
    const dpt_axis *axes = row->stored[0] != DPT_AXIS_NONE ? row->stored : own;
    dpt_tensor_info info = {.ndim = 0};
    while (info.ndim < 4 && axes[info.ndim] != DPT_AXIS_NONE) {
        info.shape[info.ndim] = arch->length[axes[info.ndim]];
        info.ndim++;
    }
    return info;
}

static bool slice_same_shape(const dpt_tensor_info *a, const dpt_tensor_info *b) {
    return a->ndim == b->ndim &&
           memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof a->shape[0]) == 0;
}

/* Claim a tensor that is this row's alone. */
static void slice_claim_whole(dpt_model *model, const dpt_row *row, int i,
                              const dpt_param_part *part) {
    const dpt_tensor_info *info = &model->catalog.tensors[part->tensor];
    dpt_tensor_info wanted = dpt_slice_shape(&model->arch, row);
    char shape[128], right[128];
    if (slice_same_shape(info, &wanted)) {
        dpt_params_claim(&model->params, i, part);
        return;
    }
    dpt_catalog_shape_text(info, shape, sizeof shape);
    dpt_catalog_shape_text(&wanted, right, sizeof right);
    dpt_params_refuse(
        &model->params, i, part->tensor,
        dpt_mem_format("tensor %s has the shape %s in place of %s", info->name, shape, right));
}

/* Where the claims look: parts of stored tensors, and names without their prefixes. */
typedef struct slice_tables {
    dpt_parts parts; /* empty where no row is a part */
    int *number;     /* (parts) dpt_parts_number */
    dpt_prefix_index names;
} slice_tables;

static dpt_status slice_tables_create(dpt_model *model, slice_tables *out) {
    bool parts = false;
    *out = (slice_tables){.parts = {.count = 0}};
    for (int slot = 0; slot < DPT_SLOTS; slot++)
        parts = parts || (model->arch.row[slot] != NULL && model->arch.row[slot]->part != 0);
    dpt_status st = DPT_OK;
    if (parts)
        st = dpt_parts_create(&model->catalog, model->arch.heads, &out->parts);
    if (st != DPT_OK)
        return st;
    out->number = dpt_mem_alloc(out->parts.count, sizeof *out->number, "numbers of matrices");
    st = out->number != NULL ? dpt_prefix_index_create(&model->catalog, &out->names)
                             : DPT_ERR_OUTPUT;
    if (st == DPT_OK) {
        model->matrices = dpt_parts_number(&out->parts, out->number);
    } else {
        dpt_mem_free(out->number);
        dpt_parts_destroy(&out->parts);
    }
    return st;
}

static void slice_tables_destroy(slice_tables *tables) {
    dpt_mem_free(tables->number);
    dpt_parts_destroy(&tables->parts);
    dpt_prefix_index_destroy(&tables->names);
}

/* Claim what is stored of a row in a tensor that it shares, or as a transpose: the lengths of its axes must be those
 * that are stored. */
static void slice_claim_part(dpt_model *model, const slice_tables *tables, const dpt_row *row,
                             int i, int64_t expert, dpt_param_part *part) {
    const dpt_tensor_info *info = &model->catalog.tensors[part->tensor];
    int64_t rows = part->layout.rows, cols = part->layout.cols;
    const dpt_part *stored =
        dpt_parts_find(&tables->parts, part->tensor, row->part, row->expert ? (int)expert : -1);
    if (stored != NULL && stored->layout.rows == rows && stored->layout.cols == cols) {
        part->layout = stored->layout;
        part->matrix = tables->number[stored - tables->parts.items];
        dpt_params_claim(&model->params, i, part);
        return;
    }
    char shape[128], right[128];
    dpt_tensor_info wanted = {.ndim = row->cols == DPT_AXIS_NONE ? 1 : 2, .shape = {rows, cols}};
    dpt_catalog_shape_text(info, shape, sizeof shape);
    dpt_catalog_shape_text(&wanted, right, sizeof right);
    dpt_params_refuse(
        &model->params, i, part->tensor,
        dpt_mem_format("tensor %s has the shape %s, which does not hold %s of the shape %s%s",
                       info->name, shape, dpt_role_name(row->part), right,
                       row->expert ? " for each expert" : ""));
}

/* Under the name of the table, or one that differs by prefixes alone. */
static void slice_claim_row(dpt_model *model, const slice_tables *tables, int64_t layer,
                            dpt_slot slot) {
    const dpt_row *row = model->arch.row[slot];
    for (int64_t expert = 0; expert < dpt_arch_copies(&model->arch, row); expert++) {
        int i = dpt_arch_index_expert(&model->arch, layer, slot, expert);
        char name[160];
        dpt_arch_name(&model->arch, row, layer, expert, name, sizeof name);
        int tensor = dpt_prefix_find(&tables->names, name);
        dpt_param_part part = slice_of_row(model, row, expert, tensor);
        if (tensor < 0)
            dpt_params_refuse(
                &model->params, i, -1,
                dpt_mem_format("tensor %s is missing%s", name,
                               slot == DPT_SLOT_HEAD && model->arch.row[DPT_SLOT_TOKENS] != NULL
                                   ? ": write `tie_word_embeddings: true` in config.json where the "
                                     "embedding is the head"
                                   : ""));
        else if (row->part == 0)
            slice_claim_whole(model, row, i, &part);
        else
            slice_claim_part(model, tables, row, i, expert, &part);
    }
}

int dpt_slice_index(const dpt_model *model, dpt_slot slot) {
    const dpt_row *row = model->arch.row[slot];
    const dpt_slice *slice = &model->slice;
    bool expert = row != NULL && row->expert && slice->expert_begin < slice->expert_end;
    return dpt_arch_index_expert(&model->arch, 0, slot, expert ? slice->expert_begin : 0);
}

static bool slice_ignores(const void *ctx, const char *name) {
    const dpt_arch *arch = ctx;
    return arch->family->ignores(arch, dpt_prefix_skip(name)) ||
           dpt_arch_is_tied_head(arch, name) || dpt_arch_is_outside(arch, name);
}

void dpt_slice_say_names(const dpt_model *model) {
    const dpt_arch *arch = &model->arch;
    const dpt_row *row = NULL;
    char name[160];
    for (int slot = 0; slot < DPT_SLOTS && row == NULL; slot++)
        row = dpt_slot_is_of_layer(slot) ? NULL : arch->row[slot];
    if (row == NULL)
        return;
    dpt_arch_name(arch, row, -1, 0, name, sizeof name);
    int claimed = model->params.items[dpt_arch_index(arch, -1, row->slot)].tensor;
    const char *stored = dpt_catalog_alias(&model->catalog.tensors[claimed]);
    if (strcmp(stored, name) != 0)
        dpt_log(DPT_LOG_INFO,
                "model: names have other prefixes than this architecture's: '%s' for '%s'", stored,
                name);
}

dpt_status dpt_slice_claim(dpt_model *model) {
    const dpt_arch *arch = &model->arch;
    slice_tables tables;
    dpt_status st = dpt_params_create(&model->catalog, dpt_arch_count(arch), &model->params);
    if (st == DPT_OK)
        st = slice_tables_create(model, &tables);
    if (st != DPT_OK)
        return st;
    for (int64_t layer = -1; layer < arch->layers; layer++) /* -1: what the whole model has */
        for (int slot = 0; slot < DPT_SLOTS; slot++)
            if (arch->row[slot] != NULL && dpt_slot_is_of_layer(slot) == (layer >= 0))
                slice_claim_row(model, &tables, layer, (dpt_slot)slot);
    slice_tables_destroy(&tables);
    return dpt_params_check(&model->params, slice_ignores, arch);
}

/* Step of a pass that reads each matrix: 0 what comes before the layers, then each layer, then what comes after. */
static int *slice_make_units(const dpt_model *model) {
    const dpt_arch *arch = &model->arch;
    int *unit = dpt_mem_zalloc(model->params.count, sizeof *unit, "layers of matrices");
    if (unit == NULL)
        return NULL;
    for (int slot = DPT_SLOTS_HEAD; slot < DPT_SLOTS; slot++)
        for (int64_t copy = 0;
             arch->row[slot] != NULL && copy < dpt_arch_copies(arch, arch->row[slot]); copy++)
            unit[arch->number[slot] + copy] = dpt_pass_unit_head(arch);
    for (int i = arch->whole; i < model->params.count; i++)
        unit[i] = dpt_pass_unit_layer((i - arch->whole) / arch->per_layer);
    return unit;
}

dpt_status dpt_slice_share(dpt_model *model, const dpt_comm *replicas) {
    int *unit = slice_make_units(model);
    dpt_status st = dpt_agree(replicas, unit != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    if (st == DPT_OK)
        st = dpt_shares_create(replicas, &model->params, unit, dpt_pass_unit_head(&model->arch) + 1,
                               model->arch.tied);
    dpt_mem_free(unit);
    return st;
}

dpt_status dpt_slice_plan(dpt_model *model, int replicas, int machines) {
    int *unit = slice_make_units(model);
    dpt_status st = unit != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    if (st == DPT_OK)
        st = dpt_shares_plan(&model->params, unit, dpt_pass_unit_head(&model->arch) + 1,
                             model->arch.tied, replicas, machines);
    dpt_mem_free(unit);
    return st;
}
