#include "deltapath/tensor/paired.h"

/* Where a tensor comes from, and its number there. */
static const dpt_source *paired_choose(const dpt_paired *paired, int *tensor) {
    int partner = paired->pre_of[*tensor];
    if (partner < 0)
        return &paired->post;
    *tensor = partner;
    return &paired->pre;
}

static dpt_status paired_read(void *ctx, dpt_range range, void *out) {
    const dpt_source *source = paired_choose(ctx, &range.tensor);
    return source->read(source->ctx, range, out);
}

/* Each block may come from either model, and goes to it whole: the model merges the reads of its rows. */
static dpt_status paired_fetch(void *ctx, int64_t count, const dpt_block *wants,
                               void *const *outs) {
    dpt_status st = DPT_OK;
    for (int64_t i = 0; i < count && st == DPT_OK; i++) {
        dpt_block want = wants[i];
        const dpt_source *source = paired_choose(ctx, &want.tensor);
        st = source->fetch(source->ctx, 1, &want, &outs[i]);
    }
    return st;
}

dpt_source dpt_paired_source(dpt_paired *paired) {
    return (dpt_source){.ctx = paired,
                        .catalog = paired->catalog,
                        .independent = true,
                        .read = paired_read,
                        .fetch = paired_fetch};
}
