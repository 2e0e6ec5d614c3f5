/** Linear layers y = x W^T + b on row-major fp32 matrices, in forward/backward pairs.
 *
 * Common to all kernels of the layer `nn`: Local; no allocation, cannot fail; the caller has
 * checked the shapes. Sizes may be 0. Every size and leading dimension handed to BLAS must be at
 * most INT_MAX. Leading dimensions count elements and are at least the row length. Inputs and
 * outputs must not overlap unless said so.
 */
#ifndef DELTAPATH_NN_LINEAR_H
#define DELTAPATH_NN_LINEAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Applies a linear layer to a batch of tokens.
 *
 * Local.
 * Computes: y[t,n] = sum_k x[t,k] w[n,k] + b[n].
 * @param[in]  x  (T, K) fp32, leading dimension ldx.
 * @param[in]  w  (N, K) fp32, leading dimension ldw.
 * @param[in]  b  (N) fp32, or NULL.
 * @param[out] y  (T, N) fp32, leading dimension ldy.
 */
void dpt_nn_linear_forward(int64_t T, int64_t N, int64_t K, const float *x, int64_t ldx,
                           const float *w, int64_t ldw, const float *b, float *y, int64_t ldy);

/** Gradient with respect to the input of a linear layer.
 *
 * Local.
 * Computes: dx[t,k] (+)= sum_n dy[t,n] w[n,k].
 * @param[in]     accumulate  true: add to dx; false: overwrite it.
 * @param[in,out] dx          (T, K) fp32, leading dimension lddx.
 */
void dpt_nn_linear_backward_input(int64_t T, int64_t N, int64_t K, const float *dy, int64_t lddy,
                                  const float *w, int64_t ldw, bool accumulate, float *dx,
                                  int64_t lddx);

/** Gradient with respect to the weight of a linear layer.
 *
 * Local.
 * Computes: dw[n,k] (+)= sum_t dy[t,n] x[t,k].
 * @param[in]     accumulate  true: add to dw; false: overwrite it.
 * @param[in,out] dw          (N, K) fp32, leading dimension lddw.
 */
void dpt_nn_linear_backward_weight(int64_t T, int64_t N, int64_t K, const float *dy, int64_t lddy,
                                   const float *x, int64_t ldx, bool accumulate, float *dw,
                                   int64_t lddw);

/** Gradient with respect to the bias of a linear layer.
 *
 * Local.
 * Computes: db[n] (+)= sum_t dy[t,n], summed in token order.
 * @param[in]     accumulate  true: add to db; false: overwrite it.
 * @param[in,out] db          (N) fp32.
 */
void dpt_nn_linear_backward_bias(int64_t T, int64_t N, const float *dy, int64_t lddy,
                                 bool accumulate, float *db);

/** Number of floats of scratch that dpt_nn_linear_terms needs; bounded by 2^19 whatever T and N. */
size_t dpt_nn_linear_terms_scratch(int64_t T, int64_t N);

/** Adds products of rows.
 *
 * Local.
 * Computes: term[t] += sum_n dy[t,n] z[t,n], in double.
 * @param[in]     dy    (T, N) fp32, leading dimension lddy.
 * @param[in]     z     (T, N) fp32, leading dimension ldz; 0: one row for all.
 * @param[in,out] term  (T) double.
 */
void dpt_nn_linear_add_products(int64_t T, int64_t N, const float *dy, int64_t lddy, const float *z,
                                int64_t ldz, double *term);

/** Adds, for each token, the derivative of the loss along a direction E of the weight.
 *
 * Local.
 * Computes: term[t] += sum_n dy[t,n] sum_k x[t,k] e[n,k], so that sum_t term[t] = <dW, E>.
 *   Source: this project. The gradient dW is never formed: one GEMM X E^T in blocks; each product
 *   dy (X E^T) and its sum over n are in double.
 * @param[in]     e        (N, K) fp32, leading dimension lde.
 * @param         scratch  dpt_nn_linear_terms_scratch(T, N) floats.
 * @param[in,out] term     (T) double.
 */
void dpt_nn_linear_terms(int64_t T, int64_t N, int64_t K, const float *dy, int64_t lddy,
                         const float *x, int64_t ldx, const float *e, int64_t lde, float *scratch,
                         double *term);

/** Adds, for each token, the derivative of the loss along a direction e of the bias.
 *
 * Local.
 * Computes: term[t] += sum_n dy[t,n] e[n], in double.
 * @param[in]     e     (N) fp32.
 * @param[in,out] term  (T) double.
 */
void dpt_nn_linear_bias_terms(int64_t T, int64_t N, const float *dy, int64_t lddy, const float *e,
                              double *term);

#endif
