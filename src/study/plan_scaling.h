#ifndef DELTAPATH_SRC_STUDY_PLAN_SCALING_H
#define DELTAPATH_SRC_STUDY_PLAN_SCALING_H

#include "resources.h"

/** Which numbers of ranks a scaling table has. */
typedef struct dpt_plan_scale {
    int first, last; /**< ranks: the first, its doublings, and the last */
    double seconds;  /**< that a study may take; 0: any */
    bool json;
    const char *plot; /**< file for an SVG plot, or NULL */
} dpt_plan_scale;

/** Leave the numbers of ranks on which the groups that the job asks for (tensor_parallel, svd_group) can be formed: the
 * first such, and multiples. Nothing changes where there is no table (last 0). Local.
 * Errors: DPT_ERR_USAGE when none is left. */
dpt_status dpt_plan_scale_divide(const dpt_inputs *inputs, dpt_plan_scale *scale);

/** Print what the study takes on each number of ranks, with a bar of the ranks' efficiency, and the cheapest by node hours
 * that fits memory and time. Local, for rank 0.
 * @param[in] of  with ranks left open. Errors: DPT_ERR_OUTPUT when none fits; those of dpt_resources_plan. */
dpt_status dpt_plan_print_scaling(const dpt_inputs *inputs, const dpt_plan_case *of,
                                  const dpt_plan_scale *scale);

#endif
