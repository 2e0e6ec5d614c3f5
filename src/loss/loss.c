#include "loss_base.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/same.h"

#include <inttypes.h>
#include <math.h>

void dpt_loss_destroy(dpt_loss *loss) {
    if (loss == NULL)
        return;
    dpt_mem_free(loss->shares);
    loss->destroy(loss);
}

int64_t dpt_loss_samples(const dpt_loss *loss) {
    return loss->samples;
}

void dpt_loss_set_progress(dpt_loss *loss, dpt_loss_progress_fn progress, void *ctx) {
    loss->progress = progress;
    loss->progress_ctx = ctx;
}

void dpt_loss_set_keeper(dpt_loss *loss, const dpt_loss_keeper *keeper) {
    loss->keeper = keeper;
}

const double *dpt_loss_shares(const dpt_loss *loss) {
    return loss->shares;
}

dpt_status dpt_loss_set_weights(dpt_loss *loss, const double *weights) {
    double sum = 0.0;
    for (int64_t s = 0; s < loss->samples; s++) {
        if (!(weights[s] >= 0.0) || isinf(weights[s]))
            return dpt_error(DPT_ERR_INPUT,
                             "data: the weight of sample %" PRId64
                             " is %g: weights are finite and at least 0",
                             s, weights[s]);
        sum += weights[s];
    }
    if (!(sum > 0.0) || isinf(sum))
        return dpt_error(DPT_ERR_INPUT, "data: the weights add up to %g: %s", sum,
                         isinf(sum) ? "divide all of them by a number" : "give some above 0");
    double *shares = dpt_mem_alloc(loss->samples, sizeof *shares, "sample weights");
    if (shares == NULL)
        return DPT_ERR_OUTPUT;
    for (int64_t s = 0; s < loss->samples; s++)
        shares[s] = weights[s] / sum;
    dpt_mem_free(loss->shares);
    loss->shares = shares;
    return DPT_OK;
}

static dpt_status loss_evaluate_call(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model,
                                     const dpt_loss_call *call) {
    dpt_loss_pass pass;
    dpt_status st = dpt_loss_pass_create(loss, mesh, model, call, &pass);
    if (st == DPT_OK && loss->ready != NULL)
        st = loss->ready(loss);
    st = dpt_loss_pass_run(&pass, mesh, st, loss->run_batch);
    if (st == DPT_OK)
        st = dpt_loss_sums_finish(&pass.sums, mesh);
    dpt_loss_pass_destroy(&pass);
    return st;
}

dpt_status dpt_loss_evaluate(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model, double t,
                             dpt_model_backward mode, double *losses, uint8_t *correct,
                             double *terms, double *sample_terms, dpt_model_gradient *gradient) {
    dpt_loss_call call = {.t = t,
                          .mode = mode,
                          .losses = losses,
                          .correct = correct,
                          .terms = terms,
                          .sample_terms = sample_terms,
                          .gradient = gradient};
    return loss_evaluate_call(loss, mesh, model, &call);
}

dpt_status dpt_loss_evaluate_few(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model,
                                 double t, int64_t few, double *losses, double *terms,
                                 double *sample_terms) {
    DPT_ASSERT_SAME(&mesh->world, few);
    dpt_loss_call call = {.t = t,
                          .mode = DPT_BACKWARD_TERMS,
                          .losses = losses,
                          .terms = terms,
                          .sample_terms = sample_terms,
                          .few = few};
    return loss_evaluate_call(loss, mesh, model, &call);
}

dpt_status dpt_loss_evaluate_tensors(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model,
                                     double t, double *losses, double *terms, double *sample_terms,
                                     double *tensor_terms) {
    dpt_loss_call call = {.t = t,
                          .mode = DPT_BACKWARD_TERMS,
                          .losses = losses,
                          .terms = terms,
                          .sample_terms = sample_terms,
                          .tensor_terms = tensor_terms};
    return loss_evaluate_call(loss, mesh, model, &call);
}

dpt_status dpt_loss_evaluate_matrices(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model,
                                      double t, double *losses, uint8_t *correct, double *terms,
                                      double *sample_terms, double *matrix_terms) {
    dpt_loss_call call = {.t = t,
                          .mode = DPT_BACKWARD_TERMS,
                          .losses = losses,
                          .correct = correct,
                          .terms = terms,
                          .sample_terms = sample_terms,
                          .matrix_terms = matrix_terms};
    return loss_evaluate_call(loss, mesh, model, &call);
}

dpt_status dpt_loss_evaluate_drawn(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model,
                                   double t, dpt_rng labels, double *losses,
                                   dpt_model_gradient *gradient) {
    DPT_ASSERT_SAME(&mesh->world, labels.key);
    DPT_ASSERT_SAME(&mesh->world, labels.purpose);
    if (!loss->draws)
        return dpt_error(DPT_ERR_INPUT, "data: a preference has no label that the model could "
                                        "draw: take data of loss lm or class");
    dpt_loss_call call = {.t = t,
                          .mode = DPT_BACKWARD_GRADIENT,
                          .losses = losses,
                          .gradient = gradient,
                          .labels = &labels};
    return loss_evaluate_call(loss, mesh, model, &call);
}

dpt_status dpt_loss_evaluate_label(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model,
                                   double t, int32_t label, double *losses, double *squares,
                                   double *sample_squares) {
    DPT_ASSERT_SAME(&mesh->world, label);
    if (!loss->enumerates)
        return dpt_error(DPT_ERR_INPUT, "data: only classes of images can be taken one after the "
                                        "other: draw labels, or take data of loss class");
    dpt_loss_call call = {.t = t,
                          .mode = DPT_BACKWARD_TERMS,
                          .losses = losses,
                          .terms = squares,
                          .sample_terms = sample_squares,
                          .squares = true,
                          .label = label};
    return loss_evaluate_call(loss, mesh, model, &call);
}

dpt_status dpt_loss_evaluate_logits(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model,
                                    double t, double *losses, uint8_t *correct, double *logits) {
    if (!loss->enumerates)
        return dpt_error(DPT_ERR_INPUT, "data: logits are given of the classes of images alone: "
                                        "take data of loss class");
    dpt_loss_call call = {
        .t = t, .mode = DPT_BACKWARD_NONE, .losses = losses, .correct = correct, .logits = logits};
    return loss_evaluate_call(loss, mesh, model, &call);
}
