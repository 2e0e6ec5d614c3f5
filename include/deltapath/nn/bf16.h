/** What goes into and comes out of products in bf16: rounding, and the two products of W(t) = A + t (B - A).
 *
 * As all of the layer `nn`: Local; no allocation, cannot fail; the caller has checked the shapes. Sizes may be 0.
 */
#ifndef DELTAPATH_NN_BF16_H
#define DELTAPATH_NN_BF16_H

#include <stdbool.h>
#include <stdint.h>

/** Rounds rows to bf16, to nearest even.
 *
 * Local.
 * @param[in]  x    (T, N) fp32, leading dimension ldx.
 * @param[out] out  (T, N) without gaps.
 */
void dpt_nn_bf16_round(int64_t T, int64_t N, const float *x, int64_t ldx, uint16_t *out);

/** Puts the products with A and with B together.
 *
 * Local.
 * Computes: y[i,n] (+)= bias[n] + a[i,n] + t (b[i,n] - a[i,n]).
 * @param[in]     a     (T, N) fp32 without gaps.
 * @param[in]     b     as a; NULL: y (+)= bias + a.
 * @param[in]     bias  (N), or NULL.
 * @param[in,out] y     (T, N), leading dimension ldy.
 */
void dpt_nn_bf16_join(int64_t T, int64_t N, const float *a, const float *b, float t,
                      const float *bias, bool add, float *y, int64_t ldy);

/** Puts dy A and dy B together, and adds, for each token, the derivative of the loss along E = B - A.
 *
 * Local.
 * Computes: term[i] += sum_n x[i,n] (b[i,n] - a[i,n]), in double: sum_i term[i] = <dW, E>, for dy (E x) = (dy E) x;
 *   then dx[i,n] (+)= a[i,n] + t (b[i,n] - a[i,n]).   Source: this project.
 * @param[in]     a, b  (T, N) fp32 without gaps.
 * @param[in]     x     (T, N) fp32, leading dimension ldx.
 * @param[in,out] term  (T) double.
 * @param[in,out] dx    (T, N), leading dimension lddx; may be x; NULL: not wanted.
 */
void dpt_nn_bf16_terms(int64_t T, int64_t N, const float *a, const float *b, float t,
                       const float *x, int64_t ldx, double *term, bool add, float *dx,
                       int64_t lddx);

#endif
