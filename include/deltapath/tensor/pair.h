#ifndef DELTAPATH_TENSOR_PAIR_H
#define DELTAPATH_TENSOR_PAIR_H

#include "deltapath/tensor/field.h"

typedef enum dpt_mismatch_policy {
    DPT_MISMATCH_ERROR,
    DPT_MISMATCH_KEEP_POST,
    DPT_MISMATCH_ROWS /**< as the first, but vocabularies pair by the rows of their tokens */
} dpt_mismatch_policy;

/** Rows of a vocabulary that are of the same token in both models. */
typedef struct dpt_token_rows {
    int64_t pre, post; /**< tokens of each: ids are below these */
    int64_t shared;    /**< those of post that pre has */
    bool same;         /**< both have the same tokens under the same ids */
    int32_t *pre_of;   /**< (post) id in pre; -1 */
} dpt_token_rows;

/** The head of a language model and its token embedding. */
typedef struct dpt_tied_head {
    bool tied;           /**< the configuration makes the embedding the head */
    int head, embedding; /**< their tensors; -1: there is none in the files */
} dpt_tied_head;

/** One model of a pair. */
typedef struct dpt_pair_side {
    dpt_source source;            /**< independent: files; the catalog is sorted */
    const char *name;             /**< for messages, such as a path; borrowed */
    dpt_tied_head head;           /**< by its configuration */
    const dpt_token_rows *tokens; /**< of post, for DPT_MISMATCH_ROWS; else NULL; borrowed */
} dpt_pair_side;

/** The pre-trained model tensor by tensor in the order of the post-trained one. */
typedef struct dpt_pair {
    dpt_pair_side pre, post;
    dpt_catalog catalog; /**< post's names and shapes; types of pre, or of post without a partner */
    int *pre_of;         /**< (tensors) as dpt_pair_partner says; private to src/tensor */
    bool *comparable;    /**< (tensors) has a partner, both of types that are computed with */
    bool *by_rows;       /**< (tensors) pairs by dpt_token_rows; NULL: none does */
    int mismatches;
} dpt_pair;

/** Pair two models by name.
 *
 * A tensor of post pairs with the one of pre that has its name, or its alias where it has one; without such a
 * tensor, with the one whose name differs by prefixes alone (tensor/prefix.h), when each model has one such name.
 * Missing, extra, differently shaped (padded vocabularies are named as such) and differently typed
 * tensors are told in `report`: a line each, or one line with their number where a kind has more than
 * five (allocated, NULL when there is nothing to say).
 * Different editable types are no mismatch of values: they pair, and the report says how many do.
 * Tied heads: a head that only post stores pairs with the token embedding of pre when
 * pre's configuration ties them; one that only pre stores is left out silently when both
 * configurations tie them, since it is a copy. Buffers (dpt_role_is_buffer) are not compared, and no mismatch. Anything
 * else on one side only is a mismatch.
 * Local.
 * Errors: DPT_ERR_INPUT under DPT_MISMATCH_ERROR when there is any mismatch: the message has the
 * first and the number of all, and the remedy; the report is there, out is empty. Under any policy for two tensors
 * to which aliases give one partner.
 */
dpt_status dpt_pair_create(const dpt_pair_side *pre, const dpt_pair_side *post,
                           dpt_mismatch_policy policy, dpt_pair *out, char **report);
void dpt_pair_destroy(dpt_pair *pair); /**< Local; an empty one is allowed. */

/** The pre-trained model under post's numbers; what has no partner has post's values. Its calls are
 * Local. Valid while `pair` lives, at its place. */
dpt_source dpt_pair_source(dpt_pair *pair);

/** Number of a tensor in the catalog of pre, or -1 without a partner that has the same elements. Local. */
int dpt_pair_partner(const dpt_pair *pair, int tensor);

/** Elements of a tensor that have a partner: all, but for a vocabulary that pairs by rows. Local. */
int64_t dpt_pair_shared(const dpt_pair *pair, int tensor);

/** The next run of elements of a range without a partner, whose delta is 0 and which no edit touches. Local.
 * @param[in,out] at, n  the run before, counted from the start of the range; 0 and 0 before the first.
 * @return false after the last. */
bool dpt_pair_next_left_out(const dpt_pair *pair, dpt_range range, int64_t *at, int64_t *n);

/** Values of a run of a comparable tensor in fp32, and post - pre. Local.
 * @param[out] stored  scratch of range.n of the widest type.
 * @param[out] pre, post, delta  (range.n).
 * Errors: those of the sources; DPT_ERR_INPUT naming the first value that is not finite. */
dpt_status dpt_pair_values(const dpt_pair *pair, dpt_range range, void *stored, float *pre,
                           float *post);
dpt_status dpt_pair_delta(const dpt_pair *pair, dpt_range range, void *stored, float *pre,
                          float *delta);

#endif
