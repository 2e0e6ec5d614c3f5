#include "loss_base.h"

void dpt_loss_destroy(dpt_loss *loss) {
    if (loss != NULL)
        loss->destroy(loss);
}

int64_t dpt_loss_samples(const dpt_loss *loss) {
    return loss->samples;
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
    return loss->evaluate(loss, mesh, model, &call);
}
