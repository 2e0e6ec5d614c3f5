/** Elementwise parts of the MLP: activations and gated units, in forward/backward pairs.
 *
 * For the rules common to the layer `nn` see deltapath/nn/linear.h.
 */
#ifndef DELTAPATH_NN_MLP_H
#define DELTAPATH_NN_MLP_H

#include <stdint.h>

typedef enum {
    DPT_ACT_SILU,           /**< x sig(x) */
    DPT_ACT_GELU,           /**< x Phi(x), by erf */
    DPT_ACT_GELU_TANH,      /**< x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) */
    DPT_ACT_QUICK_GELU,     /**< x sig(1.702 x), of CLIP */
    DPT_ACT_CLAMPED_SWIGLU, /**< of gpt-oss: a gated unit alone, see dpt_nn_gated_forward */
} dpt_act_kind;

/** Activation of n elements: y[i] = act(x[i]); any kind but DPT_ACT_CLAMPED_SWIGLU.
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

/** Gated unit of an MLP.
 *
 * Local.
 * Computes: h[t,f] = act(g[t,f]) u[t,f]; of DPT_ACT_CLAMPED_SWIGLU h = g' sig(1.702 g') (u' + 1) with
 *   g' = min(g, limit), u' = min(max(u, -limit), limit).
 *   Source: arXiv:2002.05202; the clamped one from gpt-oss as transformers has it.
 * @param[in]  limit  of DPT_ACT_CLAMPED_SWIGLU, above 0; others do not look at it.
 * @param[in]  g, u   (T, F), leading dimensions ldg, ldu.
 * @param[out] h      (T, F), leading dimension ldh; may be g or u.
 */
void dpt_nn_gated_forward(dpt_act_kind kind, float limit, int64_t T, int64_t F, const float *g,
                          int64_t ldg, const float *u, int64_t ldu, float *h, int64_t ldh);

/** Gradients of dpt_nn_gated_forward.
 *
 * Local.
 * Computes: du = dh act(g), dg = dh u act'(g); of DPT_ACT_CLAMPED_SWIGLU those of g' and u' + 1, and 0 where g
 *   or u is beyond the limit.
 * @param[in]  dh      (T, F), leading dimension lddh.
 * @param[out] dg, du  (T, F), leading dimensions ldg, ldu as g and u have; dg may be g, du may be u.
 */
void dpt_nn_gated_backward(dpt_act_kind kind, float limit, int64_t T, int64_t F, const float *dh,
                           int64_t lddh, const float *g, int64_t ldg, const float *u, int64_t ldu,
                           float *dg, float *du);

#endif
