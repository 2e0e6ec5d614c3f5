#include "transformer.h"

/* Matrices of experts and of products in fp32 are formed where they are used, some rows at a time. */
static int64_t weights_numel(const dpt_model *model, dpt_slot slot) {
    const dpt_row *row = model->arch.row[slot];
    int index = dpt_slice_index(model, slot);
    if (row != NULL && row->expert && row->cols != DPT_AXIS_NONE)
        return 0;
    if (dpt_slot_is_product(slot) && !model->has_bf16)
        return 0;
    return index >= 0 ? dpt_param_numel(&model->params.items[index]) : 0;
}

/* Room for the slots [begin, end): each row from a cache line on, stacked ones after the row before them. */
static int64_t weights_place_range(const dpt_model *model, dpt_slot begin, dpt_slot end,
                                   float *arena, float **w) {
    int64_t used = 0;
    for (int slot = (int)begin; slot < (int)end; slot++) {
        const dpt_row *row = model->arch.row[slot];
        int64_t n = weights_numel(model, (dpt_slot)slot);
        if (row == NULL || !row->stacked)
            used = (used + 15) / 16 * 16;
        w[slot] = arena != NULL && n > 0 ? arena + used : NULL;
        used += n;
    }
    return used;
}

/* The weights of the embedding, of a layer and of the head take the same room one after the other. */
static int64_t weights_place_all(const dpt_model *model, float *arena, float **w) {
    int64_t embed = weights_place_range(model, DPT_SLOTS_EMBED, DPT_SLOTS_LAYER, arena, w);
    int64_t layer = weights_place_range(model, DPT_SLOTS_LAYER, DPT_SLOTS_HEAD, arena, w);
    int64_t head = weights_place_range(model, DPT_SLOTS_HEAD, DPT_SLOTS, arena, w);
    int64_t maximum = layer > embed ? layer : embed;
    return maximum > head ? maximum : head;
}

int64_t dpt_weights_floats(const dpt_model *model) {
    float *w[DPT_SLOTS];
    return weights_place_all(model, NULL, w);
}

void dpt_weights_place(const dpt_model *model, float *arena, float **w) {
    weights_place_all(model, arena, w);
}

/* Slots whose weights are factors of a norm. */
static const bool weights_is_norm[DPT_SLOTS] = {
    [DPT_SLOT_EMBED_NORM] = true, [DPT_SLOT_NORM1] = true,      [DPT_SLOT_Q_NORM] = true,
    [DPT_SLOT_K_NORM] = true,     [DPT_SLOT_OUT_NORM1] = true,  [DPT_SLOT_NORM2] = true,
    [DPT_SLOT_OUT_NORM2] = true,  [DPT_SLOT_FINAL_NORM] = true, [DPT_SLOT_POOL_NORM] = true};

/* The matrices of products. */
static const bool weights_is_product[DPT_SLOTS] = {
    [DPT_SLOT_PATCH] = true,   [DPT_SLOT_Q] = true,         [DPT_SLOT_K] = true,
    [DPT_SLOT_V] = true,       [DPT_SLOT_O] = true,         [DPT_SLOT_GATE] = true,
    [DPT_SLOT_UP] = true,      [DPT_SLOT_DOWN] = true,      [DPT_SLOT_POOL_Q] = true,
    [DPT_SLOT_POOL_K] = true,  [DPT_SLOT_POOL_V] = true,    [DPT_SLOT_POOL_O] = true,
    [DPT_SLOT_POOL_UP] = true, [DPT_SLOT_POOL_DOWN] = true, [DPT_SLOT_HEAD] = true,
    [DPT_SLOT_TEXT] = true};

bool dpt_slot_is_product(dpt_slot slot) {
    return weights_is_product[slot];
}

/* The two matrices whose sum is W(t), where it is not made of values as they are stored. */
static void weights_form_split(const dpt_param *param, double t, float *room) {
    uint16_t *high = (uint16_t *)(void *)room;
    dpt_param_stored stored;
    if (!dpt_param_get_stored(param, t, false, &stored))
        dpt_param_weights_split(param, t, 0, param->rows, high, high + dpt_param_numel(param));
}

static void weights_form_one(const dpt_pass *pass, int slot, int index) {
    const dpt_row *row = pass->arch->row[slot];
    const dpt_param *param = &pass->model->params.items[index];
    bool fixed = row != NULL && row->share == DPT_SHARE_FIXED;
    float *out = pass->work->w[slot];
    dpt_shares_progress(pass->params);
    double t = fixed ? 0.0 : pass->call->t;
    if (weights_is_product[slot]) {
        if (pass->bf16 != NULL)
            weights_form_split(param, t, out);
        return;
    }
    dpt_param_weights(param, t, 0, param->rows, out);
    if (weights_is_norm[slot] && pass->arch->norm == DPT_NORM_RMS_UNIT)
        for (int64_t i = 0; i < dpt_param_numel(param); i++)
            out[i] += 1.0F;
}

void dpt_weights_form(const dpt_pass *pass, int64_t layer, dpt_slot begin, dpt_slot end) {
    for (int slot = (int)begin; slot < (int)end; slot++) {
        const dpt_row *row = pass->arch->row[slot];
        if (pass->work->w[slot] != NULL && (row == NULL || !row->expert))
            weights_form_one(pass, slot, dpt_pass_index(pass, layer, (dpt_slot)slot));
    }
}

void dpt_weights_form_expert(const dpt_pass *pass, int64_t layer, int64_t expert) {
    for (int slot = DPT_SLOTS_LAYER; slot < DPT_SLOTS_HEAD; slot++) {
        const dpt_row *row = pass->arch->row[slot];
        if (pass->work->w[slot] != NULL && row != NULL && row->expert)
            weights_form_one(pass, slot,
                             dpt_arch_index_expert(pass->arch, layer, (dpt_slot)slot, expert));
    }
}
