#ifndef DELTAPATH_SRC_LOSS_LOSS_BASE_H
#define DELTAPATH_SRC_LOSS_LOSS_BASE_H

#include "deltapath/loss/loss.h"

/** Arguments of dpt_loss_evaluate. */
typedef struct dpt_loss_call {
    double t;
    dpt_model_backward mode;
    double *losses;
    uint8_t *correct;
    double *terms;
    double *sample_terms;
    dpt_model_gradient *gradient;
    const dpt_rng
        *labels; /**< stream from which the model's labels are drawn; NULL: the data's own */
    bool
        squares; /**< every image has the label below, and terms are p times squares of its gradient */
    int32_t label;
    double *logits;       /**< (samples, classes), or NULL; mode NONE */
    int64_t few;          /**< the first so many samples of each replica alone; 0: all */
    double *tensor_terms; /**< (samples, tensors), or NULL; mode TERMS */
    double *matrix_terms; /**< (columns - tensors) as terms, or NULL; mode TERMS */
} dpt_loss_call;

typedef struct dpt_loss_pass dpt_loss_pass;

/** What every kind of loss begins with; its own fields follow. */
struct dpt_loss {
    int64_t samples;
    int64_t begin, end;            /**< samples of this replica */
    double *shares;                /**< (samples) of each in the mean, owned; NULL: all alike */
    dpt_loss_progress_fn progress; /**< or NULL */
    void *progress_ctx;
    const dpt_loss_keeper *keeper; /**< or NULL */

    /* Of the largest batch of this replica: */
    int64_t most_sequences; /**< sequences or images */
    int64_t most_scores;    /**< predictions, as dpt_batch_scores counts them */
    int64_t extra_bytes;    /**< of dpt_loss_pass.extra */
    bool hits;              /**< run_batch reads dpt_loss_pass.correct */
    bool draws;             /**< its labels can be drawn: a sample's loss is a mean of nll */
    bool enumerates;        /**< a sample is one score: all of its labels can be taken in turn */

    /** Nothing, or why there can be no evaluation yet. Local. NULL: always ready. */
    dpt_status (*ready)(const dpt_loss *loss);
    /** End of the batch that begins with sample s of this replica. Local. */
    int64_t (*batch_end)(const dpt_loss *loss, int64_t s);
    /** Run the model over samples [begin, end) and take in their results. Collective over the model
     * ranks of the replica. */
    dpt_status (*run_batch)(dpt_loss_pass *pass, int64_t begin, int64_t end);
    void (*destroy)(dpt_loss *loss);
};

/** Share of a sample in the mean. */
static inline double dpt_loss_share(const dpt_loss *loss, int64_t sample) {
    return loss->shares != NULL ? loss->shares[sample] : 1.0 / (double)loss->samples;
}

/** Results of one evaluation as they come in. Those of all samples and tensors lie end to end, zero
 * where another replica has them, so that one all-reduce finishes them. */
typedef struct dpt_loss_sums {
    const dpt_loss *loss;
    const dpt_loss_call *call;
    bool is_root;         /**< one rank of a group brings in what all ranks of it know */
    int tensors, columns; /**< of the model's terms: tensors, and their matrices after them */
    double *values;       /**< the one allocation */
    double *losses, *hits, *sample_terms, *terms;
    int64_t classes;      /**< of the logits that the call asks for, else 0 */
    double *logits;       /**< (samples, classes) */
    double *tensor_terms; /**< (samples, tensors); NULL where the call does not ask for them */
} dpt_loss_sums;

/** Empty results. Local. */
dpt_status dpt_loss_sums_create(const dpt_loss *loss, const dpt_mesh *mesh, const dpt_model *model,
                                const dpt_loss_call *call, dpt_loss_sums *out);
void dpt_loss_sums_destroy(dpt_loss_sums *sums);

/** Take in a sample: its loss, whether the model is right. Local. */
void dpt_loss_sums_take(dpt_loss_sums *sums, int64_t sample, double loss, bool hit);

/** Take in scale * terms of a sample, this rank's share of <gradient, E> for each column. Local. */
void dpt_loss_sums_take_terms(dpt_loss_sums *sums, int64_t sample, double scale,
                              const double *terms);

/** Add up over the mesh and give the results to the caller. Collective over mesh, agreed. */
dpt_status dpt_loss_sums_finish(dpt_loss_sums *sums, const dpt_mesh *mesh);

/** One pass over the batches of this replica: what it works with. */
struct dpt_loss_pass {
    const dpt_loss *loss;
    const dpt_mesh *mesh;
    const dpt_comm *group; /**< model ranks of the replica */
    dpt_model *model;
    const dpt_loss_call *call;
    dpt_loss_sums sums;
    int64_t *first;       /**< (most_sequences + 1) first score of each sequence of the batch */
    double *weight;       /**< (most_scores) d loss / d nll */
    double *nll;          /**< (most_scores) */
    uint8_t *correct;     /**< (most_scores), or NULL */
    double *terms;        /**< (most_sequences, columns) when the call asks for terms */
    void *extra;          /**< (extra_bytes) of the kind of loss */
    dpt_loss_part *parts; /**< (nparts) what the keeper keeps; NULL without one */
    int nparts;
};

typedef dpt_status (*dpt_loss_batch_fn)(dpt_loss_pass *pass, int64_t begin, int64_t end);

/** Make the buffers. Local. On error dpt_loss_pass_destroy is still due. */
dpt_status dpt_loss_pass_create(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model,
                                const dpt_loss_call *call, dpt_loss_pass *out);
void dpt_loss_pass_destroy(dpt_loss_pass *pass);

/** Run every batch of this replica. Collective over mesh, agreed.
 * @param[in] st what became of the preparations of this rank. */
dpt_status dpt_loss_pass_run(dpt_loss_pass *pass, const dpt_mesh *mesh, dpt_status st,
                             dpt_loss_batch_fn run_batch);

/** List what the keeper of the loss keeps of a pass. Local. Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_loss_keep_create(dpt_loss_pass *pass);

/** How far a pass is on this replica. */
typedef struct dpt_loss_place {
    int64_t next; /**< first sample that is to be evaluated */
    int64_t
        steps; /**< batches before it; of a gradient all replicas take the same steps, at the end with no samples */
} dpt_loss_place;

/** Whether all replicas add to one gradient and take their steps together. */
static inline bool dpt_loss_adds(const dpt_loss_pass *pass) {
    return pass->call->mode == DPT_BACKWARD_GRADIENT;
}

/** Take the step from a place: to the end of the batch, or of the samples. @return the first sample after it. Local. */
int64_t dpt_loss_step(const dpt_loss_pass *pass, dpt_loss_place *place);

/** Go back to the state that an earlier run left. Collective over mesh, agreed. */
dpt_status dpt_loss_keep_restore(dpt_loss_pass *pass, dpt_loss_place *place);

/** Between two batches: save the state when it is time, and stop when any rank of the group, or of all where they add to
 * a gradient, was asked to; these do both at the same batch, for each needs the others. Collective over them, agreed.
 * Errors: DPT_INTERRUPTED. */
dpt_status dpt_loss_keep_between(dpt_loss_pass *pass, dpt_loss_place place);

/** Save the state at a place for good: the other replicas have stopped. Local. */
void dpt_loss_keep_save(dpt_loss_pass *pass, dpt_loss_place place, bool stops);

/** Run the model over a batch with the weights, into nll, correct and terms, or the gradient of the
 * call. Collective over the group. @param[in] place of the batch's first score among all of the data set. */
dpt_status dpt_loss_pass_model(dpt_loss_pass *pass, const dpt_batch *batch, int64_t place,
                               dpt_model_backward mode);

/** d loss / d nll of each of the `scored` scores of a sample whose loss is their mean: of its own loss for terms, of
 * the mean over samples for the gradient, and the root of that for drawn labels, so that the squares of
 * the gradients add up with the weights. Local. */
double dpt_loss_pass_weight(const dpt_loss_pass *pass, int64_t sample, int64_t scored);

/** Take in sample begin + i of a batch with one sequence or image a sample: its loss, whether the model
 * is right, and its terms when the call asks for them. Local. */
void dpt_loss_pass_take(dpt_loss_pass *pass, int64_t begin, int64_t i, double loss, bool hit);

/** Give every score of sequence i of the batch the same weight. Local. */
static inline void dpt_loss_pass_weigh(dpt_loss_pass *pass, int64_t i, double weight) {
    for (int64_t at = pass->first[i]; at < pass->first[i + 1]; at++)
        pass->weight[at] = weight;
}

#endif
