#include "transformer.h"

#include <string.h>

static const dpt_param *embed_table(const dpt_pass *pass, dpt_slot slot) {
    int index = dpt_pass_index(pass, 0, slot);
    return index >= 0 ? &pass->model->params.items[index] : NULL;
}

/* The first rank, which alone has the positions, adds them. */
static void embed_add_positions(const dpt_pass *pass, float *x) {
    const dpt_param *table = embed_table(pass, DPT_SLOT_POSITION);
    float *row = pass->work->part;
    int64_t C = pass->width;
    if (table == NULL || dpt_param_numel(table) == 0)
        return;
    for (int64_t i = 0; i < pass->tokens; i++) {
        dpt_param_weights(table, pass->call->t, pass->work->position[i], 1, row);
        for (int64_t c = 0; c < C; c++)
            x[i * C + c] += row[c];
    }
}

static void embed_scale(const dpt_pass *pass, float *x) {
    float scale = (float)pass->arch->embed_scale;
    for (int64_t i = 0; scale != 1.0F && i < pass->tokens * pass->width; i++)
        x[i] *= scale;
}

/* A batch uses few rows of the table, so that W(t) is formed for these alone; other ranks' rows are zero. */
void dpt_embed_tokens(dpt_pass *pass, float *x) {
    const dpt_param *table = embed_table(pass, DPT_SLOT_TOKENS);
    int64_t begin = pass->slice->begin[DPT_AXIS_VOCABULARY];
    int64_t end = pass->slice->end[DPT_AXIS_VOCABULARY], C = pass->width;
    for (int64_t i = 0; i < pass->tokens; i++) {
        int64_t token = pass->call->batch->tokens[i];
        if (token >= begin && token < end)
            dpt_param_weights(table, pass->call->t, token - begin, 1, x + i * C);
        else
            memset(x + i * C, 0, (size_t)C * sizeof *x);
    }
    embed_scale(pass, x);
    embed_add_positions(pass, x);
    dpt_pass_sum(pass, x, pass->tokens * C);
}

/* forward: x = scale table[token] + positions[place]. dx holds the gradient of x. */
void dpt_embed_tokens_backward(const dpt_pass *pass) {
    const dpt_slice *slice = pass->slice;
    dpt_rows rows = dpt_pass_rows(pass, pass->work->dx, pass->width, NULL, 0);
    dpt_accumulate_embed(&pass->to, dpt_pass_index(pass, 0, DPT_SLOT_POSITION), rows,
                         pass->work->position, 0, pass->arch->length[DPT_AXIS_POSITIONS]);
    embed_scale(pass, pass->work->dx);
    dpt_accumulate_embed(&pass->to, dpt_pass_index(pass, 0, DPT_SLOT_TOKENS), rows,
                         pass->call->batch->tokens, slice->begin[DPT_AXIS_VOCABULARY],
                         slice->end[DPT_AXIS_VOCABULARY]);
}
