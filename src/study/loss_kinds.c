#include "loss_kinds.h"

#include <math.h>

static dpt_lm_data lm_view(const dpt_inputs *in, int d) {
    const dpt_dataset *set = &in->data[d];
    return (dpt_lm_data){set->sequences, set->offsets, set->tokens, set->loss_mask};
}

static dpt_status lm_create(const dpt_inputs *in, int d, const dpt_loss_limits *limits,
                            const dpt_mesh *mesh, int64_t batch_tokens, dpt_loss **out) {
    dpt_lm_data view = lm_view(in, d);
    return dpt_loss_lm_create(&view, limits->vocabulary, limits->positions, mesh, batch_tokens,
                              out);
}

static dpt_status lm_check(const dpt_inputs *in, int d, const dpt_loss_limits *limits) {
    dpt_lm_data view = lm_view(in, d);
    return dpt_loss_lm_check(&view, limits->vocabulary, limits->positions);
}

static dpt_dpo_data dpo_view(const dpt_inputs *in, int d) {
    return (dpt_dpo_data){.pairs = lm_view(in, d), .beta = in->job->data[d].beta};
}

static dpt_status dpo_create(const dpt_inputs *in, int d, const dpt_loss_limits *limits,
                             const dpt_mesh *mesh, int64_t batch_tokens, dpt_loss **out) {
    dpt_dpo_data view = dpo_view(in, d);
    return dpt_loss_dpo_create(&view, limits->vocabulary, limits->positions, mesh, batch_tokens,
                               out);
}

static dpt_status dpo_check(const dpt_inputs *in, int d, const dpt_loss_limits *limits) {
    dpt_dpo_data view = dpo_view(in, d);
    return dpt_loss_dpo_check(&view, limits->vocabulary, limits->positions);
}

static dpt_status class_read_images(void *ctx, int64_t first, int64_t n, float *out) {
    return dpt_dataset_read_images(ctx, first, n, out);
}

static dpt_class_data class_view(const dpt_inputs *in, int d) {
    dpt_dataset *set = &in->data[d];
    return (dpt_class_data){.samples = set->samples,
                            .channels = set->channels,
                            .height = set->height,
                            .width = set->width,
                            .labels = set->labels,
                            .ctx = set,
                            .read = class_read_images};
}

static dpt_status class_create(const dpt_inputs *in, int d, const dpt_loss_limits *limits,
                               const dpt_mesh *mesh, int64_t batch_tokens, dpt_loss **out) {
    dpt_class_data view = class_view(in, d);
    return dpt_loss_class_create(&view, &limits->image, mesh, batch_tokens, out);
}

static dpt_status class_check(const dpt_inputs *in, int d, const dpt_loss_limits *limits) {
    dpt_class_data view = class_view(in, d);
    return dpt_loss_class_check(&view, &limits->image);
}

/* All tokens alike. */
static double lm_guess(const dpt_loss_limits *limits) {
    return log((double)limits->vocabulary);
}

/* No preference: the margin is 0, as of the reference itself. */
static double dpo_guess(const dpt_loss_limits *limits) {
    (void)limits;
    return log(2.0);
}

/* All classes alike. */
static double class_guess(const dpt_loss_limits *limits) {
    return log((double)limits->image.classes);
}

static const dpt_loss_reference dpo_reference = {
    .numbers = 2, .measure = dpt_loss_dpo_measure, .set = dpt_loss_dpo_set_reference};

static const dpt_loss_kind kinds[DPT_LOSS_COUNT] = {
    [DPT_LOSS_LM] = {.data = DPT_DATASET_TOKENS,
                     .create = lm_create,
                     .guess = lm_guess,
                     .check = lm_check},
    [DPT_LOSS_DPO] = {.data = DPT_DATASET_PAIRS,
                      .reference = &dpo_reference,
                      .create = dpo_create,
                      .guess = dpo_guess,
                      .check = dpo_check},
    [DPT_LOSS_CLASS] = {.data = DPT_DATASET_IMAGES,
                        .image = true,
                        .create = class_create,
                        .guess = class_guess,
                        .check = class_check},
};

const dpt_loss_kind *dpt_loss_kind_of(dpt_job_loss loss) {
    return &kinds[loss];
}
