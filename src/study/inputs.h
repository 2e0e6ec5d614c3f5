#ifndef DELTAPATH_SRC_STUDY_INPUTS_H
#define DELTAPATH_SRC_STUDY_INPUTS_H

#include "deltapath/comm/comm.h"
#include "deltapath/data/dataset.h"
#include "deltapath/store/store.h"
#include "deltapath/job/job.h"
#include "deltapath/tensor/pair.h"
#include "deltapath/tensor/part.h"

#include <stdbool.h>
#include <stdint.h>

/** Everything that a job names, opened and checked before any work. */
typedef struct dpt_inputs {
    const dpt_job *job; /**< borrowed */
    dpt_store *pre;
    dpt_store *post;
    const dpt_catalog *catalog; /**< that of post; borrowed from the store */
    dpt_token_rows tokens;      /**< of a job with on_mismatch: rows */
    dpt_pair pair;
    dpt_parts parts;         /**< matrices of the catalog */
    bool *selected;          /**< (tensors) by the patterns of the job */
    dpt_catalog out_catalog; /**< post with the types of the output */
    dpt_tied_head
        copy; /**< head that is written as a copy of its edited embedding, and is not edited; -1: none */
    dpt_dataset *data; /**< (job->ndata) */
    dpt_store *
        *reference; /**< (job->ndata) model that its loss takes; NULL: post, or none; that of a
                                part that only chooses is its entry's */
    uint64_t fingerprint; /**< of both models */
    uint64_t digest
        [2]; /**< of pre and post: hash of names and hashes of all tensors that the study reads, by
                             their bytes; 0 until they are read whole */
    bool zero_delta; /**< pre and post are equal in all selected tensors, and the job allows it */
} dpt_inputs;

/** Open, pair and check; a data set that is there twice is an error. Lists every mismatch of the pair on stderr before it fails.
 * Collective over comm (same: job). Errors: DPT_ERR_INPUT, DPT_ERR_USAGE; out is empty. */
dpt_status dpt_inputs_open(const dpt_comm *comm, const dpt_job *job, dpt_inputs *out);
void dpt_inputs_close(dpt_inputs *inputs); /**< Local. */

/** Hash of all that the loss on data set d depends on besides the models of the job. Local. */
uint64_t dpt_inputs_data_key(const dpt_inputs *inputs, int d);

/** Whether the job keeps a tensor of an edited model; bytes of all that it keeps. Local. */
bool dpt_inputs_keeps(const dpt_inputs *inputs, int tensor);
int64_t dpt_inputs_output_bytes(const dpt_inputs *inputs);

/** Whether an evaluation of losses is wanted at all. Local. */
bool dpt_inputs_needs_model(const dpt_inputs *inputs);

/** Check that no model and no data set has changed since it was opened; with `headers` all of dpt_store_check_unchanged.
 * Collective over comm, agreed. Errors: DPT_ERR_INPUT naming the file. */
dpt_status dpt_inputs_check_unchanged(const dpt_comm *comm, const dpt_inputs *inputs, bool headers);

/** Compare the stored hashes of both models with what is read between begin and end, and set `digest`.
 * Collective over comm, agreed. Errors: DPT_ERR_INPUT naming file and tensor. */
/** Whether nothing reads a tensor of either model: edits alone read what is selected, and a model that is written whole
 * all of it. Local. */
bool dpt_inputs_leaves(const dpt_inputs *inputs, int tensor);
dpt_status dpt_inputs_check_begin(const dpt_comm *comm, dpt_inputs *inputs, const dpt_shard *shard);
dpt_status dpt_inputs_check_end(const dpt_comm *comm, dpt_inputs *inputs);

/** What reading both models together takes (dpt_store_hold), of which `kept` stays for the whole study. Local.
 * @param[in] shard  of the catalog. Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_inputs_hold_needs(const dpt_inputs *inputs, const dpt_shard *shard,
                                 dpt_store_hold_needs *out);

/** Read them together, as the job asks for it. Collective over comm, agreed. Errors: those of dpt_store_hold. */
dpt_status dpt_inputs_hold(const dpt_comm *comm, const dpt_inputs *inputs, const dpt_shard *shard);

/** Whether a tensor of post, or the one of pre that it pairs with, is hashed byte by byte: all that the study reads is, and
 * of post what has no stored hash, for the digest. Local. */
bool dpt_inputs_hashes(const dpt_inputs *inputs, bool post, int tensor);

/** Whether it is read together. Local. */
bool dpt_inputs_holds(const dpt_inputs *inputs, bool post, int tensor);

/** Set `digest` from the hashes of all tensors of pre and post, each (tensors of that store). Local.
 * Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_inputs_set_digest(dpt_inputs *inputs, const uint64_t *pre, const uint64_t *post);

#endif
