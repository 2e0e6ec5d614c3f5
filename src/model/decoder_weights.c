#include "decoder.h"

#include <string.h>

int dpt_decoder_index(int64_t layer, dpt_decoder_layer_tensor tensor) {
    return (int)(DPT_DECODER_LAYERS_AT + layer * DPT_DECODER_LAYER_TENSORS + tensor);
}

static int64_t place(const dpt_decoder *d, float *arena, dpt_decoder_weights *w) {
    const dpt_decoder_config *c = &d->config;
    const dpt_decoder_part *p = &d->part;
    int64_t used = 0, head = 0;
    /* Biases behind an all-reduce have room on every rank; the pointer is cleared where another rank
     * adds them. */
    w->norm1 = dpt_param_take(arena, &used, c->hidden);
    w->qkv = dpt_param_take(arena, &used, p->qkv * c->hidden);
    w->qkv_bias = dpt_param_take(arena, &used, c->qkv_bias ? p->qkv : 0);
    w->o = dpt_param_take(arena, &used, p->q * c->hidden);
    w->o_bias = dpt_param_take(arena, &used, c->o_bias ? c->hidden : 0);
    w->norm2 = dpt_param_take(arena, &used, c->hidden);
    w->gate_up = dpt_param_take(arena, &used, 2 * p->f * c->hidden);
    w->gate_up_bias = dpt_param_take(arena, &used, c->mlp_bias ? 2 * p->f : 0);
    w->down = dpt_param_take(arena, &used, p->f * c->hidden);
    w->down_bias = dpt_param_take(arena, &used, c->mlp_bias ? c->hidden : 0);
    w->head_norm = dpt_param_take(arena, &head, c->hidden);
    w->head = dpt_param_take(arena, &head, p->v * c->hidden);
    return used > head ? used : head;
}

int64_t dpt_decoder_arena(const dpt_decoder *d) {
    dpt_decoder_weights w;
    return place(d, NULL, &w);
}

void dpt_decoder_weights_place(const dpt_decoder *d, float *arena, dpt_decoder_weights *w) {
    const dpt_decoder_config *c = &d->config;
    place(d, arena, w);
    if (!c->qkv_bias)
        w->qkv_bias = NULL;
    if (!c->mlp_bias)
        w->gate_up_bias = NULL;
    if (!c->o_bias || !d->first_rank)
        w->o_bias = NULL;
    if (!c->mlp_bias || !d->first_rank)
        w->down_bias = NULL;
}

static void form(const dpt_decoder_pass *pass, int64_t layer, dpt_decoder_layer_tensor first,
                 int count, float *out) {
    const dpt_param *params = &pass->model->params.items[dpt_decoder_index(layer, first)];
    dpt_param_form(params, count, pass->call->t, out);
}

void dpt_decoder_weights_layer(const dpt_decoder_pass *pass, int64_t layer) {
    const dpt_decoder_weights *w = &pass->work->w;
    form(pass, layer, DPT_DECODER_NORM1, 1, w->norm1);
    form(pass, layer, DPT_DECODER_Q, 3, w->qkv);
    form(pass, layer, DPT_DECODER_Q_BIAS, 3, w->qkv_bias);
    form(pass, layer, DPT_DECODER_O, 1, w->o);
    form(pass, layer, DPT_DECODER_O_BIAS, 1, w->o_bias);
    form(pass, layer, DPT_DECODER_NORM2, 1, w->norm2);
    form(pass, layer, DPT_DECODER_GATE, 2, w->gate_up);
    form(pass, layer, DPT_DECODER_GATE_BIAS, 2, w->gate_up_bias);
    form(pass, layer, DPT_DECODER_DOWN, 1, w->down);
    form(pass, layer, DPT_DECODER_DOWN_BIAS, 1, w->down_bias);
}

void dpt_decoder_weights_head(const dpt_decoder_pass *pass) {
    const dpt_decoder_weights *w = &pass->work->w;
    const dpt_param *params = pass->model->params.items;
    dpt_param_form(params + DPT_DECODER_FINAL_NORM, 1, pass->call->t, w->head_norm);
    dpt_param_form(params + (pass->d->config.tied ? DPT_DECODER_EMBED : DPT_DECODER_HEAD), 1,
                   pass->call->t, w->head);
}

void dpt_decoder_embed(const dpt_decoder_pass *pass, float *x) {
    const dpt_param *table = &pass->model->params.items[DPT_DECODER_EMBED];
    const dpt_decoder_part *p = &pass->d->part;
    int64_t C = pass->d->config.hidden;
    /* A batch uses few rows of the table, so that W(t) is formed for these alone. */
    for (int64_t i = 0; i < pass->tokens; i++) {
        int64_t token = pass->call->batch->tokens[i];
        if (token >= p->row_begin && token < p->row_end)
            dpt_param_weights(table, pass->call->t, token - p->row_begin, 1, x + i * C);
        else
            memset(x + i * C, 0, (size_t)C * sizeof *x);
    }
}
