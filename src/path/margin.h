#ifndef DELTAPATH_SRC_PATH_MARGIN_H
#define DELTAPATH_SRC_PATH_MARGIN_H

#include "deltapath/path/verdict.h"

/** A margin of the loss, and each sample's part of it. Owned. */
typedef struct dpt_margin {
    double value; /**< [nats]; NaN: there is none */
    double
        accuracy; /**< what a fall of the accuracy by its margin costs [nats]; NaN where not known */
    double *each; /**< (n) of mean `value`; NULL without one */
} dpt_margin;

/** As dpt_verdict_judge says. Local. @param[in] gain_clear the gain is clearly positive.
 * Errors: DPT_ERR_OUTPUT without memory; out is empty. */
dpt_status dpt_margin_create(const dpt_verdict_samples *samples, const dpt_verdict_options *options,
                             bool gain_clear, dpt_margin *out);
void dpt_margin_destroy(dpt_margin *margin); /**< Local. */

#endif
