/** Rotary position embedding in the half-rotation convention of HuggingFace checkpoints.
 *
 * For the rules common to the layer `nn` see deltapath/nn/linear.h.
 */
#ifndef DELTAPATH_NN_ROPE_H
#define DELTAPATH_NN_ROPE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum {
    DPT_ROPE_DEFAULT, /**< no scaling */
    DPT_ROPE_LINEAR,  /**< every frequency divided by `factor` */
    DPT_ROPE_DYNAMIC, /**< a base that grows with the length of a long sequence */
    DPT_ROPE_LLAMA3,  /**< low frequencies divided by `factor`, a smooth passage to high ones */
    DPT_ROPE_YARN,    /**< the same with a linear passage */
    DPT_ROPE_LONGROPE /**< each frequency divided by its own factor, another one in long sequences */
} dpt_rope_kind;

/** Rotary parameters as in a HuggingFace config (`rope_theta`, `rope_scaling`). */
typedef struct {
    dpt_rope_kind kind;
    int64_t dim;             /**< rotated width of a head, at most head_dim; even with yarn */
    double theta;            /**< base, above 1 */
    double factor;           /**< of every scaling: above 0 */
    double low_freq_factor;  /**< llama3: above 0, below high_freq_factor */
    double high_freq_factor; /**< llama3 */
    /** original_max_position_embeddings, of llama3, yarn: above 0; longrope: above 1. Of dynamic,
     * whose dim is above 2: max_position_embeddings, above 0 */
    int64_t original_max_position;
    double beta_fast, beta_slow;       /**< yarn: turns that end and begin the passage, above 0 */
    bool truncate;                     /**< yarn: the passage begins and ends at whole pairs */
    double attention_factor;           /**< yarn, longrope: 0: from factor */
    double mscale, mscale_all_dim;     /**< yarn: weigh factor in that; 0: either is absent */
    float *short_factor, *long_factor; /**< longrope: (half) divisors */
} dpt_rope_params;

/** Pairs of elements of a head that are turned: of an odd dim one more than dim/2, as transformers has it. */
static inline int64_t dpt_nn_rope_half(const dpt_rope_params *params) {
    return (params->dim + 1) / 2;
}

/** Whether a sequence of n positions has frequencies of its length (dynamic) or of long ones (longrope). Local. */
bool dpt_nn_rope_is_long(const dpt_rope_params *params, int64_t n);

/** Factor of cosines and sines, the attention factor of yarn and longrope.
 *
 * Local.
 * Computes: attention_factor, or from factor f: yarn m(1), or m(mscale) / m(mscale_all_dim), with
 *   m(s) = 0.1 s ln f + 1 for f above 1, else 1; longrope sqrt(1 + ln f / ln original_max_position).
 *   Source: arXiv:2309.00071, arXiv:2402.13753, as in transformers' modeling_rope_utils.
 */
double dpt_nn_rope_scale(const dpt_rope_params *params);

/** Inverse frequencies of the rotation, rounded to fp32 where transformers rounds them.
 *
 * Local.
 * Computes: inv_freq[i] = theta^(-2i/dim), then the scaling of params->kind.
 *   Source: arXiv:2104.09864; scaling as in transformers' modeling_rope_utils.
 *   Dynamic, for n above m = original_max_position: theta (factor n / m - factor + 1)^(dim/(dim-2))
 *   in place of theta.
 * @param[in]  n         length of the sequence [positions].
 * @param[out] inv_freq  (half) fp32 [radian/position].
 */
void dpt_nn_rope_inv_freq(const dpt_rope_params *params, int64_t n, float *inv_freq);

/** Tables of cosines and sines for positions 0 .. n-1.
 *
 * Local.
 * Computes: the angle p inv_freq[i] rounded to fp32 as transformers does, its cosine and sine in
 *   double, rounded once, times scale.
 * @param[in]  scale     from dpt_nn_rope_scale.
 * @param[out] cos, sin  (n, half) fp32 each.
 */
void dpt_nn_rope_table(int64_t n, int64_t half, const float *inv_freq, float scale, float *cos,
                       float *sin);

/** Rotates the heads of a packed batch in place; positions restart at 0 in every sequence.
 *
 * Local.
 * Computes: for i < half, with p the position of the row in its sequence:
 *   y[i] = x[i] cos[p,i] - x[i+half] sin[p,i],  y[i+half] = x[i+half] cos[p,i] + x[i] sin[p,i];
 *   elements of a head from 2 half on stay as they are.
 * @param[in]     n_seq     number of sequences.
 * @param[in]     offsets   (n_seq + 1): sequence s has the rows offsets[s] .. offsets[s+1]-1 of x;
 *                          none is longer than the tables.
 * @param[in]     heads     heads in a row; head j starts at element j * head_dim.
 * @param[in]     half      at most head_dim/2.
 * @param[in]     cos, sin  from dpt_nn_rope_table.
 * @param[in,out] x         rows of heads * head_dim fp32, leading dimension ldx.
 */
void dpt_nn_rope_forward(int64_t n_seq, const int64_t *offsets, int64_t heads, int64_t head_dim,
                         int64_t half, const float *cos, const float *sin, float *x, int64_t ldx);

/** Gradient through dpt_nn_rope_forward, in place: its transpose, the rotation by the opposite angle.
 *
 * Local. Parameters as in dpt_nn_rope_forward.
 */
void dpt_nn_rope_backward(int64_t n_seq, const int64_t *offsets, int64_t heads, int64_t head_dim,
                          int64_t half, const float *cos, const float *sin, float *dx,
                          int64_t lddx);

#endif
