#ifndef DELTAPATH_MODEL_COST_H
#define DELTAPATH_MODEL_COST_H

#include "deltapath/tensor/catalog.h"

/** What the arithmetic of a pass over data consists of, in multiplications of weights and activations. */
typedef struct dpt_model_cost {
    double experts; /**< of `linear`, those of experts, and how many there are */
    int64_t expert_count;
    double linear; /**< weights that every token is multiplied by */
    double again;  /**< of these, those that it is multiplied by once more on the way back, */
    double
        always; /**< and of them those of experts and routers, also where activations of a layer are held */
    double head;  /**< weights that every scored token, or image, is multiplied by */
    double keys;  /**< (query, key) pairs of all sequences and layers, for each head */
    double inner; /**< activations of a token in a layer that are wider than the residual stream */
    int64_t heads, head_dim, layers, width, vocabulary;
} dpt_model_cost;

/** Count before any model exists. Local. Errors as create.
 * @param[in] lengths (sequences) of the data [tokens], for `keys`. */
dpt_status dpt_model_count_cost(const char *config, const dpt_catalog *catalog, int64_t sequences,
                                const int64_t *lengths, dpt_model_cost *out);

#endif
