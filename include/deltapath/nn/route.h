/** Choice of experts: the k largest of a token's logits and their weights, in a forward/backward pair, and the
 * tokens of each expert.
 *
 * For the rules common to the layer `nn` see deltapath/nn/linear.h.
 */
#ifndef DELTAPATH_NN_ROUTE_H
#define DELTAPATH_NN_ROUTE_H

#include <stdint.h>

typedef enum {
    DPT_ROUTE_ALL, /**< softmax over all experts, of which the chosen ones' values stay as they are */
    DPT_ROUTE_CHOSEN /**< softmax over the chosen ones; the same as dividing those of ALL by their sum */
} dpt_nn_route_kind;

/** Chooses k of E experts for each token, and what weighs them.
 *
 * Local.
 * Computes: chosen[t,.] = the k largest of logits[t,.], from the largest down, of equal ones the lowest number first;
 *   weight[t,s] = exp(logits[t,chosen[t,s]]) / sum exp(logits[t,e]), e over all experts or over the chosen ones.
 *   Source: arXiv:2101.03961 (all), arXiv:2401.04088 (chosen).
 * @param[in]  k       1 to E.
 * @param[in]  logits  (T, E), leading dimension ld.
 * @param[out] chosen  (T, k) from 0; valid whatever the logits are.
 * @param[out] weight  (T, k).
 */
void dpt_nn_route_forward(dpt_nn_route_kind kind, int64_t T, int64_t E, int64_t k,
                          const float *logits, int64_t ld, int32_t *chosen, float *weight);

/** Gradient of dpt_nn_route_forward with respect to the logits; the choice is taken as constant.
 *
 * Local.
 * Computes: with D = sum_s weight[s] dweight[s] and dweight 0 where an expert is not chosen: dlogits[e] =
 *   p[e] (dweight[e] - D), p the softmax over all experts or over the chosen ones (0 elsewhere).
 * @param[in]  chosen, weight  of the forward pass.
 * @param[in]  dweight         (T, k).
 * @param[out] dlogits         (T, E), leading dimension ldd; may be logits, with the same leading dimension.
 */
void dpt_nn_route_backward(dpt_nn_route_kind kind, int64_t T, int64_t E, int64_t k,
                           const float *logits, int64_t ld, const int32_t *chosen,
                           const float *weight, const float *dweight, float *dlogits, int64_t ldd);

/** Lists the choices that fall on the experts [begin, end), expert by expert, in rising order.
 *
 * Local.
 * @param[in]  n       choices, T k of them.
 * @param[in]  chosen  (n).
 * @param[out] first   (end - begin + 1): those of expert e are [first[e - begin], first[e - begin + 1]) of choice.
 * @param[out] choice  (n): position in chosen, that is t k + s.
 */
void dpt_nn_route_list(int64_t n, const int32_t *chosen, int64_t begin, int64_t end, int64_t *first,
                       int64_t *choice);

#endif
