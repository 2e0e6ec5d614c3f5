#include "vit.h"

#include "deltapath/nn/linear.h"
#include "deltapath/nn/norm.h"

#include <string.h>

/* This rank's elements of every patch: row (image, patch), column (channel, y, x) of the kernel. */
static void gather_pixels(const dpt_vit_pass *pass) {
    const dpt_vit_config *c = &pass->v->config;
    const dpt_vit_part *p = &pass->v->part;
    int64_t across = c->side / c->patch, area = c->side * c->side;
#pragma omp parallel for schedule(static) if (pass->images * c->patches * p->k > 1 << 16)
    for (int64_t row = 0; row < pass->images * c->patches; row++) {
        int64_t at = row % c->patches;
        const float *corner = pass->call->batch->images + row / c->patches * c->channels * area +
                              (at / across * c->side + at % across) * c->patch;
        for (int64_t k = 0; k < p->k; k++) {
            int64_t e = p->pixel_begin + k, in = e % (c->patch * c->patch);
            pass->work->pixels[row * p->k + k] =
                corner[e / (c->patch * c->patch) * area + in / c->patch * c->side + in % c->patch];
        }
    }
}

/* Row 0 of each image is the class token, the others its patches; the first rank adds positions. */
static void place_tokens(const dpt_vit_pass *pass, const float *patches, float *x) {
    const dpt_vit_config *c = &pass->v->config;
    const dpt_vit_weights *w = &pass->work->w;
    int64_t C = c->hidden;
    for (int64_t s = 0; s < pass->images; s++) {
        float *image = x + s * c->positions * C;
        if (w->class_token != NULL)
            memcpy(image, w->class_token, (size_t)C * sizeof *x);
        else
            memset(image, 0, (size_t)C * sizeof *x);
        memcpy(image + C, patches + s * c->patches * C, (size_t)(c->patches * C) * sizeof *x);
        for (int64_t i = 0; w->position != NULL && i < c->positions * C; i++)
            image[i] += w->position[i];
    }
}

void dpt_vit_embed(dpt_vit_pass *pass, float *x) {
    const dpt_vit_config *c = &pass->v->config;
    const dpt_vit_work *k = pass->work;
    int64_t C = c->hidden, elements = pass->v->part.k;
    float *to = c->family->text_head ? k->embedded : x;
    dpt_vit_weights_embedding(pass);
    gather_pixels(pass);
    dpt_nn_linear_forward(pass->images * c->patches, C, elements, k->pixels, elements, k->w.patch,
                          elements, k->w.patch_bias, k->part, C);
    place_tokens(pass, k->part, to);
    dpt_vit_sum(pass, to, pass->tokens * C);
    if (c->family->text_head)
        dpt_nn_layernorm_forward(pass->tokens, C, to, C, k->w.pre_norm, k->w.pre_norm_bias,
                                 (float)c->eps, x, C, k->mean0, k->rstd0);
}

/* forward: e = sum over ranks of [class; pixels Wp^T + b] + position; x = norm(e) or e. dx holds the
 * gradient of x. */
void dpt_vit_embed_backward(const dpt_vit_pass *pass) {
    const dpt_vit_config *c = &pass->v->config;
    const dpt_vit_work *k = pass->work;
    int64_t T = pass->tokens, C = c->hidden, image = c->positions * C;
    if (c->family->text_head) {
        dpt_vit_weights_embedding(pass);
        dpt_leave_layernorm(&pass->leave, DPT_VIT_PRE_NORM, DPT_VIT_PRE_NORM_BIAS,
                            dpt_leave_rows_of(T, k->image_of, k->dx, C, k->embedded, C), k->mean0,
                            k->rstd0);
        dpt_nn_layernorm_backward_input(T, C, k->dx, C, k->embedded, C, k->w.pre_norm, k->mean0,
                                        k->rstd0, false, k->dx, C);
    }
    dpt_leave_rows images = dpt_leave_rows_of(pass->images, k->itself, k->dx, image, NULL, 0);
    dpt_leave_bias(&pass->leave, DPT_VIT_POSITION, images);
    dpt_leave_bias(&pass->leave, DPT_VIT_CLASS, images);
    for (int64_t s = 0; s < pass->images; s++)
        memcpy(k->part + s * c->patches * C, k->dx + s * image + C,
               (size_t)(c->patches * C) * sizeof *k->part);
    dpt_leave_rows patches = dpt_leave_rows_of(pass->images * c->patches, k->image_of_patch,
                                               k->part, C, k->pixels, pass->v->part.k);
    dpt_leave_linear(&pass->leave, DPT_VIT_PATCH, patches);
    dpt_leave_bias(&pass->leave, DPT_VIT_PATCH_BIAS, patches);
}
