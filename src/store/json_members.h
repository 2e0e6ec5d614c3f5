#ifndef DELTAPATH_SRC_STORE_JSON_MEMBERS_H
#define DELTAPATH_SRC_STORE_JSON_MEMBERS_H

#include "deltapath/base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/** Members of one JSON object, one after the other: only the tree of one value is in memory at a time.
 * A header of 100 MB would else become a tree of 2 GB. */
typedef struct dpt_json_members {
    const char *path; /**< for messages; borrowed */
    const char *text; /**< n bytes, borrowed */
    int64_t n, at;
    bool begun;
} dpt_json_members;

/** The next member. jansson parses name and value, strictly; names that repeat are the caller's to find.
 * @param[out] name, value  new references (json_decref); NULL after the last member, when only white
 *                          space follows the object.
 * Local. Errors: DPT_ERR_INPUT naming the file and the byte at which the JSON is broken. */
dpt_status dpt_json_members_next(dpt_json_members *members, json_t **name, json_t **value);

#endif
