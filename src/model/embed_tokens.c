#include "transformer.h"

#include <string.h>

/* A batch uses few rows of the table, so that W(t) is formed for these alone; other ranks' rows are zero. */
void dpt_embed_tokens(dpt_pass *pass, float *x) {
    const dpt_param *table = &pass->model->params.items[dpt_pass_index(pass, 0, DPT_SLOT_TOKENS)];
    int64_t begin = pass->slice->begin[DPT_AXIS_VOCABULARY];
    int64_t end = pass->slice->end[DPT_AXIS_VOCABULARY], C = pass->width;
    for (int64_t i = 0; i < pass->tokens; i++) {
        int64_t token = pass->call->batch->tokens[i];
        if (token >= begin && token < end)
            dpt_param_weights(table, pass->call->t, token - begin, 1, x + i * C);
        else
            memset(x + i * C, 0, (size_t)C * sizeof *x);
    }
    dpt_pass_sum(pass, x, pass->tokens * C);
}

void dpt_embed_tokens_backward(const dpt_pass *pass) {
    const dpt_slice *slice = pass->slice;
    dpt_rows rows =
        dpt_rows_of(pass->tokens, pass->work->sequence, pass->work->dx, pass->width, NULL, 0);
    dpt_accumulate_embed(&pass->to, dpt_pass_index(pass, 0, DPT_SLOT_TOKENS), rows,
                         pass->call->batch->tokens, slice->begin[DPT_AXIS_VOCABULARY],
                         slice->end[DPT_AXIS_VOCABULARY]);
}
