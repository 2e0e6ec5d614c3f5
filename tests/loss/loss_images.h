#ifndef DELTAPATH_TESTS_LOSS_IMAGES_H
#define DELTAPATH_TESTS_LOSS_IMAGES_H

/* A golden model of tokens or of images, by the name of its file, with its edit bound and its loss. */
#include "support/golden_image.h"

#include "loss/loss_golden.h"

typedef struct golden_case {
    const char *name;
    bool image;
    golden_image in;
    loss_fixture f;
} golden_case;

static inline dpt_status golden_case_read(void *ctx, int64_t first, int64_t n, float *out) {
    const golden_case *c = ctx;
    dpt_model_image image;
    dpt_model_get_image(c->f.model, &image);
    int64_t pixels = image.channels * image.height * image.width;
    memcpy(out, c->in.images + first * pixels, (size_t)(n * pixels) * sizeof *out);
    return DPT_OK;
}

static inline void golden_case_open(golden_case *c, int size, int64_t batch) {
    dpt_model_image image;
    c->image = strncmp(c->name, "vit/", 4) == 0;
    if (c->image)
        golden_image_load(c->name + 4, &c->in);
    else
        golden_load(strchr(c->name, '/') + 1, &c->in.g);
    golden_model *g = &c->in.g;
    loss_fixture_open(&c->f, g, NULL, size);
    dpt_lm_data tokens = {
        .samples = g->samples, .offsets = g->offsets, .tokens = g->token, .loss_mask = g->mask};
    if (!dpt_model_get_image(c->f.model, &image)) {
        assert_int_equal(dpt_loss_lm_create(&tokens, dpt_model_vocabulary(c->f.model),
                                            dpt_model_max_positions(c->f.model), &c->f.mesh, batch,
                                            &c->f.loss),
                         DPT_OK);
        return;
    }
    dpt_class_data images = {.samples = g->samples,
                             .channels = image.channels,
                             .height = image.height,
                             .width = image.width,
                             .labels = c->in.labels,
                             .ctx = c,
                             .read = golden_case_read};
    assert_int_equal(dpt_loss_class_create(&images, &image, &c->f.mesh, batch, &c->f.loss), DPT_OK);
}

static inline void golden_case_close(golden_case *c) {
    loss_fixture_close(&c->f);
    if (c->image)
        golden_image_free(&c->in);
    else
        golden_free(&c->in.g);
}

#endif
