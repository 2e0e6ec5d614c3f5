/** Softmax attention over one sequence with grouped key/value heads, blocked over queries and keys.
 *
 * For the rules common to the layer `nn` see deltapath/nn/linear.h. The matrix of probabilities is
 * never held: memory besides the arguments is the scratch, whose size does not depend on n.
 */
#ifndef DELTAPATH_NN_ATTENTION_H
#define DELTAPATH_NN_ATTENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Shape and mask of one attention call. */
typedef struct {
    int64_t n;             /**< tokens of the sequence */
    int64_t hq;            /**< query heads here */
    int64_t hkv;           /**< key/value heads here */
    int64_t hd;            /**< width of a head, the same for q, k and v */
    const int32_t *kv_of;  /**< (hq): kv_of[j] in [0, hkv) is the kv head of query head j */
    int64_t ldq, ldk, ldv; /**< leading dimensions of q and dq, k and dk, v and dv */
    int64_t ldo;           /**< leading dimension of o and d_o */
    float scale;           /**< factor on q.k, as a rule 1/sqrt(hd) */
    float cap;             /**< scores s become cap tanh(s / cap); 0: they stay */
    bool causal;           /**< query i sees keys j <= i */
    int64_t window;        /**< with causal: query i sees keys j with i - j < window; 0 = all */
    int threads;           /**< at most this many share the heads; as a rule
                                omp_get_max_threads(), since BLAS threads inside the small
                                blocks are slow; below 1 means 1 */
} dpt_attention_shape;

/** Number of floats of scratch that both passes need for this shape: depends on `threads` and `hd` alone, and does not
 * fall with either. */
size_t dpt_nn_attention_scratch(const dpt_attention_shape *shape);

/** Attention of one sequence.
 *
 * Local.
 * Computes: for query head j, g = kv_of[j]: s[i,l] = scale q[i,j].k[l,g], or cap tanh(that / cap), on the visible keys l,
 *   lse[j,i] = log sum_l exp s[i,l], o[i,j] = sum_l exp(s[i,l] - lse[j,i]) v[l,g].
 *   Source: arXiv:1706.03762, arXiv:2305.13245 (groups), arXiv:2408.00118 (cap); blocks as in arXiv:2205.14135.
 * @param[in]  q    (n, hq * hd), leading dimension ldq; head j at element j * hd.
 * @param[in]  k    (n, hkv * hd), leading dimension ldk.
 * @param[in]  v    (n, hkv * hd), leading dimension ldv.
 * @param[out] o    (n, hq * hd), leading dimension ldo.
 * @param[out] lse  (hq, n), for the backward pass; NULL if there is none.
 * @param      scratch  dpt_nn_attention_scratch(shape) floats.
 * Determinism: same bits for any number of threads.
 */
void dpt_nn_attention_forward(const dpt_attention_shape *shape, const float *q, const float *k,
                              const float *v, float *o, float *lse, float *scratch);

/** Gradients of dpt_nn_attention_forward; the probabilities are computed again from q, k and lse.
 *
 * Local.
 * Computes: p = exp(s - lse), dp[i,l] = d_o[i].v[l], D[i] = d_o[i].o[i],
 *   ds = p (dp - D) (times 1 - (s / cap)^2), dq = scale ds k, dk = scale ds^T q, dv = p^T d_o (k, v: summed over the query
 *   heads of the group). Overwrites dq, dk, dv; a kv head that no query head uses gets zero.
 * @param[in]  o, lse  from the forward pass.
 * @param[in]  d_o     gradient of o, leading dimension ldo.
 * @param[out] dq, dk, dv  shaped as q, k, v.
 * @param      scratch dpt_nn_attention_scratch(shape) floats.
 */
void dpt_nn_attention_backward(const dpt_attention_shape *shape, const float *q, const float *k,
                               const float *v, const float *o, const float *lse, const float *d_o,
                               float *dq, float *dk, float *dv, float *scratch);

/** Gives each query head a key without value: a logit in the sum of exponentials, which takes its share of the
 * probability and adds nothing. Follows dpt_nn_attention_forward.
 *
 * Local.
 * Computes: o[i,j] *= 1 / (1 + exp(sink[j] - lse[j,i])), lse[j,i] = log(exp lse[j,i] + exp sink[j]). With these two
 *   dpt_nn_attention_backward gives the gradients of q, k and v.   Source: arXiv:2309.17453; gpt-oss.
 * @param[in]     sink  (hq).
 * @param[in,out] o     (n, hq * hd), leading dimension ldo.
 * @param[in,out] lse   (hq, n).
 */
void dpt_nn_attention_sink_forward(int64_t n, int64_t hq, int64_t hd, const float *sink, float *o,
                                   int64_t ldo, float *lse);

/** Gradient of each token's loss with respect to the sinks, whose sum over tokens is that of the sinks: what
 * dpt_nn_linear_backward_bias and dpt_nn_linear_bias_terms take as dy.
 *
 * Local.
 * Computes: d[i,j] = -exp(sink[j] - lse[j,i]) sum_c d_o[i,j,c] o[i,j,c].
 * @param[in]  o, lse  as dpt_nn_attention_sink_forward left them; d_o has the leading dimension ldo.
 * @param[out] d       (n, hq), leading dimension ldd.
 */
void dpt_nn_attention_sink_backward(int64_t n, int64_t hq, int64_t hd, const float *sink,
                                    const float *o, const float *d_o, int64_t ldo, const float *lse,
                                    float *d, int64_t ldd);

#endif
