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

/** Print what the study takes on each number of ranks, with a bar of the ranks' efficiency, and the cheapest by node hours
 * that fits memory and time. Local, for rank 0.
 * @param[in] of  with ranks left open. Errors: DPT_ERR_OUTPUT when none fits; those of dpt_resources_plan. */
dpt_status dpt_plan_print_scaling(const dpt_inputs *inputs, const dpt_plan_case *of,
                                  const dpt_plan_scale *scale);

#endif
