/** Choice of experts: the k largest of a token's logits and their weights, in a forward/backward pair.
 *
 * For the rules common to the layer `nn` see deltapath/nn/linear.h.
 */
#ifndef DELTAPATH_NN_ROUTE_H
#define DELTAPATH_NN_ROUTE_H

#include <stdint.h>

typedef enum {
    DPT_ROUTE_ALL, /**< softmax over all experts, of which the chosen ones' values stay as they are */
    DPT_ROUTE_CHOSEN /**< softmax over the chosen ones; the same as dividing those of ALL by their sum */
} dpt_nn_route_kind;

#endif
