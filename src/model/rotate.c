#include "transformer.h"

/* dpt_nn_rope_forward or dpt_nn_rope_backward. */
typedef void (*rotate_fn)(int64_t n_seq, const int64_t *offsets, int64_t heads, int64_t head_dim,
                          int64_t half, const float *cos, const float *sin, float *x, int64_t ldx);

void dpt_rotate_fill(const dpt_rope_params *rope, int64_t n, const dpt_rotary *table) {
    int is_long = dpt_nn_rope_is_long(rope, n);
    dpt_nn_rope_inv_freq(rope, n, table->inv_freq);
    dpt_nn_rope_table(n, table->half, table->inv_freq, (float)dpt_nn_rope_scale(rope),
                      table->cos[is_long], table->sin[is_long]);
}

/* The length of a sequence can choose the frequencies, so that each is turned by itself: a sequence has the same
 * loss in any batch. */
static void rotate_layer(const dpt_pass *pass, int64_t layer, rotate_fn rotate, float *x,
                         int64_t ld) {
    const dpt_arch *arch = pass->arch;
    int setting = arch->rope_of != NULL ? arch->rope_of[layer] : 0;
    if (setting < 0 || arch->rope[setting].dim == 0)
        return;
    const dpt_rope_params *rope = &arch->rope[setting];
    const dpt_rotary *table = &pass->work->rotary[setting];
    for (int64_t s = 0; s < pass->sequences; s++) {
        int64_t n = pass->first[s + 1] - pass->first[s];
        int is_long = dpt_nn_rope_is_long(rope, n);
        if (is_long && rope->kind == DPT_ROPE_DYNAMIC)
            dpt_rotate_fill(rope, n, table);
        rotate(1, pass->first + s, pass->slice->heads + pass->slice->kv_heads, arch->head_dim,
               table->half, table->cos[is_long], table->sin[is_long], x, ld);
    }
}

void dpt_rotate_forward(const dpt_pass *pass, int64_t layer, float *qk, int64_t ld) {
    rotate_layer(pass, layer, dpt_nn_rope_forward, qk, ld);
}

void dpt_rotate_backward(const dpt_pass *pass, int64_t layer, float *dqk, int64_t ld) {
    rotate_layer(pass, layer, dpt_nn_rope_backward, dqk, ld);
}
