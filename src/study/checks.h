#ifndef DELTAPATH_SRC_STUDY_CHECKS_H
#define DELTAPATH_SRC_STUDY_CHECKS_H

#include "deltapath/study/study.h"
#include "inputs.h"
#include "resources.h"

/** What could stop a planned study in hours from now, looked at before it begins: samples against the
 * models, edits against the tensors, ranks that share a matrix, and room and rights for the output.
 * Collective over comm (same: all). Errors: DPT_ERR_USAGE, DPT_ERR_INPUT, DPT_ERR_OUTPUT; agreed. */
dpt_status dpt_checks_run(const dpt_comm *comm, dpt_inputs *inputs, const dpt_resources *resources,
                          const dpt_study_options *options);

#endif
