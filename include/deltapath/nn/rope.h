/** Rotary position embedding in the half-rotation convention of HuggingFace checkpoints.
 *
 * For the rules common to the layer `nn` see deltapath/nn/linear.h.
 */
#ifndef DELTAPATH_NN_ROPE_H
#define DELTAPATH_NN_ROPE_H

#include <stdint.h>

typedef enum {
    DPT_ROPE_DEFAULT, /**< no scaling */
    DPT_ROPE_LINEAR,  /**< every frequency divided by `factor` */
    DPT_ROPE_LLAMA3   /**< low frequencies divided by `factor`, a smooth passage to high ones */
} dpt_rope_kind;

/** Rotary parameters as in a HuggingFace config (`rope_theta`, `rope_scaling`). */
typedef struct {
    dpt_rope_kind kind;
    int64_t dim;                   /**< rotated width of a head: even, at most head_dim */
    double theta;                  /**< base, above 1 */
    double factor;                 /**< linear, llama3: above 0 */
    double low_freq_factor;        /**< llama3: above 0, below high_freq_factor */
    double high_freq_factor;       /**< llama3 */
    int64_t original_max_position; /**< llama3: original_max_position_embeddings, above 0 */
} dpt_rope_params;

/** Inverse frequencies of the rotation, rounded to fp32 where transformers rounds them.
 *
 * Local.
 * Computes: inv_freq[i] = theta^(-2i/dim), then the scaling of params->kind.
 *   Source: arXiv:2104.09864; scaling as in transformers' modeling_rope_utils.
 * @param[out] inv_freq  (dim/2) fp32 [radian/position].
 */
void dpt_nn_rope_inv_freq(const dpt_rope_params *params, float *inv_freq);

/** Tables of cosines and sines for positions 0 .. n-1.
 *
 * Local.
 * Computes: the angle p inv_freq[i] rounded to fp32 as transformers does, its cosine and sine in
 *   double, rounded once.
 * @param[in]  half      dim/2.
 * @param[out] cos, sin  (n, half) fp32 each.
 */
void dpt_nn_rope_table(int64_t n, int64_t half, const float *inv_freq, float *cos, float *sin);

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
 * @param[in]     half      dim/2, at most head_dim/2.
 * @param[in]     cos, sin  from dpt_nn_rope_table.
 * @param[in,out] x         rows of heads * head_dim fp32, leading dimension ldx.
 */
void dpt_nn_rope_forward(int64_t n_seq, const int64_t *offsets, int64_t heads, int64_t head_dim,
                         int64_t half, const float *cos, const float *sin, float *x, int64_t ldx);

/** Gradient through dpt_nn_rope_forward, in place: the rotation by the opposite angle.
 *
 * Local. Parameters as in dpt_nn_rope_forward.
 */
void dpt_nn_rope_backward(int64_t n_seq, const int64_t *offsets, int64_t heads, int64_t head_dim,
                          int64_t half, const float *cos, const float *sin, float *dx,
                          int64_t lddx);

#endif
