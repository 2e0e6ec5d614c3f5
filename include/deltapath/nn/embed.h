/** Token embedding over a range of the vocabulary.
 *
 * For the rules common to the layer `nn` see deltapath/nn/linear.h. A rank holds the rows
 * [v0, v1) of the embedding table; tokens outside belong to other ranks.
 */
#ifndef DELTAPATH_NN_EMBED_H
#define DELTAPATH_NN_EMBED_H

#include <stdint.h>

/** Looks up rows of the table; tokens outside [v0, v1) give rows of zeros, so that the sum over
 * ranks is the embedding.
 *
 * Local.
 * Computes: x[t,:] = w[tokens[t] - v0, :] if v0 <= tokens[t] < v1, else 0.
 * @param[in]  tokens  (T).
 * @param[in]  w       (v1 - v0, C), leading dimension ldw.
 * @param[out] x       (T, C), leading dimension ldx.
 */
void dpt_nn_embed_forward(int64_t T, int64_t C, int64_t v0, int64_t v1, const int32_t *tokens,
                          const float *w, int64_t ldw, float *x, int64_t ldx);

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
