#ifndef DELTAPATH_SRC_MODEL_ARCH_DECODER_ROPE_H
#define DELTAPATH_SRC_MODEL_ARCH_DECODER_ROPE_H

#include "arch.h"

/** Rotary keys of a family beyond rope_parameters, rope_scaling and rope_theta, and what holds where a key is
 * absent. All zero: those of LLaMA. A key that the family does not have is refused. */
typedef struct dpt_rope_traits {
    double theta;            /**< rope_theta; 0: 10000 */
    const char *theta_key;   /**< its name outside of rope_parameters where that is another */
    const char *partial_key; /**< name of partial_rotary_factor outside; NULL: whole heads turn */
    double partial;          /**< the same; 0: 1 */

    bool
        by_type; /**< layers with an attention window have a setting of their own: sliding_attention */
    double sliding_theta;          /**< base of that one */
    const char *sliding_theta_key; /**< its name outside */

    int64_t no_rope_interval; /**< no_rope_layer_interval; 0: neither this key nor no_rope_layers */
    /** original_max_position_embeddings outside, of a family whose one scaling is longrope; 0: any scaling, with
     * that key inside. */
    int64_t longrope_positions;
    const dpt_rope_params *scaling; /**< rope_parameters without theta; NULL: none */
} dpt_rope_traits;

/** Rotary settings, and which of them each layer has.
 *
 * Local. out has head_dim, layers and max_positions, and with by_type its windows. Errors: in->status.
 */
void dpt_decoder_read_rope(dpt_config *in, const dpt_rope_traits *traits, dpt_arch *out);

/** Append to a text of at most `size` bytes what two architectures rotate differently. Local. */
void dpt_decoder_compare_rope(const dpt_arch *a, const dpt_arch *b, char *text, size_t size);

#endif
