#include "vit.h"

#include "deltapath/base/mem.h"
#include "deltapath/tensor/shard.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

static void find_part(const dpt_vit_config *c, int rank, int size, dpt_vit_part *part) {
    dpt_shard_split(c->heads, size, rank, &part->head_begin, &part->head_end);
    dpt_shard_split(c->intermediate, size, rank, &part->unit_begin, &part->unit_end);
    dpt_shard_split(c->patch_elements, size, rank, &part->pixel_begin, &part->pixel_end);
    dpt_shard_split(c->classes, size, rank, &part->class_begin, &part->class_end);
    dpt_shard_split(c->hidden, size, rank, &part->in_begin, &part->in_end);
    part->heads = part->head_end - part->head_begin;
    part->q = part->heads * c->head_dim;
    part->f = part->unit_end - part->unit_begin;
    part->k = part->pixel_end - part->pixel_begin;
    part->v = part->class_end - part->class_begin;
    part->p = part->in_end - part->in_begin;
}

/* A matrix that is stored with more dimensions. */
static dpt_param_part folded(dpt_param_part part, int ndim, int64_t a, int64_t b, int64_t c,
                             int64_t d) {
    part.ndim = ndim;
    part.sides[0] = a;
    part.sides[1] = b;
    part.sides[2] = c;
    part.sides[3] = d;
    return part;
}

/* What a sum over the ranks must hold once is the first rank's. */
static dpt_param_part once(const dpt_vit *v, dpt_param_part whole) {
    return v->first_rank ? whole : dpt_param_part_rows(whole, 0, 0);
}

static void claim_layer(dpt_model *model, const dpt_vit *v, int64_t layer) {
    const dpt_vit_config *c = &v->config;
    const dpt_vit_part *p = &v->part;
    int64_t C = c->hidden, F = c->intermediate;
    int64_t q0 = p->head_begin * c->head_dim, q1 = p->head_end * c->head_dim;
    dpt_param_part norm = dpt_param_part_vector(C);
    norm.counted = v->first_rank; /* every rank scales by it, one rank counts it */
    dpt_param_part qkv = dpt_param_part_rows(dpt_param_part_matrix(C, C), q0, q1),
                   qkv_bias = dpt_param_part_rows(dpt_param_part_vector(C), q0, q1);
    const dpt_param_part parts[DPT_VIT_LAYER_TENSORS] = {
        [DPT_VIT_NORM1] = norm,
        [DPT_VIT_NORM1_BIAS] = norm,
        [DPT_VIT_Q] = qkv,
        [DPT_VIT_K] = qkv,
        [DPT_VIT_V] = qkv,
        [DPT_VIT_Q_BIAS] = qkv_bias,
        [DPT_VIT_K_BIAS] = qkv_bias,
        [DPT_VIT_V_BIAS] = qkv_bias,
        [DPT_VIT_O] = dpt_param_part_cols(dpt_param_part_matrix(C, C), q0, q1),
        [DPT_VIT_O_BIAS] = once(v, dpt_param_part_vector(C)),
        [DPT_VIT_NORM2] = norm,
        [DPT_VIT_NORM2_BIAS] = norm,
        [DPT_VIT_UP] = dpt_param_part_rows(dpt_param_part_matrix(F, C), p->unit_begin, p->unit_end),
        [DPT_VIT_UP_BIAS] =
            dpt_param_part_rows(dpt_param_part_vector(F), p->unit_begin, p->unit_end),
        [DPT_VIT_DOWN] =
            dpt_param_part_cols(dpt_param_part_matrix(C, F), p->unit_begin, p->unit_end),
        [DPT_VIT_DOWN_BIAS] = once(v, dpt_param_part_vector(C)),
    };
    for (int i = 0; i < DPT_VIT_LAYER_TENSORS; i++) {
        bool qkv_of = i == DPT_VIT_Q_BIAS || i == DPT_VIT_K_BIAS || i == DPT_VIT_V_BIAS;
        char name[160];
        snprintf(name, sizeof name, "%s.%" PRId64 ".%s", c->family->layer, layer,
                 c->family->layer_names[i]);
        if (!qkv_of || c->qkv_bias)
            dpt_params_claim(&model->params, dpt_vit_index(layer, (dpt_vit_layer_tensor)i), name,
                             &parts[i]);
    }
}

static void claim_whole(dpt_model *model, const dpt_vit *v) {
    const dpt_vit_config *c = &v->config;
    const dpt_vit_part *p = &v->part;
    int64_t C = c->hidden, P = c->positions, K = c->patch_elements;
    bool clip = c->family->text_head;
    dpt_param_part norm = dpt_param_part_vector(C),
                   text = dpt_param_part_rows(dpt_param_part_matrix(c->classes, c->projection),
                                              p->class_begin, p->class_end);
    norm.counted = v->first_rank;
    text.counted = false; /* a constant */
    dpt_param_part position = once(v, dpt_param_part_matrix(P, C)),
                   class_token = once(v, dpt_param_part_vector(C));
    dpt_param_part patch =
        dpt_param_part_cols(dpt_param_part_matrix(C, K), p->pixel_begin, p->pixel_end);
    if (!clip) {
        position = folded(position, 3, 1, P, C, 0);
        class_token = folded(once(v, dpt_param_part_matrix(1, C)), 3, 1, 1, C, 0);
    }
    dpt_param_part projection =
        dpt_param_part_cols(dpt_param_part_matrix(c->projection, C), p->in_begin, p->in_end);
    dpt_param_part classifier =
        dpt_param_part_rows(dpt_param_part_matrix(c->classes, C), p->class_begin, p->class_end);
    const dpt_param_part parts[DPT_VIT_LAYERS_AT] = {
        [DPT_VIT_CLASS] = class_token,
        [DPT_VIT_PATCH] = folded(patch, 4, C, c->channels, c->patch, c->patch),
        [DPT_VIT_PATCH_BIAS] = once(v, dpt_param_part_vector(C)),
        [DPT_VIT_POSITION] = position,
        [DPT_VIT_PRE_NORM] = norm,
        [DPT_VIT_PRE_NORM_BIAS] = norm,
        [DPT_VIT_POST_NORM] = norm,
        [DPT_VIT_POST_NORM_BIAS] = norm,
        [DPT_VIT_HEAD] = clip ? projection : classifier,
        [DPT_VIT_HEAD_BIAS] =
            dpt_param_part_rows(dpt_param_part_vector(c->classes), p->class_begin, p->class_end),
        [DPT_VIT_TEXT] = text,
    };
    for (int i = 0; i < DPT_VIT_LAYERS_AT; i++)
        if (c->family->names[i] != NULL)
            dpt_params_claim(&model->params, i, c->family->names[i], &parts[i]);
}

/* Buffers of old checkpoints, and a pooler that classification does not use. */
static bool ignore(const char *name) {
    return strcmp(name, "vision_model.embeddings.position_ids") == 0 ||
           strncmp(name, "vit.pooler.", strlen("vit.pooler.")) == 0;
}

static dpt_status claim_all(dpt_model *model, const dpt_vit *v) {
    int64_t count = DPT_VIT_LAYERS_AT + v->config.layers * DPT_VIT_LAYER_TENSORS;
    dpt_status st = dpt_params_create(&model->catalog, (int)count, &model->params);
    if (st != DPT_OK)
        return st;
    claim_whole(model, v);
    for (int64_t layer = 0; layer < v->config.layers; layer++)
        claim_layer(model, v, layer);
    return dpt_params_check(&model->params, ignore);
}

static void close_vit(void *state) {
    dpt_vit *v = state;
    dpt_vit_work_release(&v->work);
    dpt_mem_free(v->kv_of);
    dpt_mem_free(v);
}

static dpt_status open_vit(dpt_model *model, const json_t *config, int rank, int size) {
    dpt_vit *v = dpt_mem_zalloc(1, sizeof *v, "image model");
    if (v == NULL)
        return DPT_ERR_OUTPUT;
    dpt_status st = dpt_vit_config_read(model->driver->family, config, &model->catalog, &v->config);
    v->first_rank = rank == 0;
    if (st == DPT_OK) {
        find_part(&v->config, rank, size, &v->part);
        v->kv_of = dpt_mem_alloc(v->part.heads, sizeof *v->kv_of, "heads");
        st = v->kv_of != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    }
    for (int64_t j = 0; st == DPT_OK && j < v->part.heads; j++)
        v->kv_of[j] = (int32_t)j;
    if (st == DPT_OK)
        st = claim_all(model, v);
    if (st == DPT_OK)
        model->state = v;
    else
        close_vit(v);
    return st;
}

static dpt_status compare(const void *family, const json_t *a, const json_t *b,
                          const dpt_catalog *catalog, char *text, size_t size) {
    dpt_vit_config one, other;
    dpt_status st = dpt_vit_config_read(family, a, catalog, &one);
    if (st == DPT_OK)
        st = dpt_vit_config_read(family, b, catalog, &other);
    if (st != DPT_OK)
        return st;
    dpt_config_compare(text, size, "num_attention_heads", (double)one.heads, (double)other.heads);
    dpt_config_compare(text, size, "layer_norm_eps", one.eps, other.eps);
    size_t used = strlen(text);
    if (one.act != other.act)
        snprintf(text + used, size - used, "%shidden_act (%.32s and %.32s)", used > 0 ? ", " : "",
                 one.act_name, other.act_name);
    return DPT_OK;
}

static const dpt_vit *vit_of(const dpt_model *model) {
    return model->state;
}

static int64_t work_bytes(const dpt_model *model, int64_t tokens, int64_t longest) {
    (void)longest;
    int64_t positions = vit_of(model)->config.positions;
    int64_t images = tokens / positions > 0 ? tokens / positions : 1;
    return dpt_vit_work_bytes(vit_of(model), images, true);
}

static dpt_model_image image_of(const dpt_model *model) {
    const dpt_vit_config *c = &vit_of(model)->config;
    return (dpt_model_image){.classes = c->classes,
                             .channels = c->channels,
                             .height = c->side,
                             .width = c->side,
                             .positions = c->positions};
}

static dpt_status check_batch(const dpt_vit_config *c, const dpt_batch *batch) {
    if (batch->sequences < 0 || batch->sequences > INT_MAX / 2 / c->positions)
        return dpt_error(DPT_ERR_INTERNAL, "model: a batch has too many images");
    for (int64_t s = 0; s < batch->sequences; s++)
        if (batch->labels[s] < 0 || batch->labels[s] >= c->classes)
            return dpt_error(DPT_ERR_INPUT,
                             "model: label %d of image %" PRId64
                             " of a batch is outside the %" PRId64 " classes: use the model's own",
                             (int)batch->labels[s], s, c->classes);
    return DPT_OK;
}

static dpt_status prepare(dpt_model *model, const dpt_model_call *call) {
    dpt_vit *v = model->state;
    dpt_status st = check_batch(&v->config, call->batch);
    if (st == DPT_OK && model->params.items[DPT_VIT_TEXT].moved)
        st = dpt_error(DPT_ERR_INPUT,
                       "model: tensor %s differs between the models: the head of class texts is "
                       "fixed; give both models the same and leave it out of the edits",
                       v->config.family->names[DPT_VIT_TEXT]);
    if (st != DPT_OK)
        return st;
    return dpt_vit_work_reserve(v, call->batch->sequences, call->mode != DPT_BACKWARD_NONE);
}

static dpt_status run(dpt_model *model, const dpt_model_call *call) {
    dpt_vit *v = model->state;
    const dpt_vit_work *work = &v->work;
    dpt_vit_pass pass = {.model = model,
                         .v = v,
                         .work = work,
                         .call = call,
                         .leave = {.model = model,
                                   .call = call,
                                   .term = work->term,
                                   .e = work->e,
                                   .products = work->products},
                         .images = call->batch->sequences,
                         .tokens = call->batch->sequences * v->config.positions,
                         .status = DPT_OK};
    if (pass.images == 0)
        return DPT_OK;
    dpt_vit_forward(&pass);
    dpt_vit_head(&pass);
    if (call->mode != DPT_BACKWARD_NONE)
        dpt_vit_backward(&pass);
    return pass.status;
}

#define IMAGE_MODEL(ARCHITECTURE, TYPE, FAMILY)                                                    \
    {                                                                                              \
        .architecture = (ARCHITECTURE), .model_type = (TYPE), .family = (FAMILY),                  \
        .open = open_vit, .close = close_vit, .compare = compare, .work_bytes = work_bytes,        \
        .image = image_of, .prepare = prepare, .run = run                                          \
    }

const dpt_model_driver dpt_model_vit =
    IMAGE_MODEL("ViTForImageClassification", "vit", &dpt_vit_vit);
const dpt_model_driver dpt_model_clip_vision =
    IMAGE_MODEL("CLIPVisionModelWithProjection", "clip_vision_model", &dpt_vit_clip);
