#ifndef DELTAPATH_SRC_STUDY_LOSS_KINDS_H
#define DELTAPATH_SRC_STUDY_LOSS_KINDS_H

#include "deltapath/loss/loss.h"
#include "inputs.h"

/** What a model takes: the limits of its config.json. */
typedef struct dpt_loss_limits {
    int64_t vocabulary, positions; /**< of a language model */
    dpt_model_image image;         /**< of an image model */
} dpt_loss_limits;

/** A kind of loss: all that a study asks of it. A new kind is a row in loss_kinds.c and a name in
 * DPT_LOSS_LIST. */
typedef struct dpt_loss_kind {
    dpt_dataset_kind data; /**< what its file holds */
    bool image;            /**< it takes an image model, else a language model */
    bool
        reference; /**< it compares with the log-probabilities of a reference model, and knows its keys */
    /** Create the loss of data set d; errors without the name of the file. Local. */
    dpt_status (*create)(const dpt_inputs *inputs, int d, const dpt_loss_limits *limits,
                         const dpt_mesh *mesh, int64_t batch_tokens, dpt_loss **out);
    /** Check the samples of data set d alone. Local. */
    dpt_status (*check)(const dpt_inputs *inputs, int d, const dpt_loss_limits *limits);
} dpt_loss_kind;

/** The row of a kind. Local. */
const dpt_loss_kind *dpt_loss_kind_of(dpt_job_loss loss);

#endif
