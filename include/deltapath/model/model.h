#ifndef DELTAPATH_MODEL_MODEL_H
#define DELTAPATH_MODEL_MODEL_H

#include "deltapath/base/rng.h"
#include "deltapath/comm/comm.h"
#include "deltapath/model/batch.h"
#include "deltapath/tensor/catalog.h"
#include "deltapath/tensor/field.h"
#include "deltapath/tensor/pair.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** A model spread over a tensor-parallel group: the architecture of its configuration, this rank's
 * blocks of the post-trained weights, and, once bound, of the edited ones. The weights at t,
 * W(t) = W_post + t (W_edit - W_post), are formed in fp32 a layer at a time. */
typedef struct dpt_model dpt_model;

/** Create from the text of config.json and load the post-trained blocks.
 *
 * Each rank of `replicas` holds a share of the blocks; those of one machine read each other's, those of several gather a
 * layer at a time. Collective over group and replicas, whose product are the ranks that a collective source spans (same:
 * config, catalog).
 * @param[in] group    tensor-parallel ranks; any number: ranks without heads, hidden units or vocabulary rows take part
 *                     with empty blocks. Handles are kept: the communicators must outlive the model.
 * @param[in] replicas ranks with the same place in their groups; NULL: there is one replica
 * @param[in] weights  values and catalog (HuggingFace names). Its fetch is called once for each layer, for what comes
 *                     before and for what comes after them.
 * Errors, agreed over both: DPT_ERR_INPUT naming an architecture or an option of it that is not supported, a tensor that
 *         is missing, extra to the architecture, or of another shape than the configuration says, or the first element
 *         that is not finite.
 */
dpt_status dpt_model_create(const dpt_comm *group, const dpt_comm *replicas, const char *config,
                            dpt_source weights, dpt_model **out);
void dpt_model_destroy(dpt_model *model); /**< Collective over its replicas; NULL is allowed. */

/** Load the blocks of an edited model; replaces an earlier one. NULL source unbinds, and frees what the edit took.
 * Collective as dpt_model_create. The catalog has post's names and shapes; types may differ. On error
 * nothing is bound. */
dpt_status dpt_model_bind_edit(dpt_model *model, const dpt_source *edited);

/** Load the blocks of E itself, all tensors fp32, in the place of an edit: W(t) = W_post + t E. Collective and errors as
 * dpt_model_bind_edit. */
dpt_status dpt_model_bind_direction(dpt_model *model, const dpt_source *direction);

/** A direction through W_post that is made of the bound edit. */
typedef struct dpt_model_direction {
    const bool *
        moves; /**< (tensors) where W(t) follows t, else it is W_post; NULL: everywhere. Terms and products
                            with E are of all tensors */
    bool signs; /**< E_i = z_i (W_edit - W_post)_i, z_i = 1 or -1 */
    uint64_t
        seed; /**< z_i is -1 where bit i of dpt_rng_mask of probability 1/2 is set, of the stream */
    const char *name; /**< "<name> of <tensor>" of this seed, purpose DPT_RNG_SIGN */
} dpt_model_direction;

/** Take the bound edit as a direction until another is set or an edit is bound; NULL: as it is again. Local.
 * Same on all ranks of the group for what follows. Errors: DPT_ERR_OUTPUT without memory; it is then as it is.
 * Determinism: signs depend on seed, names and element indices alone. */
dpt_status dpt_model_set_direction(dpt_model *model, const dpt_model_direction *direction);

/** In what products with weights are taken; everything else is in fp32 or double. */
typedef enum dpt_precision {
    DPT_PRECISION_FP32,
    DPT_PRECISION_BF16 /**< what the weights are multiplied by is rounded to bf16, sums are fp32 */
} dpt_precision;

/** Take the runs that follow in a precision, fp32 until then. Local; the same on all ranks of group and replicas.
 * Errors: DPT_ERR_USAGE where this processor has no products in bf16; DPT_ERR_OUTPUT without memory. It is then as it
 * was. */
dpt_status dpt_model_set_precision(dpt_model *model, dpt_precision precision);
dpt_precision dpt_model_get_precision(const dpt_model *model); /**< Local. */
/** Products in bf16 so far. Local. */
int64_t dpt_model_bf16_products(const dpt_model *model);

/** Of the last `layers` layers keep what a run computes on the way there until it comes back, where others compute it
 * again; none until then. Local; the same on all ranks of the group. @param[in] layers from 0, all where it is more.
 * Determinism: losses, terms and gradients have the same bits. */
void dpt_model_hold_layers(dpt_model *model, int64_t layers);

/** Catalog of the tensors, that of create's source. Terms are indexed by it. Local. */
const dpt_catalog *dpt_model_catalog(const dpt_model *model);
/** Terms of a sequence: one of each tensor of the catalog, then one of each matrix of tensors that have several, in the
 * order of dpt_parts_number, whose terms are those of their tensors again. Local. */
int dpt_model_columns(const dpt_model *model);
int64_t dpt_model_vocabulary(const dpt_model *model);    /**< 0 for an image model. Local. */
int64_t dpt_model_max_positions(const dpt_model *model); /**< 0 for an image model. Local. */

/** What an image model takes. */
typedef struct dpt_model_image {
    int64_t classes, channels, height, width;
    int64_t positions; /**< tokens that an image becomes: its patches and the class token */
} dpt_model_image;

/** Whether the model takes images in place of tokens. Local. @param[out] out zero when it does not. */
bool dpt_model_get_image(const dpt_model *model, dpt_model_image *out);

/** The same before any model exists. Local. Errors as create. */
dpt_status dpt_model_config_image(const char *config, const dpt_catalog *catalog, bool *is_image,
                                  dpt_model_image *out);

/** Vocabulary and positions of a language model, 0 for an image model, before any model exists. Local.
 * Errors as create. */
dpt_status dpt_model_config_limits(const char *config, const dpt_catalog *catalog,
                                   int64_t *vocabulary, int64_t *max_positions);

/** Which tensors a multimodal model has outside its text model, which alone is run: an image tower, a projector.
 * Before any model exists. Local. @param[out] outside (tensors). @return their number; 0 when the configuration
 * cannot be read. */
int dpt_model_config_outside(const char *config, const dpt_catalog *catalog, bool *outside);

/** Whether a configuration ties the head to the token embedding, by its key or the default of its family, and which
 * tensors are theirs. Of a family that is not known the key alone says it, and names as LLaMA's are taken; without a
 * configuration it is not tied. Local.
 * @param[in] config  text of config.json, or NULL.
 * Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_model_config_head(const char *config, const dpt_catalog *catalog,
                                 dpt_tied_head *out);

/** Options in which two models with the same tensors compute differently by their configurations: the
 * models of a pair run with one of the two. Local.
 * @param[out] text at most `size` bytes: "rope_theta (10000 and 1000000), ..."; empty when alike.
 * Errors: DPT_ERR_INPUT when one of them cannot be read or is not supported; text is empty. */
dpt_status dpt_model_config_compare(const char *a, const char *b, const dpt_catalog *catalog,
                                    char *text, size_t size);

/** Keys of a configuration that are switched on and that the program does not know: whether they change what
 * the model computes cannot be told. Local.
 * @param[out] text at most `size` bytes: "key, key"; empty without any, and for image models.
 * Errors: DPT_ERR_INPUT when the configuration cannot be read or is not supported; text is empty. */
dpt_status dpt_model_config_unknown(const char *config, char *text, size_t size);

/** Ranks that a model is spread over, and what it is run in. */
typedef struct dpt_model_ranks {
    dpt_precision precision;
    int group; /**< tensor-parallel ranks of a replica */
    int replicas;
    int machines; /**< that the ranks with the same place in their groups are on */
    int64_t held; /**< layers, as dpt_model_hold_layers says */
    const dpt_catalog *
        edited; /**< of the edited values, with the names of the model's; NULL: of the same types */
} dpt_model_ranks;

/** Bytes per rank: resident weights, and work for a batch of `tokens` whose longest sequence is
 * `longest`; an image counts as its positions. Local, callable before any model exists. Errors as
 * create. */
dpt_status dpt_model_bytes(const char *config, const dpt_catalog *catalog,
                           const dpt_model_ranks *spread, bool edited, int64_t tokens,
                           int64_t longest, int64_t *weights, int64_t *work);

/** Of the bytes of resident weights with an edit, those that stay when it is unbound. Local, callable before any model
 * exists. Errors as create. */
dpt_status dpt_model_unbound_bytes(const char *config, const dpt_catalog *catalog,
                                   const dpt_model_ranks *spread, int64_t *weights);

/** Bytes per rank of one dpt_model_gradient, and of what a pass that adds to it needs besides: the maximum over the
 * ranks of a group. Local, callable before any model exists. Errors as create. */
dpt_status dpt_model_gradient_bytes(const char *config, const dpt_catalog *catalog,
                                    const dpt_model_ranks *spread, int64_t *bytes, int64_t *adding);

/** Which derivative a backward pass leaves. */
typedef enum dpt_model_backward {
    DPT_BACKWARD_NONE,    /**< loss only */
    DPT_BACKWARD_TERMS,   /**< <grad, E> for each sequence and tensor; no gradient is stored */
    DPT_BACKWARD_GRADIENT /**< accumulate gradients of this rank's blocks */
} dpt_model_backward;

/** Gradient of the loss, of which each rank holds the rows of the blocks that are its share of the weights, fp32.
 * Blocks that several ranks of the group have (norms, shared key-value heads) hold partial sums: their total over the
 * group is the gradient. */
typedef struct dpt_model_gradient dpt_model_gradient;
/** A gradient of zeros. Collective over group and replicas. @param[in] model outlives it.
 * Errors, agreed: DPT_ERR_OUTPUT without memory; *out is NULL. */
dpt_status dpt_model_gradient_create(const dpt_model *model, dpt_model_gradient **out);
void dpt_model_gradient_destroy(dpt_model_gradient *gradient); /**< Local; NULL is allowed. */
/** The rows of this rank, block by block, as they lie in memory, and their elements (0: NULL). Local. */
int dpt_model_gradient_count(const dpt_model_gradient *gradient);
float *dpt_model_gradient_rows(const dpt_model_gradient *gradient, int i, int64_t *numel);
/** A number of the machines that the ranks are on: with it, rows of a gradient and the bits of its sums are the same.
 * Local, the same on all ranks. */
uint64_t dpt_model_layout(const dpt_model *model);
/** Have all replicas add to one gradient: until dpt_model_rest every run is of all replicas together, and each takes
 * part in each, if need be with a batch of no sequences. Where there is one replica nothing changes. What they add is
 * complete after dpt_model_rest, and between two runs once all ranks have met. Collective over group and replicas.
 * Errors, agreed: DPT_ERR_OUTPUT without memory.
 * Determinism: each sum is taken in the order of the batches, and in it of the replicas. */
dpt_status dpt_model_gradient_begin(dpt_model *model, dpt_model_gradient *gradient);
/** <gradient, E> of the bound edit per tensor over the rows of this rank; the caller adds over group and replicas.
 * Local. @param[out] terms (columns). Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_model_gradient_dot(const dpt_model *model, const dpt_model_gradient *gradient,
                                  double *terms);
/** sum_i E_i^2 G_i^2 of the bound edit per tensor, G being the gradient over the whole group: what several
 * ranks hold is added up before it is squared, and counted once. Collective over group and replicas.
 * @param[out] squares (tensors) the same on all ranks.
 * Errors, agreed: DPT_ERR_OUTPUT without memory. Determinism: to rounding between meshes. */
dpt_status dpt_model_gradient_squares(const dpt_model *model, const dpt_model_gradient *gradient,
                                      double *squares);
/** Bytes that it takes besides, at most but for some numbers a tensor. Local. */
int64_t dpt_model_squares_bytes(void);
/** Gradient of a run of elements of one tensor on every rank; a tensor that the model does not use has zeros.
 * Collective over group and replicas (same: range). @param[out] out (range.n) fp32. */
dpt_status dpt_model_gradient_range(const dpt_model *model, const dpt_model_gradient *gradient,
                                    dpt_range range, float *out);

/** Write a gradient to the owners of its elements; those that the model does not use are left as they are. Collective over
 * group and replicas, which together are the ranks of the sink.
 * @param[in] sink of a field in memory, every tensor of the model's in fp32.
 * Errors, agreed: DPT_ERR_OUTPUT without memory. Determinism: the values of dpt_model_gradient_range. */
dpt_status dpt_model_gradient_write(const dpt_model *model, const dpt_model_gradient *gradient,
                                    dpt_sink sink);

/** Log-likelihoods of one batch, and the derivative of a weighted sum of them.
 *
 * Collective over group (same: batch, t, mode, weights).
 * Computes: nll[i] = -log softmax(logits at i - 1)[token i] for scored tokens, 0 elsewhere; of an
 *           image -log softmax(logits)[label]; with mode != NONE the derivative of
 *           sum_i weight[i] * nll[i] with respect to W at W(t).
 * @param[in]  t        point of the path; 0 needs no edit.
 * @param[in]  weight   (tokens, or images) d loss / d nll; NULL with mode NONE.
 * @param[out] nll      (tokens, or images) double, nats, the same on all ranks of the group.
 * @param[out] correct  (tokens, or images) 1 where the arg max (lowest index on ties) is the token
 *                      or label; or NULL.
 * @param[out] terms    (sequences, columns) this rank's share of <grad, E>: add over the group;
 *                      only with mode TERMS.
 * @param[in,out] gradient accumulated into; only with mode GRADIENT. Of several replicas that which they began.
 * Activations are kept at layer boundaries and recomputed in the backward pass, but for layers that are held.
 * Errors: DPT_ERR_INPUT for a token outside the vocabulary or a label outside the classes, agreed over
 *         the group.
 */
dpt_status dpt_model_run(dpt_model *model, const dpt_batch *batch, double t,
                         dpt_model_backward mode, const double *weight, double *nll,
                         uint8_t *correct, double *terms, dpt_model_gradient *gradient);

/** Whether the replicas run together: they gather weights, being on several machines, or add to one gradient. Then each
 * of the runs below is collective over group and replicas, and a rank that has no more batches, or cannot go on, calls
 * dpt_model_rest. Local. */
bool dpt_model_is_together(const dpt_model *model);

/** Take part in the runs of the other replicas until none has any more. Collective over group, and over replicas where
 * these are together: each calls it once after its last run, at once when there was none or it failed.
 * @param[in] st what became of this rank's runs
 * @return st, or the failure that ended the runs of all. Errors: those of other ranks. */
dpt_status dpt_model_rest(dpt_model *model, dpt_status st);

/** Free what runs take besides weights and gradients, until the next one. Local. */
void dpt_model_release_work(dpt_model *model);

/** Where the labels of a batch come from when the model itself gives them. */
typedef struct dpt_model_draw {
    dpt_rng rng;
    int64_t place; /**< of the batch's first score among all: score i draws for place + i */
} dpt_model_draw;

/** dpt_model_run with mode GRADIENT and each scored token, or image, labelled by a draw from the model's own
 * softmax at t, given the batch's tokens before it: nll is that of the drawn label. Entry v of the vocabulary of size
 * V takes word (place + i) V + v of the stream (dpt_nn_ce_draw).
 * Collective over group (same: batch, t, draw, weights). Errors: as dpt_model_run.
 * Determinism: the labels depend on the group and the batch only through the rounding of the logits. */
dpt_status dpt_model_run_drawn(dpt_model *model, const dpt_batch *batch, double t,
                               const dpt_model_draw *draw, const double *weight, double *nll,
                               dpt_model_gradient *gradient);

/** dpt_model_run with mode TERMS and, in place of each term, sum_i (E_i g_i)^2 with g the gradient of weight * nll of the
 * image, which is made some rows at a time. Images only, whose blocks lie on one rank each.
 * Collective over group (same: batch, t, weights). @param[out] squares (sequences, columns) this rank's share. Errors: as dpt_model_run; DPT_ERR_INTERNAL for tokens. */
dpt_status dpt_model_run_squares(dpt_model *model, const dpt_batch *batch, double t,
                                 const double *weight, double *nll, double *squares);

/** dpt_model_run with mode NONE that gives the logits themselves. Images only.
 * Collective over group (same: batch, t). @param[out] nll, correct (images).
 * @param[out] logits (images, classes) this rank's columns, zero in those of others: add over the group.
 * Errors: as dpt_model_run; DPT_ERR_INTERNAL for tokens. */
dpt_status dpt_model_run_logits(dpt_model *model, const dpt_batch *batch, double t, double *nll,
                                uint8_t *correct, double *logits);

#endif
