#ifndef DELTAPATH_SRC_STUDY_LOSSES_H
#define DELTAPATH_SRC_STUDY_LOSSES_H

#include "deltapath/comm/mesh.h"
#include "deltapath/loss/loss.h"
#include "inputs.h"
#include "passes.h"
#include "resources.h"

/** Check the samples of data set d against the configuration of the post-trained model and of the
 * reference: token ids, lengths, labels, shapes. Needs no model in memory. The kinds of loss
 * and model must fit (dpt_resources_plan sees to it).
 * Local; the same on all ranks. Errors: DPT_ERR_INPUT naming the data file. */
dpt_status dpt_losses_check(const dpt_inputs *inputs, int d);

/** The loss of data set d for a model. One that compares with a reference model has its numbers not yet.
 * Local; the same on all ranks. Errors: DPT_ERR_INPUT naming the data file. */
dpt_status dpt_losses_create(const dpt_inputs *inputs, int d, const dpt_mesh *mesh,
                             const dpt_model *model, int64_t batch_tokens, dpt_loss **out);

/** Loss of one that knows nothing of data set d [nats] (dpt_loss_kind). Local. */
double dpt_losses_guess(const dpt_inputs *inputs, int d, const dpt_model *model);

/** Numbers of the reference model of each data set whose loss has one (dpt_loss_reference). */
typedef struct dpt_references {
    int ndata;
    double **logp; /**< (ndata) each (samples, numbers), or NULL: not known, or no reference */
} dpt_references;

/** Take what the results directory has already, and measure by the reference models of the job. To be
 * called before the study's own model is loaded: one model is in memory at a time.
 * Collective over the mesh. Errors: as dpt_model_create, dpt_loss_evaluate and dpt_cache_save. */
dpt_status dpt_references_prepare(const dpt_inputs *inputs, const dpt_resources *resources,
                                  dpt_passes *passes, dpt_references *out);

/** Set the reference's numbers of a loss, measured by `model` itself when it is not known yet.
 * Collective over the mesh. */
dpt_status dpt_references_set(dpt_references *references, const dpt_inputs *inputs, int d,
                              dpt_passes *passes, dpt_model *model, dpt_loss *loss);
void dpt_references_destroy(dpt_references *references); /**< Local. */

#endif
