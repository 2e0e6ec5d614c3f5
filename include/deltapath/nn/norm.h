/** RMSNorm and LayerNorm over the rows of a (T, C) fp32 matrix, in forward/backward pairs.
 *
 * For the rules common to the layer `nn` see deltapath/nn/linear.h. Row statistics are summed in
 * double. dx may be the same array as dy (with the same leading dimension) when not accumulating.
 */
#ifndef DELTAPATH_NN_NORM_H
#define DELTAPATH_NN_NORM_H

#include <stdbool.h>
#include <stdint.h>

/** Root-mean-square normalisation of each row.
 *
 * Local.
 * Computes: rstd[t] = 1/sqrt(mean_c x[t,c]^2 + eps), y[t,c] = w[c] (x[t,c] rstd[t]).
 *   Source: arXiv:1910.07467; eps inside the root as in LLaMA.
 * @param[in]  x     (T, C), leading dimension ldx.
 * @param[in]  w     (C).
 * @param[out] y     (T, C), leading dimension ldy; may be x.
 * @param[out] rstd  (T), for the backward pass; NULL if there is none.
 */
void dpt_nn_rmsnorm_forward(int64_t T, int64_t C, const float *x, int64_t ldx, const float *w,
                            float eps, float *y, int64_t ldy, float *rstd);

/** Gradient with respect to the input of RMSNorm.
 *
 * Local.
 * Computes: with xh = x rstd, a = dy w: dx[t,c] (+)= rstd[t] (a[c] - xh[c] mean_j a[j] xh[j]).
 * @param[in]     dy          (T, C), leading dimension lddy.
 * @param[in]     accumulate  true: add to dx (as the residual stream wants); false: overwrite it.
 * @param[in,out] dx          (T, C), leading dimension lddx.
 */
void dpt_nn_rmsnorm_backward_input(int64_t T, int64_t C, const float *dy, int64_t lddy,
                                   const float *x, int64_t ldx, const float *w, const float *rstd,
                                   bool accumulate, float *dx, int64_t lddx);

/** Gradient with respect to the weight of RMSNorm: dw[c] (+)= sum_t dy[t,c] x[t,c] rstd[t].
 *
 * Local. Parameters as in dpt_nn_rmsnorm_backward_input; dw (C). rstd NULL: 1, for the weight of dpt_nn_scale.
 */
void dpt_nn_rmsnorm_backward_weight(int64_t T, int64_t C, const float *dy, int64_t lddy,
                                    const float *x, int64_t ldx, const float *rstd, bool accumulate,
                                    float *dw);

/** Adds, for each token, the derivative of the loss along a direction e of the RMSNorm weight.
 *
 * Local.
 * Computes: term[t] += sum_c dy[t,c] x[t,c] rstd[t] e[c], in double. rstd NULL: 1, for the weight of dpt_nn_scale.
 * @param[in]     e     (C).
 * @param[in,out] term  (T) double.
 */
void dpt_nn_rmsnorm_terms(int64_t T, int64_t C, const float *dy, int64_t lddy, const float *x,
                          int64_t ldx, const float *rstd, const float *e, double *term);

/** RMSNorm of each of the heads of a token, which share one weight, and its backward pass: the functions above for
 * T heads rows of C, in one pass over the tokens.
 *
 * Local.
 * @param[in]  x         (T, heads * C), leading dimension ldx; head j at element j * C.
 * @param[out] y         as x; may be x.
 * @param[out] kept      a copy of x, leading dimension ldkept, where y takes its place; or NULL.
 * @param[out] rstd      (T, heads); or NULL.
 */
void dpt_nn_rmsnorm_heads_forward(int64_t T, int64_t heads, int64_t C, const float *x, int64_t ldx,
                                  const float *w, float eps, float *y, int64_t ldy, float *kept,
                                  int64_t ldkept, float *rstd);
void dpt_nn_rmsnorm_heads_backward_input(int64_t T, int64_t heads, int64_t C, const float *dy,
                                         int64_t lddy, const float *x, int64_t ldx, const float *w,
                                         const float *rstd, bool accumulate, float *dx,
                                         int64_t lddx);
void dpt_nn_rmsnorm_heads_backward_weight(int64_t T, int64_t heads, int64_t C, const float *dy,
                                          int64_t lddy, const float *x, int64_t ldx,
                                          const float *rstd, bool accumulate, float *dw);
/** Local. The term of a token is the sum over its heads. */
void dpt_nn_rmsnorm_heads_terms(int64_t T, int64_t heads, int64_t C, const float *dy, int64_t lddy,
                                const float *x, int64_t ldx, const float *rstd, const float *e,
                                double *term);

/** RMSNorm over rows whose columns are split over ranks, in local pieces: squares of the columns that this rank
 * counts, all-reduce SUM, scale; backward: dots, all-reduce SUM, backward_scale. Where two ranks hold the same
 * columns, as key heads that query heads on both use, one of them counts these: the columns [0, own) of a rank.
 *
 * Local.
 * Computes: sum[t] += sum_c x[t,c]^2, in double.
 * @param[in]     x    (T, C), leading dimension ldx: the columns that are counted here.
 * @param[in,out] sum  (T) double.
 */
void dpt_nn_rmsnorm_squares(int64_t T, int64_t C, const float *x, int64_t ldx, double *sum);

/** Local.
 * Computes: rstd[t] = 1/sqrt(sum[t] / total + eps), y[t,c] = w[c] (x[t,c] rstd[t]).
 * @param[in]  total  columns of the whole row.
 * @param[in]  x      (T, C), leading dimension ldx: all columns that are here; w (C) theirs.
 * @param[out] y      (T, C), leading dimension ldy; may be x.
 * @param[out] rstd   (T), the same on all ranks; NULL if there is no backward pass.
 */
void dpt_nn_rmsnorm_scale(int64_t T, int64_t C, int64_t total, const double *sum, float eps,
                          const float *x, int64_t ldx, const float *w, float *y, int64_t ldy,
                          float *rstd);

/** Local.
 * Computes: dot[t] += sum_c dy[t,c] w[c] x[t,c], in double, over all columns that are here: the parts of dy that
 *   two ranks have for one column add up.
 */
void dpt_nn_rmsnorm_dots(int64_t T, int64_t C, const float *dy, int64_t lddy, const float *x,
                         int64_t ldx, const float *w, double *dot);

/** Local.
 * Computes: dx[t,c] = rstd[t] (dy[t,c] w[c] - [c < own] x[t,c] rstd[t]^2 dot[t] / total). Of a column on two ranks
 *   the two dx add up to the gradient, as the two dy do. The weight has dpt_nn_rmsnorm_backward_weight, whose parts
 *   add up too.
 * @param[in]  dot  summed over the ranks.
 * @param[out] dx   (T, C), leading dimension lddx; may be dy.
 */
void dpt_nn_rmsnorm_backward_scale(int64_t T, int64_t C, int64_t own, int64_t total,
                                   const double *dot, const float *dy, int64_t lddy, const float *x,
                                   int64_t ldx, const float *w, const float *rstd, float *dx,
                                   int64_t lddx);

/** A factor for each column.
 *
 * Local. The gradient of x is the same function of that of y, the gradient and terms of w are those of
 * dpt_nn_rmsnorm_backward_weight and dpt_nn_rmsnorm_terms without rstd.
 * Computes: y[t,c] = x[t,c] w[c].   Source: arXiv:2103.17239 (LayerScale).
 * @param[out] y  (T, C), leading dimension ldy; may be x.
 */
void dpt_nn_scale(int64_t T, int64_t C, const float *x, int64_t ldx, const float *w, float *y,
                  int64_t ldy);

/** Layer normalisation of each row.
 *
 * Local.
 * Computes: y[t,c] = w[c] (x[t,c] - mean[t]) rstd[t] + b[c], rstd = 1/sqrt(var + eps), var over C
 *   (biased).   Source: arXiv:1607.06450.
 * @param[in]  b           (C), or NULL.
 * @param[out] mean, rstd  (T) each, for the backward pass; both NULL if there is none.
 */
void dpt_nn_layernorm_forward(int64_t T, int64_t C, const float *x, int64_t ldx, const float *w,
                              const float *b, float eps, float *y, int64_t ldy, float *mean,
                              float *rstd);

/** Gradient with respect to the input of LayerNorm.
 *
 * Local.
 * Computes: with xh = (x - mean) rstd, a = dy w:
 *   dx[t,c] (+)= rstd[t] (a[c] - mean_j a[j] - xh[c] mean_j a[j] xh[j]).
 */
void dpt_nn_layernorm_backward_input(int64_t T, int64_t C, const float *dy, int64_t lddy,
                                     const float *x, int64_t ldx, const float *w, const float *mean,
                                     const float *rstd, bool accumulate, float *dx, int64_t lddx);

/** Gradient with respect to the weight of LayerNorm: dw[c] (+)= sum_t dy[t,c] xh[t,c].
 *
 * Local. The bias has the gradient and the terms of dpt_nn_linear_backward_bias and
 * dpt_nn_linear_bias_terms.
 */
void dpt_nn_layernorm_backward_weight(int64_t T, int64_t C, const float *dy, int64_t lddy,
                                      const float *x, int64_t ldx, const float *mean,
                                      const float *rstd, bool accumulate, float *dw);

/** Adds, for each token, the derivative of the loss along a direction e of the LayerNorm weight:
 * term[t] += sum_c dy[t,c] xh[t,c] e[c], in double.
 *
 * Local.
 */
void dpt_nn_layernorm_terms(int64_t T, int64_t C, const float *dy, int64_t lddy, const float *x,
                            int64_t ldx, const float *mean, const float *rstd, const float *e,
                            double *term);

#endif
