#ifndef DELTAPATH_SRC_STUDY_UNIT_PROOF_H
#define DELTAPATH_SRC_STUDY_UNIT_PROOF_H

#include "deltapath/path/verdict.h"
#include "deltapath/path/weighted.h"
#include "deltapath/results/results.h"
#include "evaluation.h"

/** What a unit has of the groups that were left out: their terms, their changes with intervals over the samples, what is
 * left over, correlation and slope. Nothing where none were.
 * Local. @param[in] samples values of `weighted`, with intervals by `options`, as for the verdict.
 * @param[in,out] out has room for the groups and its integrated terms. Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_unit_set_proof(const dpt_leave_out *left, const dpt_weighted *weighted,
                              const dpt_verdict_samples *samples,
                              const dpt_verdict_options *options, dpt_result *out);

#endif
