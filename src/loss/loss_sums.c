#include "loss_base.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"

#include <string.h>

static int64_t count_of(const dpt_loss_sums *sums) {
    int64_t rows = sums->call->tensor_terms != NULL ? sums->tensors : 0;
    return (3 + sums->classes + rows) * sums->loss->samples + sums->columns;
}

dpt_status dpt_loss_sums_create(const dpt_loss *loss, const dpt_mesh *mesh, const dpt_model *model,
                                const dpt_loss_call *call, dpt_loss_sums *out) {
    *out = (dpt_loss_sums){.loss = loss,
                           .call = call,
                           .is_root = mesh->model.rank == 0,
                           .tensors = dpt_model_catalog(model)->count,
                           .columns = dpt_model_columns(model)};
    dpt_model_image image;
    if (call->logits != NULL && dpt_model_get_image(model, &image))
        out->classes = image.classes;
    out->values = dpt_mem_zalloc(count_of(out), sizeof *out->values, "losses and terms");
    if (out->values == NULL)
        return DPT_ERR_OUTPUT;
    out->losses = out->values;
    out->hits = out->losses + loss->samples;
    out->sample_terms = out->hits + loss->samples;
    out->terms = out->sample_terms + loss->samples;
    out->logits = out->terms + out->columns;
    if (call->tensor_terms != NULL)
        out->tensor_terms = out->logits + out->classes * loss->samples;
    return DPT_OK;
}

void dpt_loss_sums_destroy(dpt_loss_sums *sums) {
    dpt_mem_free(sums->values);
    sums->values = NULL;
}

void dpt_loss_sums_take(dpt_loss_sums *sums, int64_t sample, double loss, bool hit) {
    if (!sums->is_root)
        return;
    sums->losses[sample] = loss;
    sums->hits[sample] = hit;
}

void dpt_loss_sums_take_terms(dpt_loss_sums *sums, int64_t sample, double scale,
                              const double *terms) {
    double share = dpt_loss_share(sums->loss, sample);
    for (int k = 0; k < sums->tensors; k++)
        sums->sample_terms[sample] += scale * terms[k];
    for (int k = 0; k < sums->columns; k++)
        sums->terms[k] += share * (scale * terms[k]);
    for (int k = 0; k < sums->tensors && sums->tensor_terms != NULL; k++)
        sums->tensor_terms[sample * sums->tensors + k] += scale * terms[k];
}

static void give_results(const dpt_loss_sums *sums) {
    const dpt_loss_call *call = sums->call;
    int64_t n = sums->loss->samples;
    memcpy(call->losses, sums->losses, (size_t)n * sizeof(double));
    for (int64_t s = 0; call->correct != NULL && s < n; s++)
        call->correct[s] = sums->hits[s] != 0.0;
    if (sums->classes > 0)
        memcpy(call->logits, sums->logits, (size_t)(n * sums->classes) * sizeof(double));
    if (call->mode != DPT_BACKWARD_TERMS)
        return;
    if (call->sample_terms != NULL)
        memcpy(call->sample_terms, sums->sample_terms, (size_t)n * sizeof(double));
    memcpy(call->terms, sums->terms, (size_t)sums->tensors * sizeof(double));
    if (call->matrix_terms != NULL)
        memcpy(call->matrix_terms, sums->terms + sums->tensors,
               (size_t)(sums->columns - sums->tensors) * sizeof(double));
    if (sums->tensor_terms != NULL)
        memcpy(call->tensor_terms, sums->tensor_terms,
               (size_t)(n * sums->tensors) * sizeof(double));
}

dpt_status dpt_loss_sums_finish(dpt_loss_sums *sums, const dpt_mesh *mesh) {
    dpt_status st = dpt_comm_sum_f64(&mesh->world, sums->values, count_of(sums));
    st = dpt_agree(&mesh->world, st);
    if (st == DPT_OK)
        give_results(sums);
    return st;
}
