#ifndef DELTAPATH_SRC_STUDY_GUARDS_H
#define DELTAPATH_SRC_STUDY_GUARDS_H

#include "inputs.h"

enum { DPT_GUARDS_NAMES = 3 }; /**< tensors that are named for each reason */

/** The tensors of a calibrated edit that keep a term at W_post, and why. */
typedef struct dpt_guards {
    int tensors; /**< that were calibrated; 0: the edit is not */
    int zero;    /**< of them, with a zero term */
    char held
        [2048]; /**< "reason (count): name, name, ...; ..." of the others; "" when there are none */
} dpt_guards;

/** Count and name them. Local. @param[in] report  of the edit, in the order of catalog. */
void dpt_guards_collect(const dpt_catalog *catalog, const dpt_edit_report *report, dpt_guards *out);

/** Share of sum |E_i| over all tensors that rounding to the type of the output takes back; below 0: that it adds. NaN where
 * the edit itself is rounding. Local. */
double dpt_guards_rounding(const dpt_catalog *catalog, const dpt_edit_report *report);

/** Say what an edit did that its user may not know: terms that calibration leaves, what rounding undoes, values that the
 * type of the output cannot hold. Local; rank 0's log. */
void dpt_guards_warn(const dpt_inputs *inputs, const char *edit, const dpt_edit_report *report);

#endif
