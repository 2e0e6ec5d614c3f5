#ifndef DELTAPATH_SRC_STUDY_ALLOCATE_H
#define DELTAPATH_SRC_STUDY_ALLOCATE_H

#include "auto_alpha.h"

/** Find the values of `allocate` from the law of random edits.
 *
 * Collective over input->comm (same: edit).
 * Computes: with c_l the curvature of tensor l along the delta on edit->auto_data and q_l the share of |Delta_l|^2
 * that a choice loses (dpt_edit_choices), the choices of least sum_l c_l q_l within the size or the mean that the edit
 * states. For dare this is s_l c_l, and between the limits (1 - p_l)^2 = c_l / (lambda N_l); for other edits it is
 * 1/2 h_l |E_l|^2 with h_l = 2 c_l / |Delta_l|^2, the mean curvature of the tensor along its delta.
 * c_l is rounded to sixteenths of a power of two before anything is chosen, so that what meshes round differently is
 * gone but where it lies within rounding of a border. Source: this project.
 * @param[in] law  on edit->auto_data. @param[in] out_catalog  with the types of the output.
 * @param[out] out  the spec of the method it stands for; released by dpt_auto_alpha_destroy, empty on error.
 * Errors: DPT_ERR_USAGE when the size cannot be met; those of dpt_edit_choices_create. */
dpt_status dpt_allocate_find(const dpt_job_edit *edit, const dpt_law *law,
                             const dpt_edit_input *input, const dpt_catalog *out_catalog,
                             dpt_auto_alpha *out);

#endif
