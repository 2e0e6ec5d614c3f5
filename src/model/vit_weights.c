#include "vit.h"

int dpt_vit_index(int64_t layer, dpt_vit_layer_tensor tensor) {
    return (int)(DPT_VIT_LAYERS_AT + layer * DPT_VIT_LAYER_TENSORS + tensor);
}

static int64_t place(const dpt_vit *v, float *arena, dpt_vit_weights *w) {
    const dpt_vit_config *c = &v->config;
    const dpt_vit_part *p = &v->part;
    int64_t C = c->hidden, layer = 0, embedding = 0, head = 0;
    w->norm1 = dpt_param_take(arena, &layer, C);
    w->norm1_bias = dpt_param_take(arena, &layer, C);
    w->qkv = dpt_param_take(arena, &layer, 3 * p->q * C);
    w->qkv_bias = dpt_param_take(arena, &layer, 3 * p->q);
    w->o = dpt_param_take(arena, &layer, C * p->q);
    w->o_bias = dpt_param_take(arena, &layer, C);
    w->norm2 = dpt_param_take(arena, &layer, C);
    w->norm2_bias = dpt_param_take(arena, &layer, C);
    w->up = dpt_param_take(arena, &layer, p->f * C);
    w->up_bias = dpt_param_take(arena, &layer, p->f);
    w->down = dpt_param_take(arena, &layer, C * p->f);
    w->down_bias = dpt_param_take(arena, &layer, C);
    w->patch = dpt_param_take(arena, &embedding, C * p->k);
    w->patch_bias = dpt_param_take(arena, &embedding, C);
    w->position = dpt_param_take(arena, &embedding, c->positions * C);
    w->class_token = dpt_param_take(arena, &embedding, C);
    w->pre_norm = dpt_param_take(arena, &embedding, C);
    w->pre_norm_bias = dpt_param_take(arena, &embedding, C);
    w->post_norm = dpt_param_take(arena, &head, C);
    w->post_norm_bias = dpt_param_take(arena, &head, C);
    w->head = dpt_param_take(arena, &head, c->family->text_head ? c->projection * p->p : p->v * C);
    w->head_bias = dpt_param_take(arena, &head, p->v);
    w->text = dpt_param_take(arena, &head, p->v * c->projection);
    int64_t most = layer > embedding ? layer : embedding;
    return most > head ? most : head;
}

int64_t dpt_vit_arena(const dpt_vit *v) {
    dpt_vit_weights w;
    return place(v, NULL, &w);
}

void dpt_vit_weights_place(const dpt_vit *v, float *arena, dpt_vit_weights *w) {
    place(v, arena, w);
    if (!v->config.qkv_bias)
        w->qkv_bias = NULL;
    if (!v->first_rank)
        w->o_bias = w->down_bias = w->patch_bias = w->position = w->class_token = NULL;
    if (v->config.family->names[DPT_VIT_PATCH_BIAS] == NULL)
        w->patch_bias = NULL;
    if (v->config.family->names[DPT_VIT_HEAD_BIAS] == NULL)
        w->head_bias = NULL;
}

static void form_one(const dpt_vit_pass *pass, dpt_vit_tensor tensor, float *out) {
    dpt_param_form(&pass->model->params.items[tensor], 1, pass->call->t, out);
}

static void form(const dpt_vit_pass *pass, int64_t layer, dpt_vit_layer_tensor first, int count,
                 float *out) {
    const dpt_param *params = &pass->model->params.items[dpt_vit_index(layer, first)];
    dpt_param_form(params, count, pass->call->t, out);
}

void dpt_vit_weights_embedding(const dpt_vit_pass *pass) {
    const dpt_vit_weights *w = &pass->work->w;
    form_one(pass, DPT_VIT_CLASS, w->class_token);
    form_one(pass, DPT_VIT_PATCH, w->patch);
    form_one(pass, DPT_VIT_PATCH_BIAS, w->patch_bias);
    form_one(pass, DPT_VIT_POSITION, w->position);
    form_one(pass, DPT_VIT_PRE_NORM, w->pre_norm);
    form_one(pass, DPT_VIT_PRE_NORM_BIAS, w->pre_norm_bias);
}

void dpt_vit_weights_layer(const dpt_vit_pass *pass, int64_t layer) {
    const dpt_vit_weights *w = &pass->work->w;
    form(pass, layer, DPT_VIT_NORM1, 1, w->norm1);
    form(pass, layer, DPT_VIT_NORM1_BIAS, 1, w->norm1_bias);
    form(pass, layer, DPT_VIT_Q, 3, w->qkv);
    form(pass, layer, DPT_VIT_Q_BIAS, 3, w->qkv_bias);
    form(pass, layer, DPT_VIT_O, 1, w->o);
    form(pass, layer, DPT_VIT_O_BIAS, 1, w->o_bias);
    form(pass, layer, DPT_VIT_NORM2, 1, w->norm2);
    form(pass, layer, DPT_VIT_NORM2_BIAS, 1, w->norm2_bias);
    form(pass, layer, DPT_VIT_UP, 1, w->up);
    form(pass, layer, DPT_VIT_UP_BIAS, 1, w->up_bias);
    form(pass, layer, DPT_VIT_DOWN, 1, w->down);
    form(pass, layer, DPT_VIT_DOWN_BIAS, 1, w->down_bias);
}

void dpt_vit_weights_head(const dpt_vit_pass *pass) {
    const dpt_vit_weights *w = &pass->work->w;
    form_one(pass, DPT_VIT_POST_NORM, w->post_norm);
    form_one(pass, DPT_VIT_POST_NORM_BIAS, w->post_norm_bias);
    form_one(pass, DPT_VIT_HEAD, w->head);
    form_one(pass, DPT_VIT_HEAD_BIAS, w->head_bias);
    dpt_param_form(&pass->model->params.items[DPT_VIT_TEXT], 1, 0.0, w->text); /* a constant */
}
