#ifndef DELTAPATH_SRC_STUDY_LINE_JOIN_H
#define DELTAPATH_SRC_STUDY_LINE_JOIN_H

#include "auto_alpha.h"
#include "lines.h"

/** Decide whether the path of an edit that was made is taken along its lead. That needs abs(E - factor E_lead), both as
 * they are written, to be at most a thousandth of abs(E) in every tensor; the lead is made again for it, cell by cell. What
 * was found is said, and goes into the notes where they are one path.
 *
 * Collective over input->comm, agreed (same: e). @param[in] edited the edit in cells.
 * @param[in,out] line of edit e; without others where it stays alone.
 * Errors: those of dpt_edit_run; DPT_ERR_OUTPUT without memory. */
dpt_status dpt_line_join(const dpt_inputs *inputs, const dpt_edit_input *input, int e,
                         dpt_field *edited, dpt_line *line, dpt_auto_alpha *notes);

/** Bytes per rank that this takes; 0 where no edits share points. Local. */
int64_t dpt_line_bytes(const dpt_inputs *inputs);

#endif
