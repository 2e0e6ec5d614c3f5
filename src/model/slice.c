#include "transformer.h"

#include "deltapath/tensor/shard.h"

/* Axes of which each rank has a share; the heads have their own rule. */
static const bool slice_splits[DPT_AXES] = {
    [DPT_AXIS_HEADS] = true,      [DPT_AXIS_KV_HEADS] = true, [DPT_AXIS_UNITS] = true,
    [DPT_AXIS_VOCABULARY] = true, [DPT_AXIS_PIXELS] = true,   [DPT_AXIS_INPUTS] = true};

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
    out->begin[DPT_AXIS_KV_HEADS] = first_kv * hd;
    out->end[DPT_AXIS_KV_HEADS] = (first_kv + out->kv_heads) * hd;
}

void dpt_slice_find(const dpt_arch *arch, int rank, int size, dpt_slice *out) {
    *out = (dpt_slice){.first = rank == 0};
    for (int axis = 0; axis < DPT_AXES; axis++) {
        out->end[axis] = arch->length[axis];
        if (slice_splits[axis])
            dpt_shard_split(arch->length[axis], size, rank, &out->begin[axis], &out->end[axis]);
    }
    slice_find_heads(arch, rank, size, out);
    out->rows_maximum = (arch->length[DPT_AXIS_VOCABULARY] + size - 1) / size;
    out->q = slice_width(out, DPT_AXIS_HEADS);
    out->kv = slice_width(out, DPT_AXIS_KV_HEADS);
    out->qkv = out->q + 2 * out->kv;
    out->f = slice_width(out, DPT_AXIS_UNITS);
    out->hidden = arch->row[DPT_SLOT_GATE] != NULL ? 2 * out->f : out->f;
    out->v = slice_width(out, DPT_AXIS_VOCABULARY);
}

/* The part of a row that this rank has. */
static dpt_param_part slice_of_row(const dpt_model *model, const dpt_row *row) {
    const dpt_arch *arch = &model->arch;
    const dpt_slice *slice = &model->slice;
    bool vector = row->cols == DPT_AXIS_NONE;
    dpt_param_part out = {.ndim = vector ? 1 : 2,
                          .sides = {arch->length[row->rows], arch->length[row->cols]},
                          .cols = vector ? 1 : arch->length[row->cols],
                          .row_begin = slice->begin[row->rows],
                          .row_end = slice->end[row->rows],
                          .col_begin = slice->begin[row->cols],
                          .col_end = vector ? 1 : slice->end[row->cols],
                          .columns = slice_splits[row->cols]};
    for (int i = 0; i < 4 && row->stored[i] != DPT_AXIS_NONE; i++) {
        out.sides[i] = arch->length[row->stored[i]];
        out.ndim = i + 1;
    }
    if (row->share == DPT_SHARE_FIRST && !slice->first)
        out.row_end = out.row_begin;
    out.counted = row->share == DPT_SHARE_EACH || (slice->first && row->share != DPT_SHARE_FIXED);
    return out;
}

static void slice_claim_row(dpt_model *model, int64_t layer, dpt_slot slot) {
    const dpt_row *row = model->arch.row[slot];
    dpt_param_part part = slice_of_row(model, row);
    char name[160];
    dpt_arch_name(row, layer, name, sizeof name);
    dpt_params_claim(&model->params, dpt_arch_index(&model->arch, layer, slot), name, &part);
}

static bool slice_ignores(const void *ctx, const char *name) {
    const dpt_arch *arch = ctx;
    return arch->family->ignores(arch, name);
}

dpt_status dpt_slice_claim(dpt_model *model) {
    const dpt_arch *arch = &model->arch;
    dpt_status st = dpt_params_create(&model->catalog, (int)dpt_arch_count(arch), &model->params);
    if (st != DPT_OK)
        return st;
    for (int64_t layer = -1; layer < arch->layers; layer++) /* -1: what the whole model has */
        for (int slot = 0; slot < DPT_SLOTS; slot++)
            if (arch->row[slot] != NULL && dpt_slot_is_of_layer(slot) == (layer >= 0))
                slice_claim_row(model, layer, (dpt_slot)slot);
    return dpt_params_check(&model->params, slice_ignores, arch);
}
