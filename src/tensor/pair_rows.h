#ifndef DELTAPATH_SRC_TENSOR_PAIR_ROWS_H
#define DELTAPATH_SRC_TENSOR_PAIR_ROWS_H

#include "deltapath/tensor/pair.h"

/** Whether two tensors of a vocabulary pair by the rows of their tokens: the other sides are the same, and rows or
 * tokens differ. A token whose id is beyond the rows has none. Local. */
bool dpt_pair_rows_apply(const dpt_token_rows *tokens, const dpt_tensor_info *pre,
                         const dpt_tensor_info *post);

/** Elements of a tensor that pairs by rows, in the pair's type: rows of pre, and of post where a token has no partner.
 * Local. Errors: those of the sources. */
dpt_status dpt_pair_rows_read(const dpt_pair *pair, dpt_range range, void *out);

/** The same of a block. Local. */
dpt_status dpt_pair_rows_fetch(const dpt_pair *pair, const dpt_block *want, void *out);

#endif
