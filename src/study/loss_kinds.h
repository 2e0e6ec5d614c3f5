#ifndef DELTAPATH_SRC_STUDY_LOSS_KINDS_H
#define DELTAPATH_SRC_STUDY_LOSS_KINDS_H

#include "deltapath/loss/loss.h"
#include "inputs.h"

/** What a model takes: the limits of its config.json. */
typedef struct dpt_loss_limits {
    int64_t vocabulary, positions; /**< of a language model */
    dpt_model_image image;         /**< of an image model */
} dpt_loss_limits;

/** What a loss that compares with a reference model keeps of it: numbers of each sample, which one pass of that
 * model gives and which are kept in a file of the study. */
typedef struct dpt_loss_reference {
    int numbers; /**< of each sample */
    /** Measure them with a model at t = 0. Collective over the mesh, agreed.
     * @param[out] values (samples, numbers), the same on all ranks. */
    dpt_status (*measure)(const dpt_loss *loss, const dpt_mesh *mesh, dpt_model *model,
                          double *values);
    /** Take a copy, before the first evaluation. Local. */
    dpt_status (*set)(dpt_loss *loss, const double *values);
} dpt_loss_reference;

/** A kind of loss: all that a study asks of it. A new kind is a row in loss_kinds.c and a name in
 * DPT_LOSS_LIST; its own keys are rows of job_keys.c with its name as their `loss`. */
typedef struct dpt_loss_kind {
    dpt_dataset_kind data; /**< what its file holds */
    bool image;            /**< it takes an image model, else a language model */
    /** NULL: it compares with no reference model; else it has the key `reference`. */
    const dpt_loss_reference *reference;
    /** Create the loss of data set d; errors without the name of the file. Local. */
    dpt_status (*create)(const dpt_inputs *inputs, int d, const dpt_loss_limits *limits,
                         const dpt_mesh *mesh, int64_t batch_tokens, dpt_loss **out);
    /** Loss of one that knows nothing [nats]: no worse a pre-trained model is counted. Local. */
    double (*guess)(const dpt_loss_limits *limits);
    /** Check the samples of data set d alone. Local. */
    dpt_status (*check)(const dpt_inputs *inputs, int d, const dpt_loss_limits *limits);
} dpt_loss_kind;

/** The row of a kind. Local. */
const dpt_loss_kind *dpt_loss_kind_of(dpt_job_loss loss);

#endif
