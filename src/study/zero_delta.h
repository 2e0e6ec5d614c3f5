#ifndef DELTAPATH_SRC_STUDY_ZERO_DELTA_H
#define DELTAPATH_SRC_STUDY_ZERO_DELTA_H

#include "deltapath/tensor/shard.h"
#include "inputs.h"

/** Refuse a pair whose delta is zero in all selected tensors, as a model with itself: every edit of it
 * would be judged harmless. Sets inputs->zero_delta where the job allows such a pair, with a warning.
 *
 * Collective over comm. Computes: whether some value of a selected tensor of post differs from that of
 * pre. The first elements of every tensor are compared first, and the first difference on any rank ends the
 * search: only a pair without one is read whole.
 * @param[in] shard  of the catalog of post.
 * Errors, agreed: DPT_ERR_INPUT naming both models and the remedy, or a file that cannot be read;
 * DPT_ERR_OUTPUT without memory. */
dpt_status dpt_zero_delta_check(const dpt_comm *comm, const dpt_shard *shard, dpt_inputs *inputs);

/** Bytes that this reads of both models where the first look finds a difference. Local. */
double dpt_zero_delta_bytes(const dpt_inputs *inputs, int ranks);

/** Of a multimodal model, whose text model alone is run: refuse edits of what lies outside it, as no loss of texts
 * would show their effect, and say how many tensors stay as they are.
 *
 * Collective over comm. Computes: whether some value of a selected tensor outside the text model differs between pre
 * and post, searched as above. @param[in] shard  of the catalog of post.
 * Errors, agreed: DPT_ERR_INPUT naming a tensor and the remedy, or a file that cannot be read; DPT_ERR_OUTPUT. */
dpt_status dpt_outside_check(const dpt_comm *comm, const dpt_shard *shard, dpt_inputs *inputs);

#endif
