#ifndef DELTAPATH_SRC_STUDY_AUTO_ALPHA_H
#define DELTAPATH_SRC_STUDY_AUTO_ALPHA_H

#include "deltapath/edit/edit.h"
#include "deltapath/results/results.h"
#include "evaluation.h"

/** What a study found for one edit: by `alpha: auto`, or by `allocate`. */
typedef struct dpt_auto_alpha {
    dpt_edit_spec spec; /**< the edit with what was found; borrows alpha */
    double *alpha;      /**< (tensors) values in place of the parameter that was sought */
    int nnotes;
    dpt_result_parameter *notes; /**< (nnotes) how it was found, for the results */
} dpt_auto_alpha;

/** Makes the edit of a spec and binds it to the model. Collective. */
typedef dpt_status (*dpt_auto_bind_fn)(void *ctx, const dpt_edit_spec *spec);

/** Find the alpha at which the loss of edit->auto_data is lowest along the delta.
 *
 * Collective over the mesh (same: edit).
 * Computes: for the model, the minimum of L(W_post + alpha Delta) by dpt_line_search_run. By layers, the
 * derivatives of each layer's alpha at two places of that search give each its own secant step; the
 * minimum along the joint step is taken when its loss is below that of the model's alpha, else the
 * model's alpha is kept. So the true loss never ends above that of the post-trained model.
 * Whether to extrapolate or to interpolate is said from the derivative at W_post with its paired
 * interval over samples. Where that holds zero nothing is sought: alpha is 0.
 * @param[out] out  to be released by dpt_auto_alpha_destroy; empty on error.
 * Errors: those of evaluation and bind; DPT_ERR_OUTPUT without memory.
 * Determinism: to the rounding of gradients between meshes.
 */
dpt_status dpt_auto_alpha_find(dpt_evaluation *evaluation, const dpt_job_edit *edit,
                               dpt_auto_bind_fn bind, void *ctx, dpt_auto_alpha *out);
/** Passes that it takes over the data set on which it searches, and how often it makes and binds an edit. */
typedef struct dpt_auto_passes {
    int most, binds;
    double expected; /**< the mean of the searches on the shipped pairs */
} dpt_auto_passes;
dpt_auto_passes dpt_auto_alpha_passes(const dpt_edit_spec *spec); /**< Local. */

/** Append a note. Local. Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_auto_alpha_note(dpt_auto_alpha *out, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void dpt_auto_alpha_destroy(dpt_auto_alpha *found); /**< Local; an empty one is allowed. */

#endif
