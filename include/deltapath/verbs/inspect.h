#ifndef DELTAPATH_VERBS_INSPECT_H
#define DELTAPATH_VERBS_INSPECT_H

#include "deltapath/comm/comm.h"

#include <stdbool.h>
#include <stdio.h>

typedef struct dpt_inspect_options {
    const char *model;
    const char *
        base; /**< of the model where it is a PEFT adapter that names none that lies here; or NULL */
    bool json; /**< one JSON object in place of the table */
    FILE *out; /**< NULL: standard output */
} dpt_inspect_options;

/** Print what a model holds: name, type, shape, elements and bytes of each tensor, totals by type,
 * and the architecture of its configuration. Rank 0 prints.
 * Collective over comm (same: options). Errors: those of dpt_store_open and dpt_store_check_head. */
dpt_status dpt_inspect_run(const dpt_comm *comm, const dpt_inspect_options *options);

#endif
