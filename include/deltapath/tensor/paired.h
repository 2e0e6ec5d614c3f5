#ifndef DELTAPATH_TENSOR_PAIRED_H
#define DELTAPATH_TENSOR_PAIRED_H

#include "deltapath/tensor/field.h"

/** What a source of the pre-trained model in post's order is made of. */
typedef struct dpt_paired {
    const dpt_catalog *catalog; /**< post's names and shapes, the types of pre; borrowed */
    const int *pre_of;          /**< (tensors) as in dpt_pairing; borrowed */
    dpt_source pre, post;       /**< independent: files */
} dpt_paired;

/** The pre-trained model under post's numbers; what has no partner has post's values. Its calls are
 * Local. Valid while `paired` lives. */
dpt_source dpt_paired_source(dpt_paired *paired);

#endif
