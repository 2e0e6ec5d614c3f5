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
 * the loss of the data set is the mean over samples. A sample is correct when every scored token is the
 * arg max (exact match).
 * Local. Errors: DPT_ERR_INPUT for no samples, offsets that do not rise or leave the data, a sample
 * without a scored token (naming it), a token outside the vocabulary, a sequence longer than the
 * model's positions. @param[in] batch_tokens most tokens packed into one pass. */
dpt_status dpt_loss_lm_create(const dpt_lm_data *data, int64_t vocabulary, int64_t max_positions,
                              const dpt_mesh *mesh, int64_t batch_tokens, dpt_loss **out);

/** The checks of dpt_loss_lm_create alone, for a job that is validated before its model is loaded. Local.
 * @param[in] vocabulary, max_positions as dpt_model_config_limits gives them. */
dpt_status dpt_loss_lm_check(const dpt_lm_data *data, int64_t vocabulary, int64_t max_positions);

/** Image classification samples. Borrowed. */
typedef struct dpt_class_data {
    int64_t samples;
    int64_t channels, height, width;
    const int32_t *labels; /**< (samples) */
    void *ctx;             /**< of read */
    /** Images [first, first + n) as (n, channels, height, width) fp32. Local. */
    dpt_status (*read)(void *ctx, int64_t first, int64_t n, float *out);
} dpt_class_data;

/** Classification: the loss of a sample is the cross-entropy of its label [nats]. A sample is correct
 * when its label has the greatest logit (top-1).
 * Local. Errors: DPT_ERR_INPUT for no samples, images of another shape than the model takes, a label
 * that is not one of its classes, naming the sample. @param[in] batch_tokens most tokens of one pass;
 * an image counts as image->positions. */
dpt_status dpt_loss_class_create(const dpt_class_data *data, const dpt_model_image *image,
                                 const dpt_mesh *mesh, int64_t batch_tokens, dpt_loss **out);

/** The checks of dpt_loss_class_create alone. Local. */
dpt_status dpt_loss_class_check(const dpt_class_data *data, const dpt_model_image *image);

/** Preference data: sequences 2 i and 2 i + 1 of `pairs` are the chosen and the rejected of sample i;
 * pairs->samples counts sequences. */
typedef struct dpt_dpo_data {
    dpt_lm_data pairs;
    double beta; /**< above 0 */
} dpt_dpo_data;

/** Direct preference optimisation: with m = beta ((policy - reference of the chosen) - (policy -
 * reference of the rejected)) of the responses' log-probabilities, summed over their scored tokens, the
 * loss of a sample is -log sigmoid(m) [nats]. A sample is correct when m > 0, beyond the rounding of the
 * log-probabilities (1e-6).
 *   Source: arXiv:2305.18290 Eq. 7.
 * Local. Errors: DPT_ERR_INPUT as dpt_loss_lm_create, naming sample and side. The reference must be set
 * before the first evaluation. */
dpt_status dpt_loss_dpo_create(const dpt_dpo_data *data, int64_t vocabulary, int64_t max_positions,
                               const dpt_mesh *mesh, int64_t batch_tokens, dpt_loss **out);

/** The checks of dpt_loss_dpo_create alone. Local. */
dpt_status dpt_loss_dpo_check(const dpt_dpo_data *data, int64_t vocabulary, int64_t max_positions);

/** Log-probabilities of the responses by a model at t = 0. Collective over the mesh, agreed.
 * @param[out] logp (samples, 2) [nats] chosen, rejected; the same on all ranks. */
dpt_status dpt_loss_dpo_measure(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model,
                                double *logp);

/** Take a copy of the reference's log-probabilities, as dpt_loss_dpo_measure gives them. Local. */
dpt_status dpt_loss_dpo_set_reference(dpt_loss *loss, const double *logp);

/** Weigh the samples in the mean: sample i counts weights[i] / sum of all. Local.
 * Errors: DPT_ERR_INPUT for a weight that is negative or not finite, naming it, or a sum of 0. */
dpt_status dpt_loss_set_weights(dpt_loss *loss, const double *weights);

/** Shares of the samples in the mean, (samples) of sum 1; NULL when all count alike. Local. */
const double *dpt_loss_shares(const dpt_loss *loss);

/** Called after each batch of an evaluation. Local. @param[in] share of this replica's samples that are
 * done, rising to 1 in each evaluation. */
typedef void (*dpt_loss_progress_fn)(void *ctx, double share);

/** Have evaluations say how far they are; a NULL function ends that. Local. */
void dpt_loss_set_progress(dpt_loss *loss, dpt_loss_progress_fn progress, void *ctx);

/** A run of bytes of the state of a pass. */
typedef struct dpt_loss_part {
    void *bytes;
    int64_t n;
} dpt_loss_part;

/** Keeps the state of an evaluation between two batches, so that a later run can go on from there and
 * gets the same bits. All functions are Local, and may fail without harm: the work is then done again. */
typedef struct dpt_loss_keeper {
    void *ctx;
    bool resumes; /**< an earlier run may have left states: the same on all ranks */
    /** Of the states that this rank finds (at most two), the first sample that is not in them; of a gradient, to which
     * all replicas add in the same steps, how many steps are. */
    void (*find)(void *ctx, int64_t next[2]);
    /** Read one of them. @return false when it is damaged; the parts are undefined then. */
    bool (*load)(void *ctx, int64_t next, const dpt_loss_part *parts, int count);
    /** Whether it is time to save. */
    bool (*due)(void *ctx, bool gradient);
    /** @param[in] stops this is the last call of the run. */
    void (*save)(void *ctx, int64_t next, const dpt_loss_part *parts, int count, bool stops);
    /** So many samples of all replicas need no evaluation. */
    void (*taken)(void *ctx, int64_t samples);
} dpt_loss_keeper;

/** Have evaluations kept, from the next on; NULL ends that. A gradient must be zero when it is given to
 * dpt_loss_evaluate then. Local. @param[in] keeper borrowed. */
void dpt_loss_set_keeper(dpt_loss *loss, const dpt_loss_keeper *keeper);

void dpt_loss_destroy(dpt_loss *loss);          /**< Local; NULL is allowed. */
int64_t dpt_loss_samples(const dpt_loss *loss); /**< Of all replicas. Local. */

/** Evaluate at t. Collective over the mesh.
 * @param[in]  mode     as dpt_model_run; the derivative is that of the (weighted) mean loss.
 * @param[out] losses   (samples) the same on all ranks. @param[out] correct (samples) 1 where the model
 *                      is right, as the kind of loss says, or NULL.
 * @param[out] terms    (tensors) all-reduced <grad of mean loss, E>; TERMS only.
 * @param[out] sample_terms (samples) sum over tensors of <grad of the sample's loss, E>; TERMS only.
 * @param[in,out] gradient of the mean loss, of all replicas; GRADIENT only.
 * Determinism: to rounding between meshes. */
dpt_status dpt_loss_evaluate(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model, double t,
                             dpt_model_backward mode, double *losses, uint8_t *correct,
                             double *terms, double *sample_terms, dpt_model_gradient *gradient);

/** dpt_loss_evaluate with mode TERMS of the first samples of each replica alone. Collective over the mesh (same: few).
 * @param[in] few above 0. @param[out] losses, sample_terms (samples) 0 of all others. @param[out] terms (tensors) of these
 * samples, with their weights among all. Determinism: to rounding between meshes of as many replicas. */
dpt_status dpt_loss_evaluate_few(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model,
                                 double t, int64_t few, double *losses, double *terms,
                                 double *sample_terms);

/** dpt_loss_evaluate with mode TERMS that gives the terms of the matrices of tensors that have several too.
 * Collective over the mesh. @param[out] matrix_terms (dpt_model_columns less tensors) as terms.
 * Determinism: to rounding between meshes. */
dpt_status dpt_loss_evaluate_matrices(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model,
                                      double t, double *losses, uint8_t *correct, double *terms,
                                      double *sample_terms, double *matrix_terms);

/** dpt_loss_evaluate with mode TERMS that keeps the terms of every sample apart. Collective over the mesh.
 * @param[out] losses, sample_terms (samples), terms (tensors) as there.
 * @param[out] tensor_terms (samples, tensors) <grad of the sample's loss, E> of each tensor, the same on all ranks.
 * Determinism: to rounding between meshes. */
dpt_status dpt_loss_evaluate_tensors(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model,
                                     double t, double *losses, double *terms, double *sample_terms,
                                     double *tensor_terms);

/** Gradient with labels that the model itself draws at t, independently for each scored token or image and
 * given the data's own tokens before it. Collective over the mesh (same: labels).
 * Computes: G = sum over scores of sqrt(w) grad nll(drawn label), w the weight of the score in the (weighted)
 *           mean loss. Labels are independent, so the mean of G_i^2 over draws is
 *           sum w (J^T (diag(p) - p p^T) J)_ii, the Gauss-Newton diagonal of the mean loss.
 * @param[in]  labels  stream of the draws: place i of the data set (its token i, or image i) takes the
 *                     words of dpt_model_run_drawn.
 * @param[out] losses  (samples) of the drawn labels, the same on all ranks: their mean is that of the entropy.
 * @param[in,out] gradient G; zero before.
 * Errors: DPT_ERR_INPUT for a loss without labels to draw (dpo).
 * Determinism: to rounding between meshes and batches; a label changes only where two entries tie to rounding. */
dpt_status dpt_loss_evaluate_drawn(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model,
                                   double t, dpt_rng labels, double *losses,
                                   dpt_model_gradient *gradient);

/** One class of the exact Gauss-Newton diagonal along E. Collective over the mesh (same: label).
 * Computes: for each tensor sum over images of w p(label) sum_i (E_i d log p(label) / d W_i)^2, w the weight of the
 *           image in the (weighted) mean loss and p its softmax at t. Over all classes that adds up to
 *           sum_i E_i^2 sum w (J^T (diag(p) - p p^T) J)_ii.
 * @param[out] losses (samples) of the label. @param[out] squares (tensors), sample_squares (samples) without w.
 * Errors: DPT_ERR_INPUT for a loss other than class. Determinism: to rounding between meshes. */
dpt_status dpt_loss_evaluate_label(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model,
                                   double t, int32_t label, double *losses, double *squares,
                                   double *sample_squares);

/** dpt_loss_evaluate with mode NONE and the logits of every image at t. Collective over the mesh.
 * @param[out] losses, correct (samples). @param[out] logits (samples, classes). All the same on all ranks.
 * Errors: DPT_ERR_INPUT for a loss other than class. Determinism: to rounding between meshes. */
dpt_status dpt_loss_evaluate_logits(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model,
                                    double t, double *losses, uint8_t *correct, double *logits);

#endif
