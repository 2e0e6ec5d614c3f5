#ifndef DELTAPATH_EDIT_CHOICES_H
#define DELTAPATH_EDIT_CHOICES_H

#include "deltapath/edit/edit.h"

/* What a value of an edit's parameter costs a tensor: bytes, and a share of its delta. From such choices a
 * study takes one for each tensor (`method: allocate`). */

/** The choices of every tensor that the edit touches, by rising size; the last one keeps the tensor as it is. */
typedef struct dpt_edit_choices {
    int tensors;
    int64_t
        *first; /**< (tensors + 1) of each tensor in the arrays; none: the edit does not touch it */
    double *value; /**< p, keep, bits or rank; NaN: the tensor keeps its delta */
    double *
        level; /**< what choices of several tensors have in common: kept share, bits, or rank / limit */
    double *bytes; /**< by dpt_edit_size */
    double *lost;  /**< |E|^2 / |Delta|^2 before rounding; of dare its mean over masks */
} dpt_edit_choices;

/** Size of F(Delta) of one edit: what has to be kept next to the pre-trained model to make the edited one.
 *
 * Local. Computes, for each tensor of the catalog with N elements of v bytes in the type of the output:
 * kept as it is, or scaled: N v; K of N entries kept: K v, and N / 8 bytes or 2 for each kept and 4 for each 65536
 * entries, whichever is less, for their places; sign and b bits: N (1 + b) / 8 and 4 for each magnitude; rank r of an
 * m x n matrix: r (m + n) v. Source: this project.
 * @param[in] out  the catalog of the output. @param[in] report  of the edit.
 * @return bytes; NaN for a sequence of methods, for which no layout is said. */
double dpt_edit_size(const dpt_edit_spec *spec, const dpt_edit_input *input, const dpt_catalog *out,
                     const dpt_edit_report *report);

/** Bytes of all tensors as they are. Local. */
double dpt_edit_size_dense(const dpt_catalog *out);

/** The method that a stage of `allocate` stands for, with its parameters at what the stage says. Local. */
void dpt_edit_allocate_stage(const dpt_edit_stage_spec *allocate, dpt_edit_stage_spec *out);

/** Choices of a stage of `allocate`.
 *
 * Collective over input->comm (same: stage). One pass over the deltas for prune and multibit, from whose counts of
 * magnitudes in steps of 1/128 of a power of two the lost share follows to some 1e-3 of itself; a decomposition of all
 * matrices for lowrank; none for dare.
 * @param[in] out_catalog  with the types of the output.
 * @param[in] extra  a kept share that is to be among those of dare and prune; NaN: none.
 * Errors: as dpt_edit_run; choices are empty then.
 * Determinism: dare, prune, multibit the same bits at any number of ranks; lowrank as dpt_edit_run. */
dpt_status dpt_edit_choices_create(const dpt_edit_stage_spec *stage, uint64_t seed,
                                   const dpt_edit_input *input, const dpt_catalog *out_catalog,
                                   double extra, dpt_edit_choices *choices);
void dpt_edit_choices_destroy(dpt_edit_choices *choices); /**< Local; empty ones are allowed. */

#endif
