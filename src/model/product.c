#include "transformer.h"

/* Products with the weights of a layer: in fp32 by linear.c, or in bf16 by product_bf16.c. */

static bool product_follows(const dpt_pass *pass, dpt_slot weight, int slot) {
    const dpt_row *row = slot < DPT_SLOTS ? pass->arch->row[slot] : NULL;
    return slot == (int)weight || (row != NULL && row->stacked);
}

dpt_product dpt_product_of(const dpt_pass *pass, int64_t layer, dpt_slot weight, dpt_slot bias) {
    const dpt_work *k = pass->work;
    dpt_product out = {.bias = bias < DPT_SLOTS ? k->w[bias] : NULL};
    for (int slot = (int)weight; product_follows(pass, weight, slot); slot++) {
        dpt_product_matrix *matrix = &out.matrices[out.count++];
        const dpt_row *row =
            pass->arch->row[slot]; /* NULL: a tied head, which has its tensor elsewhere */
        bool fixed = row != NULL && row->share == DPT_SHARE_FIXED;
        matrix->index = dpt_pass_index(pass, layer, (dpt_slot)slot);
        matrix->bias = bias < DPT_SLOTS
                           ? dpt_pass_index(pass, layer, (dpt_slot)(bias + slot - (int)weight))
                           : -1;
        matrix->t = fixed ? 0.0 : pass->call->t;
        matrix->fixed = fixed;
        matrix->room = (uint16_t *)(void *)k->w[slot];
        matrix->at = out.N;
        const dpt_param *param = &pass->model->params.items[matrix->index];
        out.N += param->rows;
        out.K = param->cols;
    }
    return out;
}

void dpt_product_forward(const dpt_pass *pass, int64_t layer, dpt_slot weight, dpt_slot bias,
                         int64_t n, const float *x, int64_t ldx, float *y, int64_t ldy) {
    dpt_product p = dpt_product_of(pass, layer, weight, bias);
    if (pass->bf16 != NULL)
        dpt_product_bf16_forward(pass, &p, n, x, ldx, y, ldy);
    else
        dpt_linear_product_forward(pass, &p, n, x, ldx, y, ldy);
}

void dpt_product_backward(const dpt_pass *pass, int64_t layer, dpt_slot weight, dpt_slot bias,
                          dpt_rows rows, float *dx, int64_t lddx) {
    dpt_product p = dpt_product_of(pass, layer, weight, bias);
    for (int i = 0; i < p.count; i++) {
        dpt_rows own = rows;
        own.dy += p.matrices[i].at;
        dpt_accumulate_bias(&pass->to, p.matrices[i].bias, own);
    }
    if (pass->bf16 != NULL)
        dpt_product_bf16_backward(pass, &p, rows, false, dx, lddx);
    else
        dpt_linear_product_backward(pass, &p, rows, false, dx, lddx);
}
