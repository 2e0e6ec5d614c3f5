#include "config.h"
#include "driver.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"

#include <stdio.h>
#include <string.h>

/* A new architecture is one more entry here and the files of its driver. */
static const dpt_model_driver *const drivers[] = {
    &dpt_model_llama, &dpt_model_mistral, &dpt_model_qwen2, &dpt_model_vit, &dpt_model_clip_vision,
};

enum { DRIVERS = sizeof drivers / sizeof drivers[0] };

static dpt_status unsupported(const char *key, const char *value) {
    char known[256] = "";
    size_t used = 0;
    for (int i = 0; i < DRIVERS; i++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i > 0 ? ", " : "",
                                 drivers[i]->architecture);
    return dpt_error(DPT_ERR_INPUT,
                     "config.json: %s %.64s is not supported: gradients work for %s; edits alone "
                     "work without `data` in the job",
                     key, value, known);
}

static dpt_status find_driver(const json_t *config, const dpt_model_driver **out) {
    const char *architecture =
        json_string_value(json_array_get(json_object_get(config, "architectures"), 0));
    const char *type = json_string_value(json_object_get(config, "model_type"));
    const char *key = architecture != NULL ? "architectures" : "model_type";
    const char *value = architecture != NULL ? architecture : type;
    *out = NULL;
    if (value == NULL)
        return dpt_error(DPT_ERR_INPUT, "config.json: neither architectures nor model_type says "
                                        "what the model is: copy the model's whole config.json");
    for (int i = 0; i < DRIVERS; i++)
        if (strcmp(value,
                   architecture != NULL ? drivers[i]->architecture : drivers[i]->model_type) == 0)
            *out = drivers[i];
    if (*out == NULL)
        return unsupported(key, value);
    if (type != NULL && strcmp(type, (*out)->model_type) != 0)
        return dpt_error(DPT_ERR_INPUT,
                         "config.json: architectures says %.64s but model_type says "
                         "%.64s: copy the model's config.json again",
                         value, type);
    return DPT_OK;
}

/* All of create that is local: configuration and claims of rank `rank` of `size`. */
static dpt_status open_local(dpt_model *model, const char *config, const dpt_catalog *catalog,
                             int rank, int size) {
    json_t *root = NULL;
    dpt_status st = dpt_config_parse(config, &root);
    if (st == DPT_OK)
        st = find_driver(root, &model->driver);
    if (st == DPT_OK)
        st = dpt_catalog_copy(catalog, &model->catalog);
    if (st == DPT_OK)
        st = model->driver->open(model, root, rank, size);
    json_decref(root);
    return st;
}

dpt_status dpt_model_config_compare(const char *a, const char *b, const dpt_catalog *catalog,
                                    char *text, size_t size) {
    json_t *one = NULL, *other = NULL;
    const dpt_model_driver *driver = NULL, *second = NULL;
    text[0] = '\0';
    dpt_status st = dpt_config_parse(a, &one);
    if (st == DPT_OK)
        st = dpt_config_parse(b, &other);
    if (st == DPT_OK)
        st = find_driver(one, &driver);
    if (st == DPT_OK)
        st = find_driver(other, &second);
    if (st == DPT_OK && driver != second)
        snprintf(text, size, "architectures (%s and %s)", driver->architecture,
                 second->architecture);
    else if (st == DPT_OK)
        st = driver->compare(driver->family, one, other, catalog, text, size);
    json_decref(one);
    json_decref(other);
    return st;
}

/* null, false, 0, 1 and what is empty switch an option off. */
static bool is_idle(const json_t *value) {
    double number = json_number_value(value);
    return json_is_null(value) || json_is_false(value) ||
           (json_is_number(value) && (number == 0.0 || number == 1.0)) ||
           (json_is_string(value) && json_string_length(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0);
}

dpt_status dpt_model_config_unknown(const char *config, char *text, size_t size) {
    const dpt_model_driver *driver = NULL;
    json_t *root = NULL;
    const char *key;
    json_t *value;
    text[0] = '\0';
    dpt_status st = dpt_config_parse(config, &root);
    if (st == DPT_OK)
        st = find_driver(root, &driver);
    if (st == DPT_OK && driver->knows != NULL)
        json_object_foreach(root, key, value) {
            size_t used = strlen(text);
            if (!driver->knows(key) && !is_idle(value))
                snprintf(text + used, size - used, "%s%.48s", used > 0 ? ", " : "", key);
        }
    json_decref(root);
    return st;
}

void dpt_model_destroy(dpt_model *model) {
    if (model == NULL)
        return;
    if (model->state != NULL)
        model->driver->close(model->state);
    dpt_params_destroy(&model->params);
    dpt_catalog_destroy(&model->catalog);
    dpt_mem_free(model);
}

dpt_status dpt_model_create(const dpt_comm *group, const char *config, dpt_source weights,
                            dpt_model **out) {
    *out = NULL;
    dpt_status st = dpt_agree_fault("model.load");
    dpt_model *model = dpt_mem_zalloc(1, sizeof *model, "model");
    if (model == NULL)
        st = DPT_ERR_OUTPUT;
    if (st == DPT_OK)
        st = open_local(model, config, weights.catalog, group->rank, group->size);
    if (model != NULL)
        model->group = *group;
    st = dpt_agree(group, st);
    /* The source may span more ranks than this group: they wait for our part of each fetch. */
    st = dpt_params_load(model != NULL ? &model->params : NULL, st, &weights, false);
    st = dpt_agree(group, st);
    if (st == DPT_OK)
        *out = model;
    else
        dpt_model_destroy(model);
    return st;
}

dpt_status dpt_model_bind_edit(dpt_model *model, const dpt_source *edited) {
    model->bound = false;
    if (edited == NULL) {
        dpt_params_unbind(&model->params);
        return DPT_OK;
    }
    dpt_status st = dpt_agree(&model->group, dpt_agree_fault("model.load"));
    st = dpt_params_load(&model->params, st, edited, true);
    st = dpt_agree(&model->group, st);
    if (st != DPT_OK)
        dpt_params_unbind(&model->params);
    model->bound = st == DPT_OK;
    return st;
}

const dpt_catalog *dpt_model_catalog(const dpt_model *model) {
    return &model->catalog;
}

int64_t dpt_model_vocabulary(const dpt_model *model) {
    return model->driver->vocabulary != NULL ? model->driver->vocabulary(model) : 0;
}

int64_t dpt_model_max_positions(const dpt_model *model) {
    return model->driver->max_positions != NULL ? model->driver->max_positions(model) : 0;
}

bool dpt_model_get_image(const dpt_model *model, dpt_model_image *out) {
    bool is_image = model->driver->image != NULL;
    *out = is_image ? model->driver->image(model) : (dpt_model_image){.classes = 0};
    return is_image;
}

/* A model that only knows its configuration, as rank 0 of 1 would have it. */
static dpt_status open_config(const char *config, const dpt_catalog *catalog, dpt_model **out) {
    *out = dpt_mem_zalloc(1, sizeof **out, "model");
    return *out != NULL ? open_local(*out, config, catalog, 0, 1) : DPT_ERR_OUTPUT;
}

dpt_status dpt_model_config_image(const char *config, const dpt_catalog *catalog, bool *is_image,
                                  dpt_model_image *out) {
    *is_image = false;
    dpt_model *model;
    dpt_status st = open_config(config, catalog, &model);
    if (st == DPT_OK)
        *is_image = dpt_model_get_image(model, out);
    dpt_model_destroy(model);
    return st;
}

dpt_status dpt_model_config_limits(const char *config, const dpt_catalog *catalog,
                                   int64_t *vocabulary, int64_t *max_positions) {
    *vocabulary = *max_positions = 0;
    dpt_model *model;
    dpt_status st = open_config(config, catalog, &model);
    if (st == DPT_OK) {
        *vocabulary = dpt_model_vocabulary(model);
        *max_positions = dpt_model_max_positions(model);
    }
    dpt_model_destroy(model);
    return st;
}

dpt_status dpt_model_bytes(const char *config, const dpt_catalog *catalog, int group_size,
                           bool edited, int64_t tokens, int64_t longest, int64_t *weights,
                           int64_t *work) {
    *weights = *work = 0;
    /* Blocks are uneven, and a rank in the middle can need more key-value heads than rank 0. The
     * pattern of boundaries repeats, so the first ranks, whose shares are the largest, show it. */
    int ranks = group_size < 64 ? group_size : 64;
    dpt_status st = DPT_OK;
    for (int rank = 0; rank < ranks && st == DPT_OK; rank++) {
        dpt_model *model = dpt_mem_zalloc(1, sizeof *model, "model");
        if (model == NULL)
            return DPT_ERR_OUTPUT;
        st = open_local(model, config, catalog, rank, group_size);
        if (st == DPT_OK) {
            int64_t resident = dpt_params_bytes(&model->params) * (edited ? 2 : 1);
            int64_t passes = model->driver->work_bytes(model, tokens, longest);
            *weights = resident > *weights ? resident : *weights;
            *work = passes > *work ? passes : *work;
        }
        dpt_model_destroy(model);
    }
    return st;
}

static void clear_outputs(const dpt_model *model, const dpt_model_call *call) {
    const dpt_batch *batch = call->batch;
    int64_t scores = dpt_batch_scores(batch);
    memset(call->nll, 0, (size_t)scores * sizeof *call->nll);
    if (call->correct != NULL)
        memset(call->correct, 0, (size_t)scores);
    if (call->terms != NULL)
        memset(call->terms, 0,
               (size_t)(batch->sequences * model->catalog.count) * sizeof *call->terms);
}

static dpt_status check_call(const dpt_model *model, const dpt_model_call *call) {
    bool terms = call->mode == DPT_BACKWARD_TERMS;
    bool gradient = call->mode == DPT_BACKWARD_GRADIENT;
    if ((terms || call->t != 0.0) && !model->bound)
        return dpt_error(DPT_ERR_INTERNAL,
                         "model: t above 0 and terms need an edit: bind one first");
    if ((terms && call->terms == NULL) || (gradient && call->gradient == NULL) ||
        (call->mode != DPT_BACKWARD_NONE && call->weight == NULL))
        return dpt_error(DPT_ERR_INTERNAL, "model: an output of the backward pass is missing");
    if ((call->batch->images != NULL) != (model->driver->image != NULL))
        return dpt_error(DPT_ERR_INTERNAL, "model: the batch holds %s: the model takes the other",
                         call->batch->images != NULL ? "images" : "tokens");
    return DPT_OK;
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
    dpt_status st = dpt_agree_fault("model.run");
    if (st == DPT_OK)
        st = check_call(model, &call);
    if (st == DPT_OK)
        st = model->driver->prepare(model, &call);
    st = dpt_agree(&model->group, st);
    if (st != DPT_OK)
        return st;
    clear_outputs(model, &call);
    return dpt_agree(&model->group, model->driver->run(model, &call));
}
