#ifndef DELTAPATH_STORE_TOKENIZER_H
#define DELTAPATH_STORE_TOKENIZER_H

#include "deltapath/store/store.h"

#include <stdbool.h>
#include <stdint.h>

/** What a tokenizer is, in two numbers: doc/formats.md, tokenizer_hash and tokenizer_rules. */
typedef struct dpt_tokenizer {
    bool known;    /**< there is a tokenizer.json with a vocabulary that can be read */
    uint64_t hash; /**< which token each id stands for */
    bool rules_known;
    uint64_t rules; /**< how a text becomes tokens, but for the model itself */
} dpt_tokenizer;

/** Hash of the text of a tokenizer.json.
 *
 * Local. Computes: FNV-1a of 64 bits over the lines "id TAB token LF" of model.vocab and added_tokens, sorted
 * by id and then by the bytes of the token, equal lines once. Formatting, merges, padding and
 * post-processors do not count.
 * @param[in] text (n) untrusted; need not end with a NUL.
 * Errors: DPT_ERR_OUTPUT without memory. What is no tokenizer is not known. */
dpt_status dpt_tokenizer_hash(const char *text, int64_t n, dpt_tokenizer *out);

/** Hash of the rules of a tokenizer, into out->rules.
 *
 * Local. Computes: FNV-1a of 64 bits over the canonical text of the sections that decide marks at the start and
 * the end, normalisation, splitting and added tokens. @param[in] text (n) of tokenizer.json, config (m) of
 * tokenizer_config.json or NULL; untrusted, need not end with a NUL.
 * Errors: DPT_ERR_OUTPUT without memory. Rules that cannot be read are not known. */
dpt_status dpt_tokenizer_rules(const char *text, int64_t n, const char *config, int64_t m,
                               dpt_tokenizer *out);

/** Both hashes of the tokenizer that comes with a model, read on rank 0.
 * Collective over comm. Errors, agreed: DPT_ERR_INPUT when the file cannot be read; as above. */
dpt_status dpt_tokenizer_of_store(const dpt_comm *comm, const dpt_store *store, dpt_tokenizer *out);

/** Which rows of the embeddings of two models are of the same token, by the strings in their tokenizer.json, or in
 * vocab.json and added_tokens.json. An added token of a string counts before one of the vocabulary.
 * Collective over comm. @param[out] out  dpt_token_rows_destroy releases it.
 * Errors, agreed: DPT_ERR_INPUT naming a model without a tokenizer that can be read; DPT_ERR_OUTPUT. */
dpt_status dpt_tokenizer_pair_rows(const dpt_comm *comm, const dpt_store *pre,
                                   const dpt_store *post, dpt_token_rows *out);
void dpt_token_rows_destroy(dpt_token_rows *rows); /**< Local; an empty one is allowed. */

#endif
