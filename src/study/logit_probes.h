#ifndef DELTAPATH_SRC_STUDY_LOGIT_PROBES_H
#define DELTAPATH_SRC_STUDY_LOGIT_PROBES_H

#include "evaluation.h"

/** Measure how the logits of each data set that judges move along the delta, into ev->data, where the job asks for it;
 * W_pre is bound in place of an edit. Collective. Determinism: to rounding between meshes. */
dpt_status dpt_logit_probes_measure(dpt_evaluation *evaluation);

/** Passes over a data set that this takes, without derivatives. Local. */
int64_t dpt_logit_probes_passes(const dpt_job *job);

#endif
