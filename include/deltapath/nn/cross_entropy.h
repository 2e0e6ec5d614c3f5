/** Softmax cross-entropy over a vocabulary split into column blocks, in local pieces.
 *
 * For the rules common to the layer `nn` see deltapath/nn/linear.h. A rank holds the columns
 * [v0, v0 + V) of R rows of logits, one row per predicted token. Order of use: row_max, all-reduce
 * MAX; sums, all-reduce SUM of sumexp and target_logit; loss; backward. With V = 0 a rank gives
 * the neutral element of each reduction.
 */
#ifndef DELTAPATH_NN_CROSS_ENTROPY_H
#define DELTAPATH_NN_CROSS_ENTROPY_H

#include "deltapath/base/rng.h"

#include <stdint.h>

/** Bounds the logits of this block before anything else looks at them.
 *
 * Local.
 * Computes: logits[r,v] = cap tanh(logits[r,v] / cap).   Source: arXiv:2408.00118.
 * @param[in]     cap     above 0.
 * @param[in,out] logits  (R, V), leading dimension ld.
 */
void dpt_nn_ce_cap(int64_t R, int64_t V, float cap, float *logits, int64_t ld);

/** Largest logit of each row in this block.
 *
 * Local.
 * @param[in]  logits  (R, V), leading dimension ld.
 * @param[out] max     (R); -INFINITY if V is 0.
 */
void dpt_nn_ce_row_max(int64_t R, int64_t V, const float *logits, int64_t ld, float *max);

/** Sum of exponentials and the logit of the target in this block.
 *
 * Local.
 * Computes: sumexp[r] = sum_v exp(logits[r,v] - max[r]) in double,
 *   target_logit[r] = logits[r, targets[r] - v0] if the block holds the target, else 0.
 * @param[in]  targets       (R) token ids.
 * @param[in]  max           (R) maximum over the whole vocabulary.
 * @param[out] sumexp        (R) double.
 * @param[out] target_logit  (R) double.
 */
void dpt_nn_ce_sums(int64_t R, int64_t V, int64_t v0, const float *logits, int64_t ld,
                    const int32_t *targets, const float *max, double *sumexp, double *target_logit);

/** Negative log-likelihood of each row from the reduced pieces.
 *
 * Local.
 * Computes: loss[r] = log(sumexp[r]) + max[r] - target_logit[r].
 * @param[out] loss  (R) double [nats]; may be target_logit.
 */
void dpt_nn_ce_loss(int64_t R, const float *max, const double *sumexp, const double *target_logit,
                    double *loss);

/** Replaces the logits of this block by the gradient of sum_r scale[r] loss[r].
 *
 * Local.
 * Computes: d[r,v] = scale[r] (exp(logits[r,v] - max[r]) / sumexp[r] - [v0 + v = targets[r]]), times
 *   1 - (logits[r,v] / cap)^2 with a cap.
 * @param[in]     cap     with which dpt_nn_ce_cap made the logits; 0: it did not.
 * @param[in]     sumexp  (R) over the whole vocabulary.
 * @param[in]     scale   (R) weight of each row in the loss.
 * @param[in,out] logits  (R, V), leading dimension ld: logits in, gradient out.
 */
void dpt_nn_ce_backward(int64_t R, int64_t V, int64_t v0, float cap, float *logits, int64_t ld,
                        const int32_t *targets, const float *max, const double *sumexp,
                        const float *scale);

/** Largest logit of each row in this block and its token id, for accuracy.
 *
 * Local. Among equal values the smallest id wins, here and, by the caller, over ranks.
 * @param[out] value  (R); -INFINITY if V is 0.
 * @param[out] index  (R) token id in [v0, v0 + V); -1 if V is 0.
 */
void dpt_nn_ce_argmax(int64_t R, int64_t V, int64_t v0, const float *logits, int64_t ld,
                      float *value, int64_t *index);

/** Draws a label of each row from its softmax, in this block.
 *
 * Local. An exponential race, which is the Gumbel-max trick without its outer logarithm: entry v of row r arrives
 * at the time -log(u) / exp(logits[r,v] - max[r]), u = dpt_rng_uniform of word first[r] + v0 + v of the
 * stream, and is the first of the whole vocabulary with its softmax probability. The caller takes the first
 * over the ranks, by equal times the smallest id.
 * @param[in]  max    (R) maximum over the whole vocabulary.
 * @param[in]  first  (R) element of the stream that belongs to token id 0.
 * @param[out] time   (R) of the first arrival; INFINITY if V is 0.
 * @param[out] index  (R) token id in [v0, v0 + V); -1 if V is 0 or no logit is a number. May be `first`.
 */
void dpt_nn_ce_draw(int64_t R, int64_t V, int64_t v0, const float *logits, int64_t ld,
                    const float *max, dpt_rng rng, const int64_t *first, double *time,
                    int64_t *index);

#endif
