#ifndef DELTAPATH_SRC_STUDY_SPECTRUM_H
#define DELTAPATH_SRC_STUDY_SPECTRUM_H

#include "evaluation.h"

/* Greatest eigenvalues of the Hessian at W_post, in the tensors that edits touch, and of D H D with D = diag(Delta), by
 * Lanczos's method. Its vectors lie in the cells of the ranks; a product with H is the difference of two gradients along
 * the vector, which is bound as a direction and comes back in cells. */

/** Fill ev->data[d].spectrum. Another edit has to be bound afterwards. Collective.
 * @param[in] shard of the post-trained model over the ranks.
 * Determinism: the same bits on the same mesh, to rounding of gradients on others. */
dpt_status dpt_spectrum_measure(dpt_evaluation *evaluation, const dpt_shard *shard, int d);
void dpt_spectrum_log(const char *data,
                      const dpt_spectrum *spectrum); /**< Local; nothing without it. */

/** Passes over a data set; bytes per rank besides the gradient. Local. */
int64_t dpt_spectrum_passes(const dpt_job *job);
int64_t dpt_spectrum_bytes(const dpt_job *job, int64_t cells);

#endif
