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
    int64_t begin, end;            /**< samples of this replica */
    double *shares;                /**< (samples) of each in the mean, owned; NULL: all alike */
    dpt_loss_progress_fn progress; /**< or NULL */
    void *progress_ctx;
    dpt_status (*evaluate)(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model,
                           const dpt_loss_call *call);
    void (*destroy)(dpt_loss *loss);
};

/** Share of a sample in the mean. */
static inline double dpt_loss_share(const dpt_loss *loss, int64_t sample) {
    return loss->shares != NULL ? loss->shares[sample] : 1.0 / (double)loss->samples;
}

/** Say that the samples of this replica before `end` are done. Local. */
static inline void dpt_loss_report(const dpt_loss *loss, int64_t end) {
    if (loss->progress != NULL)
        loss->progress(loss->progress_ctx,
                       (double)(end - loss->begin) / (double)(loss->end - loss->begin));
}

/** Results of one evaluation as they come in. Those of all samples and tensors lie end to end, zero
 * where another replica has them, so that one all-reduce finishes them. */
typedef struct dpt_loss_sums {
    const dpt_loss *loss;
    const dpt_loss_call *call;
    bool speaks; /**< one rank of a group brings in what all ranks of it know */
    int tensors;
    double *values; /**< the one allocation */
    double *losses, *hits, *sample_terms, *terms;
} dpt_loss_sums;

/** Empty results. Local. */
dpt_status dpt_loss_sums_create(const dpt_loss *loss, const dpt_mesh *mesh, const dpt_model *model,
                                const dpt_loss_call *call, dpt_loss_sums *out);
void dpt_loss_sums_destroy(dpt_loss_sums *sums);

/** Take in a sample: its loss, whether the model is right. Local. */
void dpt_loss_sums_take(dpt_loss_sums *sums, int64_t sample, double loss, bool hit);

/** Take in scale * terms of a sample, this rank's share of <gradient, E> for each tensor. Local. */
void dpt_loss_sums_take_terms(dpt_loss_sums *sums, int64_t sample, double scale,
                              const double *terms);

/** Add up over the mesh and give the results to the caller. Collective over mesh, agreed.
 * @param[in] st what became of this replica's batches. */
dpt_status dpt_loss_sums_finish(dpt_loss_sums *sums, const dpt_mesh *mesh, dpt_status st);

/** Checks of token data that losses of sequences share; `what` names sequence s, as in "sample 3".
 * Local. Errors: DPT_ERR_INPUT. */
dpt_status dpt_loss_check_sequence(const dpt_lm_data *data, int64_t s, const char *what,
                                   int64_t vocabulary, int64_t max_positions);

/** Tokens of a sequence whose prediction is scored. Local. */
int64_t dpt_loss_scored_tokens(const dpt_lm_data *data, int64_t s);

#endif
