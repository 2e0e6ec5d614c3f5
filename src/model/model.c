#include "transformer.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"

#include <stdio.h>
#include <string.h>

/* Key-value head of each query head. */
static dpt_status model_make_tables(dpt_model *model) {
    const dpt_arch *arch = &model->arch;
    int64_t first = model->slice.begin[DPT_AXIS_KV_HEADS] / arch->head_dim;
    model->kv_of = dpt_mem_alloc(model->slice.heads, sizeof *model->kv_of, "key-value heads");
    if (model->kv_of == NULL)
        return DPT_ERR_OUTPUT;
    for (int64_t j = 0; j < model->slice.heads; j++)
        model->kv_of[j] =
            (int32_t)((model->slice.first_head + j) / (arch->heads / arch->kv_heads) - first);
    return DPT_OK;
}

/* All of create that is local: configuration and claims of rank `rank` of `size`. */
static dpt_status model_open(dpt_model *model, const char *config, const dpt_catalog *catalog,
                             int rank, int size) {
    json_t *root = NULL;
    dpt_status st = dpt_config_parse(config, &root);
    bool multimodal = st == DPT_OK && dpt_config_take_text(&root);
    if (st == DPT_OK)
        st = dpt_catalog_copy(catalog, &model->catalog);
    if (st == DPT_OK)
        st = dpt_arch_read(root, &model->catalog, &model->arch);
    model->arch.multimodal = multimodal;
    if (st == DPT_OK) {
        dpt_slice_find(&model->arch, rank, size, &model->slice);
        st = model_make_tables(model);
    }
    if (st == DPT_OK)
        st = dpt_slice_claim(model);
    json_decref(root);
    return st;
}

void dpt_model_destroy(dpt_model *model) {
    if (model == NULL)
        return;
    dpt_work_release(&model->work);
    dpt_bf16_destroy(model->bf16);
    dpt_arch_destroy(&model->arch);
    dpt_mem_free(model->kv_of);
    dpt_params_destroy(&model->params);
    dpt_catalog_destroy(&model->catalog);
    dpt_mem_free(model);
}

/* The worst status of all ranks of the group, and of all replicas where these must go on together. */
static dpt_status model_agree(const dpt_model *model, bool all, dpt_status st) {
    st = dpt_agree(&model->group, st);
    return all ? dpt_agree(&model->replicas, st) : st;
}

/* Whether any replica is on several machines: then all of them gather weights. */
static dpt_status model_find_together(dpt_model *model) {
    int64_t gathers = dpt_shares_gather(&model->params);
    dpt_status st = dpt_comm_max_i64(&model->group, &gathers, 1);
    if (st == DPT_OK)
        st = dpt_comm_max_i64(&model->replicas, &gathers, 1);
    model->gathers = model->together = gathers != 0;
    model->layout = (int64_t)(model->params.shares->layout >> 32);
    return dpt_status_worse(st, dpt_comm_sum_i64(&model->group, &model->layout, 1));
}

dpt_status dpt_model_create(const dpt_comm *group, const dpt_comm *replicas, const char *config,
                            dpt_source weights, dpt_model **out) {
    static const dpt_comm alone = {.mpi = MPI_COMM_SELF, .rank = 0, .size = 1};
    replicas = replicas != NULL ? replicas : &alone;
    DPT_ASSERT_SAME_TEXT(group, config);
    DPT_ASSERT_SAME(group, dpt_catalog_digest(weights.catalog));
    *out = NULL;
    dpt_status st = dpt_agree_fault("model.load");
    dpt_model *model = dpt_mem_zalloc(1, sizeof *model, "model");
    if (model == NULL)
        st = DPT_ERR_OUTPUT;
    if (st == DPT_OK)
        st = model_open(model, config, weights.catalog, group->rank, group->size);
    st = dpt_agree(replicas, dpt_agree(group, st));
    if (st != DPT_OK) {
        dpt_model_destroy(model);
        return st;
    }
    model->group = *group;
    model->replicas = *replicas;
    st = model_agree(model, true, dpt_slice_share(model, replicas));
    if (st == DPT_OK)
        st = model_find_together(model);
    if (st == DPT_OK)
        dpt_slice_say_names(model);
    if (st == DPT_OK)
        st = dpt_params_load(&model->params, group, &weights, DPT_PARAMS_POST);
    if (st == DPT_OK)
        *out = model;
    else
        dpt_model_destroy(model);
    return st;
}

static dpt_status model_bind(dpt_model *model, const dpt_source *source, dpt_params_kind kind) {
    model->bound = false;
    dpt_status st = model_agree(model, true, dpt_agree_fault("model.load"));
    if (st == DPT_OK)
        st = dpt_params_load(&model->params, &model->group, source, kind);
    model->bound = st == DPT_OK;
    return st;
}

dpt_status dpt_model_bind_edit(dpt_model *model, const dpt_source *edited) {
    if (edited != NULL)
        return model_bind(model, edited, DPT_PARAMS_EDIT);
    model->bound = false;
    dpt_params_unbind(&model->params);
    dpt_shares_release_edit(&model->params);
    return DPT_OK;
}

dpt_status dpt_model_bind_direction(dpt_model *model, const dpt_source *direction) {
    return model_bind(model, direction, DPT_PARAMS_DIRECTION);
}

static dpt_status model_direct(dpt_param *param, const char *tensor,
                               const dpt_model_direction *direction) {
    param->still = direction->moves != NULL && !direction->moves[param->tensor];
    if (!direction->signs || dpt_param_numel(param) == 0)
        return DPT_OK;
    char *name = dpt_mem_format("%s of %s", direction->name, tensor);
    if (name == NULL)
        return DPT_ERR_OUTPUT;
    dpt_status st = dpt_param_draw_signs(param, dpt_rng_make(direction->seed, name, DPT_RNG_SIGN));
    dpt_mem_free(name);
    return st;
}

dpt_status dpt_model_set_direction(dpt_model *model, const dpt_model_direction *direction) {
    dpt_params *params = &model->params;
    dpt_status st = DPT_OK;
    for (int i = 0; i < params->count; i++)
        dpt_param_clear_direction(&params->items[i]);
    for (int i = 0; i < params->count && st == DPT_OK && direction != NULL; i++)
        if (params->items[i].tensor >= 0)
            st = model_direct(&params->items[i],
                              model->catalog.tensors[params->items[i].tensor].name, direction);
    for (int i = 0; i < params->count && st != DPT_OK; i++)
        dpt_param_clear_direction(&params->items[i]);
    return st;
}

dpt_status dpt_model_set_precision(dpt_model *model, dpt_precision precision) {
    if (precision == DPT_PRECISION_BF16 && model->bf16 == NULL) {
        if (dpt_bf16_find_speed() == DPT_BF16_NONE)
            return dpt_error(DPT_ERR_USAGE,
                             "precision: this processor has no products in bf16 (they "
                             "need AVX-512): take `precision: fp32`");
        dpt_status st = dpt_bf16_create(&model->bf16);
        if (st != DPT_OK)
            return st;
        model->has_bf16 = true;
        dpt_work_release(&model->work); /* the next run makes it, with buffers for them */
    }
    model->precision = precision;
    return DPT_OK;
}

dpt_precision dpt_model_get_precision(const dpt_model *model) {
    return model->precision;
}

int64_t dpt_model_bf16_products(const dpt_model *model) {
    return model->bf16 != NULL ? dpt_bf16_count(model->bf16) : 0;
}

const dpt_catalog *dpt_model_catalog(const dpt_model *model) {
    return &model->catalog;
}

int dpt_model_columns(const dpt_model *model) {
    return model->catalog.count + model->matrices;
}

int64_t dpt_model_vocabulary(const dpt_model *model) {
    return model->arch.side == 0 ? model->arch.length[DPT_AXIS_VOCABULARY] : 0;
}

int64_t dpt_model_max_positions(const dpt_model *model) {
    return model->arch.max_positions;
}

bool dpt_model_get_image(const dpt_model *model, dpt_model_image *out) {
    const dpt_arch *arch = &model->arch;
    *out = (dpt_model_image){.classes = 0};
    if (arch->side > 0)
        *out = (dpt_model_image){.classes = arch->length[DPT_AXIS_VOCABULARY],
                                 .channels = arch->length[DPT_AXIS_CHANNELS],
                                 .height = arch->side,
                                 .width = arch->side,
                                 .positions = arch->image_tokens};
    return arch->side > 0;
}

/* A model that only knows its configuration, as rank 0 of 1 would have it. */
static dpt_status model_open_config(const char *config, const dpt_catalog *catalog,
                                    dpt_model **out) {
    *out = dpt_mem_zalloc(1, sizeof **out, "model");
    return *out != NULL ? model_open(*out, config, catalog, 0, 1) : DPT_ERR_OUTPUT;
}

dpt_status dpt_model_config_image(const char *config, const dpt_catalog *catalog, bool *is_image,
                                  dpt_model_image *out) {
    *is_image = false;
    dpt_model *model;
    dpt_status st = model_open_config(config, catalog, &model);
    if (st == DPT_OK)
        *is_image = dpt_model_get_image(model, out);
    dpt_model_destroy(model);
    return st;
}

dpt_status dpt_model_config_limits(const char *config, const dpt_catalog *catalog,
                                   int64_t *vocabulary, int64_t *max_positions) {
    *vocabulary = *max_positions = 0;
    dpt_model *model;
    dpt_status st = model_open_config(config, catalog, &model);
    if (st == DPT_OK) {
        *vocabulary = dpt_model_vocabulary(model);
        *max_positions = dpt_model_max_positions(model);
    }
    dpt_model_destroy(model);
    return st;
}

int dpt_model_config_outside(const char *config, const dpt_catalog *catalog, bool *outside) {
    dpt_model *model;
    int count = 0;
    dpt_status st = model_open_config(config, catalog, &model);
    for (int t = 0; t < catalog->count; t++) {
        outside[t] = st == DPT_OK &&
                     dpt_arch_is_outside(&model->arch, dpt_catalog_alias(&catalog->tensors[t]));
        count += outside[t];
    }
    if (st != DPT_OK)
        dpt_error_clear(); /* said when the model is made */
    dpt_model_destroy(model);
    return count;
}

/* Work of a batch of any mode; an image is taken whole. */
static int64_t model_pass_bytes(const dpt_model *model, int64_t tokens, int64_t longest) {
    int64_t positions = model->arch.image_tokens;
    if (model->arch.side == 0)
        return dpt_work_bytes(model, tokens, longest, true);
    int64_t images = tokens / positions > 0 ? tokens / positions : 1;
    return dpt_work_bytes(model, images * positions, positions, true);
}

/* Raise the bytes to those of a model that is open. */
static dpt_status model_rank_bytes(dpt_model *model, bool edited, int64_t tokens, int64_t longest,
                                   int64_t *weights, int64_t *work) {
    int64_t loading;
    dpt_status st = dpt_params_loading_bytes(&model->params, &loading);
    int64_t resident = dpt_shares_bytes(&model->params, edited) + loading;
    int64_t passes = model_pass_bytes(model, tokens, longest);
    *weights = resident > *weights ? resident : *weights;
    *work = passes > *work ? passes : *work;
    return st;
}

/* The next rank, from `rank` on, that needs other memory than those before it. */
static int model_next_rank(const dpt_arch *arch, int rank, int ranks, int size) {
    for (; rank < ranks; rank++) {
        dpt_slice own, other;
        bool like = false;
        dpt_slice_find(arch, rank, size, &own);
        for (int before = 0; before < rank && !like; before++) {
            dpt_slice_find(arch, before, size, &other);
            like = dpt_slice_is_like(&own, &other);
        }
        if (!like)
            break;
    }
    return rank;
}

/* What a rank of a group needs, of which the maximum over ranks is kept. */
typedef struct model_needs {
    bool edited;
    int64_t tokens, longest;
    int64_t weights, work, gradient, adding;
} model_needs;

static dpt_status model_add_work(dpt_model *model, model_needs *needs) {
    return model_rank_bytes(model, needs->edited, needs->tokens, needs->longest, &needs->weights,
                            &needs->work);
}

static dpt_status model_add_unbound(dpt_model *model, model_needs *needs) {
    int64_t loading;
    dpt_status st = dpt_params_loading_bytes(&model->params, &loading);
    int64_t bytes = dpt_shares_bytes(&model->params, true) + loading;
    bytes -= dpt_shares_edit_bytes(&model->params);
    needs->weights = bytes > needs->weights ? bytes : needs->weights;
    return st;
}

static dpt_status model_add_gradient(dpt_model *model, model_needs *needs) {
    int64_t bytes = dpt_gradient_bytes(&model->params);
    int64_t adding = dpt_gradient_pass_bytes(&model->params);
    needs->gradient = bytes > needs->gradient ? bytes : needs->gradient;
    needs->adding = adding > needs->adding ? adding : needs->adding;
    return DPT_OK;
}

static void model_take_type(dpt_param *param, const dpt_catalog *edited) {
    if (param->tensor >= 0)
        param->edit_type = edited->tensors[param->tensor].dtype;
}

static dpt_status model_over_ranks(const char *config, const dpt_catalog *catalog,
                                   const dpt_model_ranks *spread,
                                   dpt_status (*add)(dpt_model *model, model_needs *needs),
                                   model_needs *needs) {
    /* Blocks are uneven, and a rank in the middle can need more key-value heads than rank 0. The
     * pattern of boundaries repeats, so the first ranks, whose shares are the largest, show it. */
    int group_size = spread->group, ranks = group_size < 64 ? group_size : 64;
    dpt_status st = DPT_OK;
    for (int rank = 0; rank < ranks && st == DPT_OK;) {
        dpt_model *model = dpt_mem_zalloc(1, sizeof *model, "model");
        if (model == NULL)
            return DPT_ERR_OUTPUT;
        st = model_open(model, config, catalog, rank, group_size);
        model->has_bf16 = spread->precision == DPT_PRECISION_BF16;
        model->held = spread->held;
        for (int i = 0; st == DPT_OK && spread->edited != NULL && i < model->params.count; i++)
            model_take_type(&model->params.items[i], spread->edited);
        if (st == DPT_OK)
            st = dpt_slice_plan(model, spread->replicas, spread->machines);
        if (st == DPT_OK)
            st = add(model, needs);
        if (st == DPT_OK)
            rank = model_next_rank(&model->arch, rank + 1, ranks, group_size);
        dpt_model_destroy(model);
    }
    return st;
}

dpt_status dpt_model_bytes(const char *config, const dpt_catalog *catalog,
                           const dpt_model_ranks *spread, bool edited, int64_t tokens,
                           int64_t longest, int64_t *weights, int64_t *work) {
    model_needs needs = {.edited = edited, .tokens = tokens, .longest = longest};
    dpt_status st = model_over_ranks(config, catalog, spread, model_add_work, &needs);
    *weights = needs.weights;
    *work = needs.work;
    return st;
}

dpt_status dpt_model_unbound_bytes(const char *config, const dpt_catalog *catalog,
                                   const dpt_model_ranks *spread, int64_t *weights) {
    model_needs needs = {.edited = true};
    dpt_status st = model_over_ranks(config, catalog, spread, model_add_unbound, &needs);
    *weights = needs.weights;
    return st;
}

dpt_status dpt_model_gradient_bytes(const char *config, const dpt_catalog *catalog,
                                    const dpt_model_ranks *spread, int64_t *bytes,
                                    int64_t *adding) {
    model_needs needs = {.edited = false};
    dpt_status st = model_over_ranks(config, catalog, spread, model_add_gradient, &needs);
    *bytes = needs.gradient;
    *adding = needs.adding;
    return st;
}

static void model_clear_outputs(const dpt_model *model, const dpt_model_call *call) {
    const dpt_batch *batch = call->batch;
    int64_t scores = dpt_batch_scores(batch);
    memset(call->nll, 0, (size_t)scores * sizeof *call->nll);
    if (call->correct != NULL)
        memset(call->correct, 0, (size_t)scores);
    if (call->logits != NULL)
        memset(call->logits, 0,
               (size_t)(batch->sequences * model->arch.length[DPT_AXIS_VOCABULARY]) *
                   sizeof *call->logits);
    if (call->terms != NULL)
        memset(call->terms, 0,
               (size_t)(batch->sequences * dpt_model_columns(model)) * sizeof *call->terms);
}

static dpt_status model_check_call(const dpt_model *model, const dpt_model_call *call) {
    bool terms = call->mode == DPT_BACKWARD_TERMS;
    bool gradient = call->mode == DPT_BACKWARD_GRADIENT;
    if ((terms || call->t != 0.0) && !model->bound)
        return dpt_error(DPT_ERR_INTERNAL,
                         "model: t above 0 and terms need an edit: bind one first");
    if ((terms && call->terms == NULL) || (gradient && call->gradient == NULL) ||
        (call->mode != DPT_BACKWARD_NONE && call->weight == NULL))
        return dpt_error(DPT_ERR_INTERNAL, "model: an output of the backward pass is missing");
    if ((call->batch->images != NULL) != (model->arch.side > 0))
        return dpt_error(DPT_ERR_INTERNAL, "model: the batch holds %s: the model takes the other",
                         call->batch->images != NULL ? "images" : "tokens");
    if (gradient && model->replicas.size > 1 && model->adding != call->gradient)
        return dpt_error(DPT_ERR_INTERNAL, "model: replicas add to a gradient that they began");
    if (call->squares && call->batch->images == NULL)
        return dpt_error(DPT_ERR_INTERNAL, "model: squares are of images");
    if (call->logits != NULL && call->batch->images == NULL)
        return dpt_error(DPT_ERR_INTERNAL, "model: logits are given of images alone");
    return DPT_OK;
}

/* What can fail on one rank alone: the batch, memory. */
static dpt_status model_prepare(dpt_model *model, const dpt_model_call *call) {
    const dpt_batch *batch = call->batch;
    int64_t longest, tokens;
    dpt_status st = dpt_batch_check(model, batch, &tokens, &longest);
    if (st != DPT_OK)
        return st;
    return dpt_work_reserve(model, tokens, longest, call->mode != DPT_BACKWARD_NONE);
}

static void model_check_same(const dpt_comm *group, const dpt_model_call *call) {
    const dpt_batch *batch = call->batch;
    int64_t tokens = batch->images == NULL ? batch->first[batch->sequences] : 0;
    DPT_ASSERT_SAME(group, call->t);
    DPT_ASSERT_SAME(group, call->mode);
    DPT_ASSERT_SAME(group, batch->sequences);
    DPT_ASSERT_SAME(group, batch->images == NULL);
    if (tokens > 0) {
        DPT_ASSERT_SAME_ARRAY(group, batch->first, batch->sequences + 1);
        DPT_ASSERT_SAME_ARRAY(group, batch->tokens, tokens);
        DPT_ASSERT_SAME_ARRAY(group, batch->mask, tokens);
    } else {
        DPT_ASSERT_SAME_ARRAY(group, batch->labels, batch->sequences);
    }
    DPT_ASSERT_SAME_ARRAY(group, call->weight, dpt_batch_scores(batch));
}

enum { WALK_RUNS, WALK_BACKWARD, WALK_EDIT, WALK_GRADIENT, WALK_FAILED, WALK_FLAGS };

/* Agree with all other replicas on the next pass that gathers weights. After a failure nobody waits for anybody. */
static dpt_status model_negotiate(dpt_model *model, dpt_status st, int64_t flags[WALK_FLAGS]) {
    flags[WALK_FAILED] = st != DPT_OK;
    (void)dpt_comm_max_i64(&model->group, flags, WALK_FLAGS);
    (void)dpt_comm_max_i64(&model->replicas, flags, WALK_FLAGS);
    if (!flags[WALK_FAILED])
        return DPT_OK;
    model->ended = true;
    return model_agree(model, true, st);
}

static dpt_pass_walk model_walk(const int64_t flags[WALK_FLAGS], dpt_model_gradient *gradient) {
    return (dpt_pass_walk){.backward = flags[WALK_BACKWARD] != 0,
                           .edit = flags[WALK_EDIT] != 0,
                           .gradient = flags[WALK_GRADIENT] ? gradient : NULL};
}

static dpt_status model_run_call(dpt_model *model, const dpt_model_call *call) {
    int64_t flags[WALK_FLAGS] = {[WALK_RUNS] = 1,
                                 [WALK_BACKWARD] = call->mode != DPT_BACKWARD_NONE,
                                 [WALK_GRADIENT] = call->mode == DPT_BACKWARD_GRADIENT,
                                 [WALK_EDIT] = call->t != 0.0 || call->mode == DPT_BACKWARD_TERMS ||
                                               call->squares};
    dpt_status st = dpt_agree_fault("model.run");
    if (st == DPT_OK)
        st = model_check_call(model, call);
    if (st == DPT_OK)
        st = model_prepare(model, call);
    dpt_model_gradient *adding = model->adding != NULL ? model->adding : call->gradient;
    st = model->together ? model_negotiate(model, st, flags) : dpt_agree(&model->group, st);
    if (st != DPT_OK)
        return st;
    model_clear_outputs(model, call);
    st = dpt_pass_run(model, call, model_walk(flags, adding));
    if (st == DPT_OK)
        st = dpt_agree_fault("model.pass");
    /* Replicas that add to one gradient go on together, or not at all. */
    return model_agree(model, model->adding != NULL, st);
}

bool dpt_model_is_together(const dpt_model *model) {
    return model->together;
}

uint64_t dpt_model_layout(const dpt_model *model) {
    return (uint64_t)model->layout;
}

dpt_status dpt_model_rest(dpt_model *model, dpt_status st) {
    while (model->together && !model->ended) {
        int64_t flags[WALK_FLAGS] = {[WALK_RUNS] = 0};
        st = model_negotiate(model, st, flags);
        if (st != DPT_OK || !flags[WALK_RUNS])
            break;
        dpt_pass_walk_idle(model, model_walk(flags, model->adding));
        if (model->adding != NULL)
            st = model_agree(model, true, DPT_OK);
    }
    model->ended = false;
    if (model->adding != NULL)
        dpt_gradient_end(model->adding);
    model->adding = NULL;
    model->together = model->gathers;
    return st;
}

void dpt_model_hold_layers(dpt_model *model, int64_t layers) {
    model->held = layers < model->arch.layers ? layers : model->arch.layers;
    dpt_work_release(&model->work); /* the next run makes it, with room for them */
}

void dpt_model_release_work(dpt_model *model) {
    dpt_work_release(&model->work);
}

dpt_status dpt_model_gradient_begin(dpt_model *model, dpt_model_gradient *gradient) {
    DPT_ASSERT(model->adding == NULL);
    if (model->replicas.size == 1)
        return DPT_OK;
    dpt_status st = model_agree(model, true, dpt_gradient_begin(gradient));
    if (st != DPT_OK)
        dpt_gradient_end(gradient);
    model->adding = st == DPT_OK ? gradient : NULL;
    model->together = model->gathers || st == DPT_OK;
    return st;
}

dpt_status dpt_model_run(dpt_model *model, const dpt_batch *batch, double t,
                         dpt_model_backward mode, const double *weight, double *nll,
                         uint8_t *correct, double *terms, dpt_model_gradient *gradient) {
    dpt_model_call call = {.batch = batch,
                           .t = t,
                           .mode = mode,
                           .weight = weight,
                           .nll = nll,
                           .correct = correct,
                           .terms = mode == DPT_BACKWARD_TERMS ? terms : NULL,
                           .gradient = gradient};
    model_check_same(&model->group, &call);
    return model_run_call(model, &call);
}

dpt_status dpt_model_run_drawn(dpt_model *model, const dpt_batch *batch, double t,
                               const dpt_model_draw *draw, const double *weight, double *nll,
                               dpt_model_gradient *gradient) {
    DPT_ASSERT_SAME(&model->group, draw->rng.key);
    DPT_ASSERT_SAME(&model->group, draw->rng.purpose);
    DPT_ASSERT_SAME(&model->group, draw->place);
    dpt_model_call call = {.batch = batch,
                           .t = t,
                           .mode = DPT_BACKWARD_GRADIENT,
                           .weight = weight,
                           .nll = nll,
                           .gradient = gradient,
                           .draw = draw};
    model_check_same(&model->group, &call);
    return model_run_call(model, &call);
}

dpt_status dpt_model_run_squares(dpt_model *model, const dpt_batch *batch, double t,
                                 const double *weight, double *nll, double *squares) {
    dpt_model_call call = {.batch = batch,
                           .t = t,
                           .mode = DPT_BACKWARD_TERMS,
                           .weight = weight,
                           .nll = nll,
                           .terms = squares,
                           .squares = true};
    model_check_same(&model->group, &call);
    return model_run_call(model, &call);
}

dpt_status dpt_model_run_logits(dpt_model *model, const dpt_batch *batch, double t, double *nll,
                                uint8_t *correct, double *logits) {
    dpt_model_call call = {.batch = batch,
                           .t = t,
                           .mode = DPT_BACKWARD_NONE,
                           .nll = nll,
                           .correct = correct,
                           .logits = logits};
    model_check_same(&model->group, &call);
    return model_run_call(model, &call);
}
