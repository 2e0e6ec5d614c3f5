#ifndef DELTAPATH_LOSS_LOSS_H
#define DELTAPATH_LOSS_LOSS_H

#include "deltapath/comm/mesh.h"
#include "deltapath/model/model.h"

#include <stdint.h>

/** A data set with its loss, spread over the data-parallel ranks of a mesh. Sample i of n belongs to
 * the replica that an even contiguous split gives it. */
typedef struct dpt_loss dpt_loss;

/** Samples of a language-model data set as read from its file, whole on each rank. Borrowed. */
typedef struct dpt_lm_data {
    int64_t samples;
    const int64_t *offsets; /**< (samples + 1) */
    const int32_t *tokens;
    const uint8_t *loss_mask; /**< 1: scored */
} dpt_lm_data;

/** Causal-LM cross-entropy: the loss of a sample is the mean nll [nats/token] of its scored tokens;
 * the loss of the data set is the mean over samples.
 * Local. Errors: DPT_ERR_INPUT for no samples, offsets that do not rise or leave the data, a sample
 * without a scored token (naming it), a token outside the vocabulary, a sequence longer than the
 * model's positions. @param[in] batch_tokens most tokens packed into one pass. */
dpt_status dpt_loss_lm_create(const dpt_lm_data *data, int64_t vocabulary, int64_t max_positions,
                              const dpt_mesh *mesh, int64_t batch_tokens, dpt_loss **out);
void dpt_loss_destroy(dpt_loss *loss);
int64_t dpt_loss_samples(const dpt_loss *loss);

/** Evaluate at t. Collective over the mesh.
 * @param[in]  mode     as dpt_model_run; the derivative is that of the mean loss.
 * @param[out] losses   (samples) the same on all ranks. @param[out] correct (samples) 1 where every
 *                      scored token is the arg max (exact match), or NULL.
 * @param[out] terms    (tensors) all-reduced <grad of mean loss, E>; TERMS only.
 * @param[out] sample_terms (samples) sum over tensors of <grad of the sample's loss, E>; TERMS only.
 * @param[in,out] gradient of the mean loss, this replica's share (dpt_model_gradient_sum adds the
 *                      replicas); GRADIENT only.
 * Determinism: to rounding between meshes. */
dpt_status dpt_loss_evaluate(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model, double t,
                             dpt_model_backward mode, double *losses, uint8_t *correct,
                             double *terms, double *sample_terms, dpt_model_gradient *gradient);

#endif
