#ifndef DELTAPATH_SRC_STORE_TOKEN_LIST_H
#define DELTAPATH_SRC_STORE_TOKEN_LIST_H

#include "store_internal.h"

typedef struct dpt_token {
    int64_t id;
    const char *text; /**< borrowed from the JSON */
    bool added;       /**< one of added_tokens */
} dpt_token;

/** Tokens of a tokenizer, in the order of its files. */
typedef struct dpt_token_list {
    int64_t count, capacity;
    dpt_token *tokens;
    bool good; /**< the files could be read */
    dpt_status st;
    json_t *json[2]; /**< vocabulary and added tokens */
} dpt_token_list;

/** All tokens of the tokenizer.json that comes with a model, or of its vocab.json and added_tokens.json. Local.
 * Errors: DPT_ERR_INPUT when a file cannot be read; DPT_ERR_OUTPUT. What is no tokenizer is not good. */
dpt_status dpt_token_list_read(const dpt_store_header *header, dpt_token_list *out);
void dpt_token_list_destroy(dpt_token_list *list); /**< Local. */

#endif
