#ifndef DELTAPATH_SRC_STUDY_PLANE_H
#define DELTAPATH_SRC_STUDY_PLANE_H

#include "deltapath/results/results.h"
#include "evaluation.h"

/** The loss on the plane W_post + x E_a + y E_b of two edits, for every data set. */
typedef struct dpt_plane {
    int count;   /**< data sets; 0: the job asks for none, or `--only` leaves an edit out */
    int missing; /**< of them are still to be evaluated */
    dpt_result_plane *planes;     /**< (count); numbers on all ranks */
    bool *known;                  /**< (count) */
    const dpt_job_edit *edits[2]; /**< a, b; borrowed */
    uint64_t keys[2];             /**< of W_a and W_b */
} dpt_plane;

/** How the edits of the plane are made: W_edit into memory. Collective, agreed. */
typedef struct dpt_plane_edits {
    void *ctx;
    dpt_status (*make)(void *ctx, const dpt_job_edit *edit, dpt_field *out);
} dpt_plane_edits;

/** Make room for the planes that the job asks for, and take the numbers that an earlier run has kept of them.
 * Collective over comm (same: inputs, resumes), agreed. Errors: DPT_ERR_OUTPUT without memory; out is empty. */
dpt_status dpt_plane_find(const dpt_comm *comm, const dpt_inputs *inputs, bool resumes,
                          dpt_plane *out);

/** Evaluate the numbers that are missing, point by point: W_a and W_b lie in cells, and from them and the file of
 * W_post each rank forms its cells of a point, which are then bound as an edit is. What is finished of a
 * plane is in progress/, the whole of it in references/.
 * Collective over the mesh of the evaluation, agreed.
 * @param[in] field  of the edited model, whose contents go. @param[in] evaluation  a point is bound afterwards.
 * Errors: those of make and of dpt_loss_evaluate; DPT_ERR_OUTPUT without memory.
 * Determinism: to rounding between meshes. */
dpt_status dpt_plane_run(const dpt_shard *shard, dpt_field *field, dpt_evaluation *evaluation,
                         const dpt_plane_edits *edits, dpt_plane *plane);
void dpt_plane_destroy(dpt_plane *plane); /**< Local; an empty one is allowed. */

/** Passes over the data sets that it takes at most. Local. */
int64_t dpt_plane_passes(const dpt_job *job);

/** Whether edit e is one of the two. Local. */
bool dpt_plane_has(const dpt_job *job, int e);

/** Bytes that it takes besides an edit. Local. Errors: DPT_ERR_OUTPUT without memory.
 * @param[out] cells   of a rank: W_b and the point in cells, and one cell of W_post.
 * @param[out] blocks  of a replica: the point in fp32. */
dpt_status dpt_plane_bytes(const dpt_inputs *inputs, const dpt_shard *shard, int64_t *cells,
                           int64_t *blocks);

#endif
