#include "loss_base.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/tensor/shard.h"

#include <inttypes.h>

typedef struct loss_class {
    dpt_loss base;
    dpt_class_data data;
    int64_t batch; /* images of a pass */
} loss_class;

/* What one evaluation works with. */
typedef struct evaluation {
    const loss_class *kind;
    const dpt_loss_call *call;
    dpt_loss_sums sums;
    float *images;
    double *weight, *nll, *batch_terms;
    uint8_t *correct;
} evaluation;

dpt_status dpt_loss_class_check(const dpt_class_data *data, const dpt_model_image *image) {
    if (data->samples <= 0)
        return dpt_error(DPT_ERR_INPUT, "data: there are no samples: give at least one");
    if (data->channels != image->channels || data->height != image->height ||
        data->width != image->width)
        return dpt_error(DPT_ERR_INPUT,
                         "data: the images are %" PRId64 " x %" PRId64 " x %" PRId64
                         " (channels, height, width) but the model takes %" PRId64 " x %" PRId64
                         " x %" PRId64 ": prepare them with the model's own preprocessing",
                         data->channels, data->height, data->width, image->channels, image->height,
                         image->width);
    for (int64_t s = 0; s < data->samples; s++)
        if (data->labels[s] < 0 || data->labels[s] >= image->classes)
            return dpt_error(DPT_ERR_INPUT,
                             "data: sample %" PRId64 " has the label %d, but the model has %" PRId64
                             " classes: number them as its head does",
                             s, (int)data->labels[s], image->classes);
    return DPT_OK;
}

static int64_t pixels_of(const dpt_class_data *data) {
    return data->channels * data->height * data->width;
}

static void evaluation_release(evaluation *e) {
    dpt_loss_sums_destroy(&e->sums);
    dpt_mem_free(e->images);
    dpt_mem_free(e->weight);
    dpt_mem_free(e->nll);
    dpt_mem_free(e->batch_terms);
    dpt_mem_free(e->correct);
}

static dpt_status evaluation_prepare(const loss_class *kind, const dpt_mesh *mesh,
                                     const dpt_model *model, const dpt_loss_call *call,
                                     evaluation *e) {
    *e = (evaluation){.kind = kind, .call = call};
    int64_t n = kind->batch;
    int64_t terms = call->mode == DPT_BACKWARD_TERMS ? n * dpt_model_catalog(model)->count : 0;
    dpt_status st = dpt_loss_sums_create(&kind->base, mesh, model, call, &e->sums);
    e->images =
        dpt_mem_alloc(n, (size_t)pixels_of(&kind->data) * sizeof *e->images, "images of a batch");
    e->weight = dpt_mem_alloc(n, sizeof *e->weight, "image weights");
    e->nll = dpt_mem_alloc(n, sizeof *e->nll, "image losses");
    e->correct = dpt_mem_alloc(n, sizeof *e->correct, "image hits");
    e->batch_terms = dpt_mem_alloc(terms, sizeof *e->batch_terms, "terms of a batch");
    if (e->images == NULL || e->weight == NULL || e->nll == NULL || e->correct == NULL ||
        e->batch_terms == NULL)
        st = DPT_ERR_OUTPUT;
    return st;
}

static dpt_status run_batch(evaluation *e, const dpt_comm *group, dpt_model *model, int64_t begin,
                            int64_t n) {
    const dpt_class_data *data = &e->kind->data;
    bool mean = e->call->mode == DPT_BACKWARD_GRADIENT;
    dpt_status st = dpt_agree(group, data->read(data->ctx, begin, n, e->images));
    if (st != DPT_OK)
        return st;
    for (int64_t i = 0; i < n; i++)
        e->weight[i] = mean ? dpt_loss_share(&e->kind->base, begin + i) : 1.0;
    dpt_batch batch = {.sequences = n, .images = e->images, .labels = data->labels + begin};
    st = dpt_model_run(model, &batch, e->call->t, e->call->mode,
                       e->call->mode == DPT_BACKWARD_NONE ? NULL : e->weight, e->nll, e->correct,
                       e->batch_terms, e->call->gradient);
    for (int64_t i = 0; i < n && st == DPT_OK; i++) {
        dpt_loss_sums_take(&e->sums, begin + i, e->nll[i], e->correct[i]);
        if (e->call->mode == DPT_BACKWARD_TERMS)
            dpt_loss_sums_take_terms(&e->sums, begin + i, 1.0,
                                     e->batch_terms + i * e->sums.tensors);
    }
    return st;
}

static dpt_status evaluate_class(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model,
                                 const dpt_loss_call *call) {
    const loss_class *kind = (const loss_class *)loss;
    evaluation e;
    dpt_status st = evaluation_prepare(kind, mesh, model, call, &e);
    if (st == DPT_OK)
        st = dpt_agree_fault("loss.evaluate");
    st = dpt_agree(&mesh->world, st);
    if (st == DPT_OK) {
        /* Replicas run alone: a failed one stops, the others find out at the end. */
        for (int64_t s = loss->begin; s < loss->end && st == DPT_OK; s += kind->batch) {
            int64_t n = loss->end - s < kind->batch ? loss->end - s : kind->batch;
            st = run_batch(&e, &mesh->model, model, s, n);
            dpt_loss_report(loss, s + n);
        }
        st = dpt_loss_sums_finish(&e.sums, mesh, st);
    }
    evaluation_release(&e);
    return st;
}

static void destroy_class(dpt_loss *loss) {
    dpt_mem_free(loss);
}

dpt_status dpt_loss_class_create(const dpt_class_data *data, const dpt_model_image *image,
                                 const dpt_mesh *mesh, int64_t batch_tokens, dpt_loss **out) {
    *out = NULL;
    dpt_status st = dpt_loss_class_check(data, image);
    if (st != DPT_OK)
        return st;
    loss_class *kind = dpt_mem_zalloc(1, sizeof *kind, "loss");
    if (kind == NULL)
        return DPT_ERR_OUTPUT;
    kind->base =
        (dpt_loss){.samples = data->samples, .evaluate = evaluate_class, .destroy = destroy_class};
    kind->data = *data;
    dpt_shard_split(data->samples, mesh->data.size, mesh->data.rank, &kind->base.begin,
                    &kind->base.end);
    int64_t here = kind->base.end - kind->base.begin;
    kind->batch = batch_tokens / image->positions;
    kind->batch = kind->batch < here ? kind->batch : here;
    kind->batch = kind->batch > 1 ? kind->batch : 1;
    *out = &kind->base;
    return DPT_OK;
}
