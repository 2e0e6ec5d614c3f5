/** Token embedding over a range of the vocabulary.
 *
 * For the rules common to the layer `nn` see deltapath/nn/linear.h. The forward pass is a look-up of
 * rows, which are formed for the tokens of a batch alone (dpt_embed_tokens). A rank holds the rows
 * [v0, v1) of the embedding table; tokens outside belong to other ranks.
 */
#ifndef DELTAPATH_NN_EMBED_H
#define DELTAPATH_NN_EMBED_H

#include <stdint.h>

/** Adds the gradient of the table, in token order.
 *
 * Local.
 * Computes: dw[tokens[t] - v0, :] += dx[t, :] for the tokens in [v0, v1).
 * @param[in,out] dw  (v1 - v0, C), leading dimension lddw.
 * Determinism: the same bits for any number of threads.
 */
void dpt_nn_embed_backward(int64_t T, int64_t C, int64_t v0, int64_t v1, const int32_t *tokens,
                           const float *dx, int64_t lddx, float *dw, int64_t lddw);

/** Adds, for each token, the derivative of the loss along a direction e of the table.
 *
 * Local.
 * Computes: term[t] += sum_c dx[t,c] e[tokens[t] - v0, c] for the tokens in [v0, v1), in double.
 * @param[in]     e     (v1 - v0, C), leading dimension lde.
 * @param[in,out] term  (T) double.
 */
void dpt_nn_embed_terms(int64_t T, int64_t C, int64_t v0, int64_t v1, const int32_t *tokens,
                        const float *dx, int64_t lddx, const float *e, int64_t lde, double *term);

#endif
