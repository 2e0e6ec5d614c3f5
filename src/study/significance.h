#ifndef DELTAPATH_SRC_STUDY_SIGNIFICANCE_H
#define DELTAPATH_SRC_STUDY_SIGNIFICANCE_H

#include "deltapath/edit/edit.h"
#include "evaluation.h"

/* Which slopes along the edited deltas samples tell from chance, for `calibrate: significant`. */

/** Slopes of an edit's tensors, with the noise over the samples of edit->gradient_data. Another edit has to be bound
 * afterwards.
 *
 * Collective over the mesh (same: edit).
 * Computes: x_sl = <grad L_s, F_l> at W_post for every sample s and tensor l, F = F(Delta) before calibration, in one
 * pass; their weighted mean, its standard error, of clusters where the data set has some, and Student's test of 0 with
 * the degrees of freedom of the samples in effect. Significant is what lies outside the interval of confidence
 * 0.9973, three standard errors where samples are many.   Source: this project; path/weighted.
 * @param[in]  spec   the edit's own, or what a search made of it.
 * @param[in]  input  of the edit, its slopes not set.
 * @param[out] slopes (tensors) the same on all ranks.
 * Errors: those of dpt_edit_run and evaluations; DPT_ERR_OUTPUT without memory.
 * Determinism: to the rounding of gradients between meshes. */
dpt_status dpt_significance_measure(dpt_evaluation *evaluation, const dpt_job_edit *edit,
                                    const dpt_edit_spec *spec, const dpt_edit_input *input,
                                    dpt_edit_slope *slopes);

/** Whether an edit takes it. Local. */
bool dpt_significance_is_wanted(const dpt_edit_spec *spec);

/** Edits of a job that do: a pass each on their data set. Local. */
int dpt_significance_count(const dpt_job *job);

/** Bytes per rank: the deltas as a direction, in cells and in the model, and the slopes. Local. */
int64_t dpt_significance_bytes(const dpt_inputs *inputs, int64_t cells, int64_t gradient);

#endif
