#ifndef DELTAPATH_SRC_VERBS_HEAD_H
#define DELTAPATH_SRC_VERBS_HEAD_H

#include "deltapath/store/store.h"

/** dpt_store_check_head with the head that the configuration of the model says. Local; the same on all ranks.
 * Errors: as there. */
dpt_status dpt_verbs_check_head(dpt_store *store);

#endif
