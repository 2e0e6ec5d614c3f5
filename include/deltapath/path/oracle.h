#ifndef DELTAPATH_PATH_ORACLE_H
#define DELTAPATH_PATH_ORACLE_H

#include "deltapath/base/status.h"

#include <stdint.h>

/** Loss and directional derivative along the straight path W(t) = W_post + t E, t in [0, 1].
 * The Riemann sum knows nothing else of a model. */
typedef struct dpt_oracle {
    void *ctx;
    int64_t samples; /**< of the whole data set */
    int64_t terms;   /**< tensors that E touches or not; one term each */
    int64_t
        parts; /**< values that follow the terms: parts of some of them, which no sum counts again */

    /** Loss of every sample at t. Collective. @param[out] loss (samples), the same on all ranks. */
    dpt_status (*loss)(void *ctx, double t, double *loss);

    /** Losses and terms at t in one pass.
     * Collective.
     * @param[out] loss         (samples), the same on all ranks.
     * @param[out] terms        (terms + parts) <mean gradient of tensor i at t, E_i>, all-reduced.
     * @param[out] sample_terms (samples) sum over tensors of <gradient of the sample's loss, E>, or
     *                          NaN throughout when the oracle has only the mean (a shared gradient).
     */
    dpt_status (*slope)(void *ctx, double t, double *loss, double *terms, double *sample_terms);
} dpt_oracle;

#endif
