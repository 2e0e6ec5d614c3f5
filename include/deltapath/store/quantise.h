#ifndef DELTAPATH_STORE_QUANTISE_H
#define DELTAPATH_STORE_QUANTISE_H

#include "deltapath/store/store.h"

/** Gives edited models the quantised form of the model that they were made of. */
typedef struct dpt_quantiser dpt_quantiser;

/** Whether edited models can take the form of a model. Local; the same on all ranks.
 * Errors: DPT_ERR_USAGE naming a tensor of a form that is only read: other than f8 with scales of f32 or bf16, and MXFP4
 * of a model that is not f16; or when no tensor is quantised. */
dpt_status dpt_quantiser_check(const dpt_store *like);

/** Prepare. Collective over comm, agreed (same: like). @param[in] like  the model whose form is taken; borrowed, as comm
 * and shard, whose cells are of its catalog, until dpt_quantiser_destroy.
 * Errors: those of dpt_quantiser_check; DPT_ERR_OUTPUT without memory. */
dpt_status dpt_quantiser_create(const dpt_comm *comm, dpt_store *like, const dpt_shard *shard,
                                dpt_quantiser **out);
void dpt_quantiser_destroy(dpt_quantiser *quantiser); /**< Local; NULL is allowed. */

/** What a writer of such a model takes: tensors, cells and config.json as they lie in the files of `like`. Local. */
const dpt_catalog *dpt_quantiser_catalog(const dpt_quantiser *quantiser);
const dpt_shard *dpt_quantiser_shard(const dpt_quantiser *quantiser);
const char *dpt_quantiser_config(const dpt_quantiser *quantiser);

/** Whether a tensor of like's catalog is quantised. Local. */
bool dpt_quantiser_takes(const dpt_quantiser *quantiser, int tensor);

/** Round an edited model to what its quantised form holds, and write that.
 *
 * In a block that the edit changes the scale is the largest magnitude over that of the type (448 of F8_E4M3), 1 where
 * that is below 2^-100, rounded to the type of the scales, up to a power of two with `scale_fmt: ue8m0`; a value
 * becomes the nearest code (ties to even) of itself over the scale, then code times scale, rounded. Scales of MXFP4 are
 * powers of two, the next not below the largest magnitude over 6. All other blocks keep
 * their codes and scales.
 * Collective over comm, agreed.
 * @param[in,out] edited  W_edit with the types of like's catalog; on return what a reader of the written model sees.
 * @param[in] writer  over dpt_quantiser_catalog; NULL: nothing is written.
 * Errors: those of reading and writing; DPT_ERR_OUTPUT without memory.
 * Determinism: same bits for any number of ranks. */
dpt_status dpt_quantiser_apply(dpt_quantiser *quantiser, dpt_field *edited,
                               dpt_store_writer *writer);

#endif
