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

dpt_status dpt_loss_class_check(const dpt_class_data *data, const dpt_model_image *image) {
    if (data->samples <= 0)
        return dpt_error(DPT_ERR_INPUT, "data: there are no samples: give at least one");
    if (data->channels != image->channels || data->height != image->height ||
        data->width != image->width)
        return dpt_error(DPT_ERR_INPUT,
                         "data: the images are %" PRId64 " x %" PRId64 " x %" PRId64
                         " (channels, height, width) but the model takes %" PRId64 " x %" PRId64
                         " x %" PRId64
                         ", without interpolation of positions: prepare them with the "
                         "model's own preprocessing",
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

static int64_t loss_class_batch_end(const dpt_loss *loss, int64_t s) {
    int64_t batch = ((const loss_class *)loss)->batch;
    return loss->end - s < batch ? loss->end : s + batch;
}

static dpt_status loss_class_run_batch(dpt_loss_pass *pass, int64_t begin, int64_t end) {
    const dpt_class_data *data = &((const loss_class *)pass->loss)->data;
    int64_t n = end - begin;
    int32_t *labels = pass->extra;
    void *rest = labels + n;
    float *images = rest;
    dpt_status st = n > 0 ? data->read(data->ctx, begin, n, images) : DPT_OK;
    st = dpt_agree(pass->group, st);
    if (st != DPT_OK)
        return st;
    for (int64_t i = 0; i < n; i++)
        pass->weight[i] = dpt_loss_pass_weight(pass, begin + i, 1);
    for (int64_t i = 0; i < n; i++)
        labels[i] = pass->call->squares ? pass->call->label : data->labels[begin + i];
    dpt_batch batch = {.sequences = n, .images = images, .labels = labels};
    st = dpt_loss_pass_model(pass, &batch, begin, pass->call->mode);
    for (int64_t i = 0; i < n && st == DPT_OK; i++)
        dpt_loss_pass_take(pass, begin, i, pass->nll[i], pass->correct[i]);
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
    dpt_loss *base = &kind->base;
    *base = (dpt_loss){.samples = data->samples,
                       .hits = true,
                       .draws = true,
                       .enumerates = true,
                       .batch_end = loss_class_batch_end,
                       .run_batch = loss_class_run_batch,
                       .destroy = destroy_class};
    kind->data = *data;
    dpt_shard_split(data->samples, mesh->data.size, mesh->data.rank, &base->begin, &base->end);
    kind->batch = batch_tokens / image->positions;
    kind->batch = kind->batch > 1 ? kind->batch : 1;
    int64_t here = base->end - base->begin, maximum = kind->batch < here ? kind->batch : here;
    base->most_sequences = base->most_scores = maximum;
    base->extra_bytes =
        maximum * data->channels * data->height * data->width * (int64_t)sizeof(float) +
        maximum * (int64_t)sizeof(int32_t);
    *out = base;
    return DPT_OK;
}
