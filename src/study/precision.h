#ifndef DELTAPATH_SRC_STUDY_PRECISION_H
#define DELTAPATH_SRC_STUDY_PRECISION_H

#include "deltapath/comm/comm.h"

#include <stdint.h>

typedef struct dpt_evaluation dpt_evaluation;

/** What `precision: bf16` changes on a few samples of a data set, in the middle of the path; NaN in fp32. */
typedef struct dpt_precision_error {
    double loss;  /**< largest change of the loss of a sample [nats] */
    double terms; /**< largest change of the term of a tensor, as a share of the largest term */
} dpt_precision_error;

/** Whether this machine takes the job's products, and a warning where it is slow at them. Collective over comm, agreed.
 * Errors: DPT_ERR_USAGE with the remedy. */
dpt_status dpt_precision_check(const dpt_comm *comm, int precision);

/** Samples of each of so many replicas on which it is measured. Local. */
int64_t dpt_precision_samples(int replicas);

/** Measure that along the edit that is bound, by passes in both precisions, and log it. Collective, agreed.
 * @param[in] edit its id. */
dpt_status dpt_precision_measure(dpt_evaluation *evaluation, int d, const char *edit,
                                 dpt_precision_error *out);

#endif
