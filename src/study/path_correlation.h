#ifndef DELTAPATH_SRC_STUDY_PATH_CORRELATION_H
#define DELTAPATH_SRC_STUDY_PATH_CORRELATION_H

#include "cell_gradient.h"
#include "evaluation.h"

/** Whether the correlation of an edit is measured along its path: the job asks for it, the edit draws a mask, and takes
 * no gradient before it does. Local. */
bool dpt_path_correlation_wanted(const dpt_job *job, const dpt_job_edit *edit);

/** Correlate the mask of the bound edit with gradient(t) * Delta at every node of a rule, on data set d.
 *
 * Collective over the mesh (same: spec, d, quadrature).
 * Computes: Pearson's correlation over entries of m_i (1: dropped) and g_i(t) Delta_i. Source: arXiv:2410.13841 Eq. (5),
 *           which takes them as independent; along the path this project's law says what it is:
 *           E[<g(t), E>] = 2 t s c, doc/science.md.
 * @param[in]  spec    the edit that is bound. @param[in] input  as for dpt_edit_run; its gradient is not read.
 * @param[in]  law     the curvature of the data set, for `law` of the result.
 * @param[out] out     released by dpt_path_correlation_destroy; empty on error.
 * Errors: those of evaluation and dpt_edit_correlate_mask. Determinism: to the rounding of gradients between meshes. */
dpt_status dpt_path_correlation_measure(dpt_evaluation *evaluation, int d, dpt_cell_gradient *cells,
                                        const dpt_job_edit *edit, const dpt_edit_input *input,
                                        const dpt_quadrature *quadrature,
                                        dpt_path_correlation *out);
void dpt_path_correlation_destroy(
    dpt_path_correlation *correlation); /**< Local; empty is allowed. */

#endif
