#ifndef DELTAPATH_SRC_STUDY_PLAN_PLOT_H
#define DELTAPATH_SRC_STUDY_PLAN_PLOT_H

#include "deltapath/base/status.h"

enum { DPT_PLAN_POINTS = 40 }; /**< of a table that doubles from 1 rank on */

/** What a study takes on so many ranks. */
typedef struct dpt_plan_point {
    int ranks;
    double hours, node_hours, gib; /**< of memory of a rank */
} dpt_plan_point;

typedef struct dpt_plan_points {
    int count;
    dpt_plan_point at[DPT_PLAN_POINTS];
} dpt_plan_points;

/** Write an SVG file with hours, node hours and memory of a rank over ranks, on logarithmic scales. Local, for rank 0.
 * @param[in] title  of the study. Errors: DPT_ERR_OUTPUT naming the path: there is another file than such a plot, or it
 * cannot be written. */
dpt_status dpt_plan_plot(const char *path, const char *title, const dpt_plan_points *points);

#endif
