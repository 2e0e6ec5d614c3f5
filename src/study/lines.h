#ifndef DELTAPATH_SRC_STUDY_LINES_H
#define DELTAPATH_SRC_STUDY_LINES_H

#include "deltapath/edit/edit.h"
#include "inputs.h"

/* Edits whose E are multiples of one another lie on one line through W_post: what is taken at a point of the path of one
 * serves all whose paths have that point. All passes of a line are taken along the weights of one edit, its lead. */

/** Where the path of an edit lies. */
typedef struct dpt_line {
    int lead;      /**< edit along whose weights its passes are taken */
    double factor; /**< E is so many times that of the lead, but for rounding */
    const double *
        slopes; /**< (nslopes) rising places, in t of the lead, where edits of the line take slopes; NULL:
                               the edit is alone */
    int64_t nslopes;
} dpt_line;

/** The lines of all edits of a job. */
typedef struct dpt_lines {
    dpt_line *edits;        /**< (edits of the job) */
    double *places;         /**< of all lines, end to end */
    int64_t *spared_slopes; /**< (data sets that judge) passes with slopes that need not be taken,
                                 if all are one path */
    int64_t *spared_losses; /**< (the same) passes for losses alone */
} dpt_lines;

/** Find the edits that share points of their paths. An edit is alone where no other one needs a pass at a point of its
 * path, where its weights take a quantised form, and where the job measures more of an edit than its path.
 * Local; the same on all ranks. @param[in] shares the slope at t = 0 comes from a gradient that all edits share.
 * Errors: DPT_ERR_OUTPUT without memory; out is empty. */
dpt_status dpt_lines_create(const dpt_inputs *inputs, bool shares, dpt_lines *out);
void dpt_lines_destroy(dpt_lines *lines); /**< Local; an empty one is allowed. */

/** Place of t of an edit's path, in t of its lead: that of another edit's t which is the same but for the last digits has
 * the same bits. Local. */
double dpt_line_place(const dpt_line *line, double t);

/** Whether an edit of the line takes slopes there. Local. */
bool dpt_line_has_slope(const dpt_line *line, double place);

#endif
