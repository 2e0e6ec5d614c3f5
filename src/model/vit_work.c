#include "vit.h"

#include "deltapath/base/mem.h"
#include "deltapath/nn/linear.h"

#include <omp.h>

static int64_t most(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* The room of the MLP's activations takes the gradients of the attention when these are free. */
static void lay_out_inner(const dpt_vit_part *p, int64_t T, char *base, int64_t *used,
                          dpt_vit_work *w) {
    int64_t size = (int64_t)sizeof(float);
    int64_t mlp = 0, attention = 0;
    char *room = base != NULL ? base + *used : NULL;
    w->a = dpt_work_take(room, &mlp, T * p->f, size);
    w->m = dpt_work_take(room, &mlp, T * p->f, size);
    w->dm = dpt_work_take(room, &mlp, T * p->f, size);
    w->dqkv = dpt_work_take(room, &attention, T * 3 * p->q, size);
    w->d_o = dpt_work_take(room, &attention, T * p->q, size);
    *used += most(mlp, attention);
}

static void lay_out_head(const dpt_vit *v, int64_t images, char *base, int64_t *used,
                         dpt_vit_work *w) {
    const dpt_vit_config *c = &v->config;
    int64_t size = (int64_t)sizeof(float);
    w->cls = dpt_work_take(base, used, images * c->hidden, size);
    w->y = dpt_work_take(base, used, images * c->hidden, size);
    w->d = dpt_work_take(base, used, images * c->hidden, size);
    w->z = dpt_work_take(base, used, images * c->projection, size);
    w->dz = dpt_work_take(base, used, images * c->projection, size);
    w->length = dpt_work_take(base, used, images, size);
    w->logits = dpt_work_take(base, used, images * v->part.v, size);
    w->max = dpt_work_take(base, used, images, size);
    w->scale = dpt_work_take(base, used, images, size);
    w->top = dpt_work_take(base, used, images, size);
    w->sums = dpt_work_take(base, used, 2 * images, sizeof(double));
    w->best = dpt_work_take(base, used, images, sizeof(int64_t));
    w->itself = dpt_work_take(base, used, images, sizeof(int64_t));
}

static void lay_out_norms(int64_t T, char *base, int64_t *used, dpt_vit_work *w) {
    float **const rows[] = {&w->mean0, &w->rstd0, &w->mean1, &w->rstd1, &w->mean2, &w->rstd2};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        *rows[i] = dpt_work_take(base, used, T, (int64_t)sizeof(float));
}

/* Pointers into base; @return the bytes. With base NULL only counts. */
static int64_t lay_out(const dpt_vit *v, int64_t images, bool backward, char *base,
                       dpt_vit_work *w) {
    const dpt_vit_config *c = &v->config;
    const dpt_vit_part *p = &v->part;
    int64_t used = 0, size = (int64_t)sizeof(float), T = images * c->positions, C = c->hidden;
    int64_t widest = most(most(most(C, p->q), most(p->f, p->k)), p->p);
    dpt_attention_shape shape = {
        .n = c->positions, .hq = p->heads, .threads = omp_get_max_threads()};
    w->pixels = dpt_work_take(base, &used, images * c->patches * p->k, size);
    w->embedded = dpt_work_take(base, &used, c->family->text_head ? T * C : 0, size);
    w->x = dpt_work_take(base, &used, T * C * (backward ? c->layers + 1 : 1), size);
    w->dx = dpt_work_take(base, &used, backward ? T * C : 0, size);
    w->n1 = dpt_work_take(base, &used, T * C, size);
    w->n2 = dpt_work_take(base, &used, T * C, size);
    w->h = dpt_work_take(base, &used, T * C, size);
    w->part = dpt_work_take(base, &used, T * C, size);
    w->qkv = dpt_work_take(base, &used, T * 3 * p->q, size);
    w->o = dpt_work_take(base, &used, T * p->q, size);
    w->lse = dpt_work_take(base, &used, T * p->heads, size);
    lay_out_norms(T, base, &used, w);
    lay_out_inner(p, T, base, &used, w);
    lay_out_head(v, images, base, &used, w);
    w->attention = dpt_work_take(base, &used, (int64_t)dpt_nn_attention_scratch(&shape), size);
    w->products =
        dpt_work_take(base, &used, (int64_t)dpt_nn_linear_terms_scratch(T, INT32_MAX), size);
    w->e = dpt_work_take(base, &used,
                         backward ? dpt_leave_delta_floats(widest, c->positions * C) : 0, size);
    w->arena = dpt_work_take(base, &used, dpt_vit_arena(v), size);
    w->term = dpt_work_take(base, &used, T, sizeof(double));
    w->image_of = dpt_work_take(base, &used, T, sizeof(int64_t));
    w->image_of_patch = dpt_work_take(base, &used, images * c->patches, sizeof(int64_t));
    return used;
}

int64_t dpt_vit_work_bytes(const dpt_vit *v, int64_t images, bool backward) {
    dpt_vit_work w;
    return lay_out(v, images, backward, NULL, &w);
}

static void number_rows(const dpt_vit_config *c, dpt_vit_work *w) {
    for (int64_t s = 0; s < w->images; s++)
        w->itself[s] = s;
    for (int64_t i = 0; i < w->images * c->positions; i++)
        w->image_of[i] = i / c->positions;
    for (int64_t i = 0; i < w->images * c->patches; i++)
        w->image_of_patch[i] = i / c->patches;
}

dpt_status dpt_vit_work_reserve(dpt_vit *v, int64_t images, bool backward) {
    dpt_vit_work *w = &v->work;
    if (w->base != NULL && images <= w->images && (w->backward || !backward))
        return DPT_OK;
    images = most(images, w->images);
    backward = backward || w->backward;
    dpt_vit_work_release(w);
    w->base = dpt_mem_alloc(dpt_vit_work_bytes(v, images, backward), 1,
                            "activations and weights of a layer");
    if (w->base == NULL)
        return DPT_ERR_OUTPUT;
    w->images = images;
    w->backward = backward;
    lay_out(v, images, backward, w->base, w);
    dpt_vit_weights_place(v, w->arena, &w->w);
    number_rows(&v->config, w);
    return DPT_OK;
}

void dpt_vit_work_release(dpt_vit_work *work) {
    dpt_mem_free(work->base);
    *work = (dpt_vit_work){.base = NULL};
}
