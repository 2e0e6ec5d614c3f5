#include "transformer.h"

/* Setting of the layer's rotation; NULL: none. */
static const dpt_rotary *rotate_tables(const dpt_pass *pass, int64_t layer) {
    const dpt_arch *arch = pass->arch;
    int setting = arch->rope_of != NULL ? arch->rope_of[layer] : 0;
    return setting >= 0 && arch->rope[setting].dim > 0 ? &pass->work->rotary[setting] : NULL;
}

void dpt_rotate_forward(const dpt_pass *pass, int64_t layer, float *qk, int64_t ld) {
    const dpt_rotary *table = rotate_tables(pass, layer);
    if (table != NULL)
        dpt_nn_rope_forward(pass->sequences, pass->first, pass->slice->heads + pass->slice->kv_heads,
                            pass->arch->head_dim, table->half, table->cos, table->sin, qk, ld);
}

void dpt_rotate_backward(const dpt_pass *pass, int64_t layer, float *dqk, int64_t ld) {
    const dpt_rotary *table = rotate_tables(pass, layer);
    if (table != NULL)
        dpt_nn_rope_backward(pass->sequences, pass->first,
                             pass->slice->heads + pass->slice->kv_heads, pass->arch->head_dim,
                             table->half, table->cos, table->sin, dqk, ld);
}
