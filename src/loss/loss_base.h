#ifndef DELTAPATH_SRC_LOSS_LOSS_BASE_H
#define DELTAPATH_SRC_LOSS_LOSS_BASE_H

#include "deltapath/loss/loss.h"

/** Outputs of dpt_loss_evaluate. */
typedef struct dpt_loss_call {
    double t;
    dpt_model_backward mode;
    double *losses;
    uint8_t *correct;
    double *terms;
    double *sample_terms;
    dpt_model_gradient *gradient;
} dpt_loss_call;

/** What every kind of loss begins with; its own fields follow. */
struct dpt_loss {
    int64_t samples;
    dpt_status (*evaluate)(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model,
                           const dpt_loss_call *call);
    void (*destroy)(dpt_loss *loss);
};

#endif
