#include "transformer.h"

static int64_t weights_numel(const dpt_model *model, dpt_slot slot) {
    int index = dpt_arch_index(&model->arch, 0, slot);
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

void dpt_weights_form(const dpt_pass *pass, int64_t layer, dpt_slot begin, dpt_slot end) {
    for (int slot = (int)begin; slot < (int)end; slot++) {
        float *out = pass->work->w[slot];
        if (out == NULL)
            continue;
        const dpt_row *row = pass->arch->row[slot];
        bool fixed = row != NULL && row->share == DPT_SHARE_FIXED;
        const dpt_param *param =
            &pass->model->params.items[dpt_pass_index(pass, layer, (dpt_slot)slot)];
        dpt_param_weights(param, fixed ? 0.0 : pass->call->t, 0, param->rows, out);
    }
}
