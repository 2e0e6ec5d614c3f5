/** Elementwise parts of the MLP: SwiGLU and the GELU family, in forward/backward pairs.
 *
 * For the rules common to the layer `nn` see deltapath/nn/linear.h.
 */
#ifndef DELTAPATH_NN_MLP_H
#define DELTAPATH_NN_MLP_H

#include <stdint.h>

/** Gated unit of LLaMA's MLP.
 *
 * Local.
 * Computes: h[t,f] = silu(g[t,f]) u[t,f], silu(a) = a / (1 + exp(-a)).   Source: arXiv:2002.05202.
 * @param[in]  g, u  (T, F), leading dimensions ldg, ldu.
 * @param[out] h     (T, F), leading dimension ldh; may be g or u.
 */
void dpt_nn_swiglu_forward(int64_t T, int64_t F, const float *g, int64_t ldg, const float *u,
                           int64_t ldu, float *h, int64_t ldh);

/** Gradients of dpt_nn_swiglu_forward.
 *
 * Local.
 * Computes: du = dh silu(g), dg = dh u sig(g) (1 + g (1 - sig(g))).
 * @param[in]  dh      (T, F), leading dimension lddh.
 * @param[out] dg, du  (T, F), leading dimensions ldg, ldu as g and u have; dg may be g, du may be u.
 */
void dpt_nn_swiglu_backward(int64_t T, int64_t F, const float *dh, int64_t lddh, const float *g,
                            int64_t ldg, const float *u, int64_t ldu, float *dg, float *du);

typedef enum {
    DPT_ACT_SILU,           /**< x sig(x) */
    DPT_ACT_GELU,           /**< x Phi(x), by erf */
    DPT_ACT_GELU_TANH,      /**< x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) */
    DPT_ACT_QUICK_GELU,     /**< x sig(1.702 x), of CLIP */
    DPT_ACT_CLAMPED_SWIGLU, /**< of gpt-oss: a gated unit alone, see dpt_nn_gated_forward */
} dpt_act_kind;

/** Activation of n elements: y[i] = act(x[i]).
 *
 * Local.
 * @param[in]  x  (n) contiguous.
 * @param[out] y  (n) contiguous; may be x.
 */
void dpt_nn_act_forward(dpt_act_kind kind, int64_t n, const float *x, float *y);

/** Gradient of dpt_nn_act_forward: dx[i] = dy[i] act'(x[i]).
 *
 * Local.
 * @param[in]  x   (n) input of the forward pass.
 * @param[out] dx  (n); may be dy or x.
 */
void dpt_nn_act_backward(dpt_act_kind kind, int64_t n, const float *dy, const float *x, float *dx);

#endif
