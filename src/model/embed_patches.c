#include "transformer.h"

#include "deltapath/nn/linear.h"
#include "deltapath/nn/norm.h"

#include <string.h>

static int64_t patches_pixels(const dpt_pass *pass) {
    return pass->slice->end[DPT_AXIS_PIXELS] - pass->slice->begin[DPT_AXIS_PIXELS];
}

/* This rank's elements of every patch: row (image, patch), column (channel, y, x) of the kernel. */
static void patches_gather_pixels(const dpt_pass *pass) {
    const dpt_arch *arch = pass->arch;
    int64_t side = arch->side, patch = arch->length[DPT_AXIS_PATCH], across = side / patch;
    int64_t channels = arch->length[DPT_AXIS_CHANNELS], n = patches_pixels(pass);
#pragma omp parallel for schedule(static) if (pass->sequences * arch->patches * n > 1 << 16)
    for (int64_t row = 0; row < pass->sequences * arch->patches; row++) {
        int64_t at = row % arch->patches;
        const float *corner = pass->call->batch->images +
                              row / arch->patches * channels * side * side +
                              (at / across * side + at % across) * patch;
        for (int64_t k = 0; k < n; k++) {
            int64_t e = pass->slice->begin[DPT_AXIS_PIXELS] + k, in = e % (patch * patch);
            pass->work->pixels[row * n + k] =
                corner[e / (patch * patch) * side * side + in / patch * side + in % patch];
        }
    }
}

/* Tokens of an image before its patches: [class; registers]. */
static int64_t patches_before(const dpt_arch *arch) {
    return arch->image_tokens - arch->patches;
}

/* How many of these have a position: the class token, where there is one. */
static int64_t patches_class_tokens(const dpt_arch *arch) {
    return arch->row[DPT_SLOT_CLASS] != NULL ? 1 : 0;
}

static void patches_add(int64_t n, const float *a, float *sum) {
    for (int64_t i = 0; i < n; i++)
        sum[i] += a[i];
}

/* [class; registers; patches] of each image; the first rank, which alone has the others, adds positions. */
static void patches_place(const dpt_pass *pass, const float *patches, float *x) {
    const float *class_token = pass->work->w[DPT_SLOT_CLASS];
    const float *registers = pass->work->w[DPT_SLOT_REGISTERS];
    const float *position = pass->work->w[DPT_SLOT_POSITION];
    int64_t C = pass->width, count = pass->arch->patches, before = patches_before(pass->arch);
    int64_t class_tokens = patches_class_tokens(pass->arch);
    for (int64_t s = 0; s < pass->sequences; s++) {
        float *image = x + pass->first[s] * C;
        memset(image, 0, (size_t)(before * C) * sizeof *x);
        if (class_token != NULL)
            memcpy(image, class_token, (size_t)C * sizeof *x);
        if (registers != NULL)
            memcpy(image + class_tokens * C, registers,
                   (size_t)((before - class_tokens) * C) * sizeof *x);
        memcpy(image + before * C, patches + s * count * C, (size_t)(count * C) * sizeof *x);
        if (position != NULL) {
            patches_add(class_tokens * C, position, image);
            patches_add(count * C, position + class_tokens * C, image + before * C);
        }
    }
}

void dpt_embed_patches(dpt_pass *pass, float *x) {
    const dpt_work *k = pass->work;
    int64_t C = pass->width, n = patches_pixels(pass);
    bool norm = pass->arch->row[DPT_SLOT_EMBED_NORM] != NULL;
    float *to = norm ? k->embedded : x;
    dpt_weights_form(pass, 0, DPT_SLOTS_EMBED, DPT_SLOTS_LAYER);
    patches_gather_pixels(pass);
    dpt_product_forward(pass, 0, DPT_SLOT_PATCH, DPT_SLOT_PATCH_BIAS,
                        pass->sequences * pass->arch->patches, k->pixels, n, k->part, C);
    patches_place(pass, k->part, to);
    dpt_pass_sum(pass, to, pass->tokens * C);
    if (norm)
        dpt_pass_norm(pass, DPT_SLOT_EMBED_NORM, pass->tokens, to, x, k->embed_norm);
}

/* Positions, class token and registers, whose gradients are rows of the image's. */
static void patches_backward_tokens(const dpt_pass *pass) {
    const dpt_work *k = pass->work;
    const dpt_arch *arch = pass->arch;
    int64_t C = pass->width, S = pass->sequences, ld = arch->image_tokens * C;
    int64_t class_tokens = patches_class_tokens(arch), before = patches_before(arch);
    int64_t positions =
        (class_tokens + arch->patches) * C; /* without the registers, which have none */
    for (int64_t s = 0; s < S; s++) {
        memcpy(k->part + s * positions, k->dx + s * ld,
               (size_t)(class_tokens * C) * sizeof *k->part);
        memcpy(k->part + s * positions + class_tokens * C, k->dx + s * ld + before * C,
               (size_t)(arch->patches * C) * sizeof *k->part);
    }
    /* One row an image, whose predictions the head has numbered in order. */
    dpt_accumulate_bias(&pass->to, dpt_pass_index(pass, 0, DPT_SLOT_POSITION),
                        dpt_rows_of(S, k->row_sequence, k->part, positions, NULL, 0));
    dpt_accumulate_bias(&pass->to, dpt_pass_index(pass, 0, DPT_SLOT_CLASS),
                        dpt_rows_of(S, k->row_sequence, k->dx, ld, NULL, 0));
    dpt_accumulate_bias(&pass->to, dpt_pass_index(pass, 0, DPT_SLOT_REGISTERS),
                        dpt_rows_of(S, k->row_sequence, k->dx + class_tokens * C, ld, NULL, 0));
}

/* Gradient of the patches' rows, which lie between the other tokens. */
static void patches_backward(const dpt_pass *pass) {
    const dpt_work *k = pass->work;
    int64_t C = pass->width, count = pass->arch->patches;
    for (int64_t s = 0; s < pass->sequences; s++) {
        memcpy(k->part + s * count * C, k->dx + (pass->first[s] + patches_before(pass->arch)) * C,
               (size_t)(count * C) * sizeof *k->part);
        for (int64_t i = 0; i < count; i++)
            k->image_of_patch[s * count + i] = s;
    }
    dpt_rows rows = dpt_rows_of(pass->sequences * count, k->image_of_patch, k->part, C, k->pixels,
                                patches_pixels(pass));
    dpt_product_backward(pass, 0, DPT_SLOT_PATCH, DPT_SLOT_PATCH_BIAS, rows, NULL, 0);
}

/* forward: e = sum over ranks of [class; registers; pixels Wp^T + b] + position; x = norm(e) or e. dx holds the
 * gradient of x. */
void dpt_embed_patches_backward(const dpt_pass *pass) {
    const dpt_work *k = pass->work;
    if (pass->arch->row[DPT_SLOT_EMBED_NORM] != NULL) {
        int64_t C = pass->width;
        dpt_weights_form(pass, 0, DPT_SLOTS_EMBED, DPT_SLOTS_LAYER);
        dpt_rows rows = dpt_rows_of(pass->tokens, k->sequence, k->dx, C, k->embedded, C);
        dpt_pass_norm_backward(pass, 0, DPT_SLOT_EMBED_NORM, rows, k->embed_norm, false, k->dx);
    }
    patches_backward_tokens(pass);
    patches_backward(pass);
}
