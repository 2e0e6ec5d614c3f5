/** Attention that pools: one query a head over all tokens of a sequence.
 *
 * For the rules common to the layer `nn` see deltapath/nn/linear.h.
 */
#ifndef DELTAPATH_NN_POOL_H
#define DELTAPATH_NN_POOL_H

#include <stdint.h>

/** Shape of one call. */
typedef struct {
    int64_t n;        /**< tokens */
    int64_t heads;    /**< here */
    int64_t hd;       /**< width of a head */
    int64_t ldk, ldv; /**< leading dimensions of k and dk, v and dv */
    float scale;      /**< factor on q.k */
} dpt_pool_shape;

/** Output of each head.
 *
 * Local.
 * Computes: p[j] = softmax over l of scale q[j].k[l,j], o[j] = sum_l p[j,l] v[l,j].   Source: arXiv:1810.00825; SigLIP.
 * @param[in]  q     (heads * hd).
 * @param[in]  k, v  (n, heads * hd); n at least 1.
 * @param[out] p     (heads, n), for the backward pass.
 * @param[out] o     (heads * hd).
 */
void dpt_nn_pool_forward(const dpt_pool_shape *shape, const float *q, const float *k,
                         const float *v, float *p, float *o);

/** Gradients of dpt_nn_pool_forward.
 *
 * Local.
 * Computes: ds[j,l] = p[j,l] (d_o[j].v[l,j] - d_o[j].o[j]), dq[j] = scale sum_l ds[j,l] k[l,j], dk[l,j] = scale ds[j,l] q[j],
 *   dv[l,j] = p[j,l] d_o[j]. Overwrites dq, dk, dv.
 * @param[in]  p, o  from the forward pass; d_o as o.
 * @param[out] dq, dk, dv  shaped as q, k, v.
 */
void dpt_nn_pool_backward(const dpt_pool_shape *shape, const float *q, const float *k,
                          const float *v, const float *p, const float *o, const float *d_o,
                          float *dq, float *dk, float *dv);

#endif
