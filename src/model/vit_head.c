#include "score.h"
#include "vit.h"

#include "deltapath/nn/cross_entropy.h"
#include "deltapath/nn/linear.h"
#include "deltapath/nn/norm.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* forward: z = y P^T, summed over the ranks' columns, then divided by its length. */
static void project(dpt_vit_pass *pass) {
    const dpt_vit_work *k = pass->work;
    const dpt_vit_part *p = &pass->v->part;
    int64_t C = pass->v->config.hidden, D = pass->v->config.projection;
    dpt_nn_linear_forward(pass->images, D, p->p, k->y + p->in_begin, C, k->w.head, p->p, NULL, k->z,
                          D);
    dpt_vit_sum(pass, k->z, pass->images * D);
    for (int64_t s = 0; s < pass->images; s++) {
        float *z = k->z + s * D;
        double squares = 0.0;
        for (int64_t i = 0; i < D; i++)
            squares += (double)z[i] * z[i];
        k->length[s] = fmaxf((float)sqrt(squares), FLT_MIN);
        for (int64_t i = 0; i < D; i++)
            z[i] /= k->length[s];
    }
}

/* forward: z = u / |u|, u = y P^T. dz holds the gradient of z; leaves d, that of y. */
static void project_backward(dpt_vit_pass *pass) {
    const dpt_vit_work *k = pass->work;
    const dpt_vit_part *p = &pass->v->part;
    int64_t n = pass->images, C = pass->v->config.hidden, D = pass->v->config.projection;
    dpt_vit_sum(pass, k->dz, n * D);
    for (int64_t s = 0; s < n; s++) {
        const float *z = k->z + s * D;
        float *dz = k->dz + s * D;
        double along = 0.0;
        for (int64_t i = 0; i < D; i++)
            along += (double)z[i] * dz[i];
        for (int64_t i = 0; i < D; i++)
            dz[i] = (dz[i] - z[i] * (float)along) / k->length[s];
    }
    dpt_leave_linear(&pass->leave, DPT_VIT_HEAD,
                     dpt_leave_rows_of(n, k->itself, k->dz, D, k->y + p->in_begin, C));
    memset(k->d, 0, (size_t)(n * C) * sizeof *k->d);
    dpt_nn_linear_backward_input(n, D, p->p, k->dz, D, k->w.head, p->p, false, k->d + p->in_begin,
                                 C);
}

/* nll of the images whose logits over this rank's classes are in work->logits. */
static void score(dpt_vit_pass *pass) {
    const dpt_vit_work *k = pass->work;
    const dpt_vit_part *p = &pass->v->part;
    uint8_t *correct = pass->call->correct;
    dpt_score_rows rows = {.n = pass->images,
                           .v = p->v,
                           .begin = p->class_begin,
                           .logits = k->logits,
                           .targets = pass->call->batch->labels,
                           .max = k->max,
                           .sums = k->sums,
                           .top = k->top,
                           .hits = correct != NULL ? k->best : NULL};
    dpt_status st = dpt_score(&pass->model->group, &rows, pass->call->nll);
    pass->status = dpt_status_worse(pass->status, st);
    for (int64_t s = 0; correct != NULL && s < pass->images; s++)
        correct[s] = rows.hits[s] != 0;
}

/* forward: y = norm(class token); logits = y W^T + b, or z text^T. Leaves dx, zero but for the class
 * tokens. */
static void backward(dpt_vit_pass *pass) {
    const dpt_vit_work *k = pass->work;
    const dpt_vit_config *c = &pass->v->config;
    const dpt_vit_part *p = &pass->v->part;
    int64_t n = pass->images, C = c->hidden, D = c->projection;
    for (int64_t s = 0; s < n; s++)
        k->scale[s] = (float)pass->call->weight[s];
    dpt_nn_ce_backward(n, p->v, p->class_begin, k->logits, p->v, pass->call->batch->labels, k->max,
                       k->sums, k->scale);
    if (c->family->text_head) {
        dpt_nn_linear_backward_input(n, p->v, D, k->logits, p->v, k->w.text, D, false, k->dz, D);
        project_backward(pass);
    } else {
        dpt_leave_rows rows = dpt_leave_rows_of(n, k->itself, k->logits, p->v, k->y, C);
        dpt_leave_linear(&pass->leave, DPT_VIT_HEAD, rows);
        dpt_leave_bias(&pass->leave, DPT_VIT_HEAD_BIAS, rows);
        dpt_nn_linear_backward_input(n, p->v, C, k->logits, p->v, k->w.head, C, false, k->d, C);
    }
    dpt_vit_sum(pass, k->d, n * C);
    dpt_leave_layernorm(&pass->leave, DPT_VIT_POST_NORM, DPT_VIT_POST_NORM_BIAS,
                        dpt_leave_rows_of(n, k->itself, k->d, C, k->cls, C), k->mean2, k->rstd2);
    dpt_nn_layernorm_backward_input(n, C, k->d, C, k->cls, C, k->w.post_norm, k->mean2, k->rstd2,
                                    false, k->d, C);
    memset(k->dx, 0, (size_t)(pass->tokens * C) * sizeof *k->dx);
    for (int64_t s = 0; s < n; s++)
        memcpy(k->dx + s * c->positions * C, k->d + s * C, (size_t)C * sizeof *k->dx);
}

void dpt_vit_head(dpt_vit_pass *pass) {
    const dpt_vit_work *k = pass->work;
    const dpt_vit_config *c = &pass->v->config;
    const dpt_vit_part *p = &pass->v->part;
    int64_t n = pass->images, C = c->hidden, D = c->projection;
    const float *last = dpt_vit_input(pass, c->layers);
    dpt_vit_weights_head(pass);
    for (int64_t s = 0; s < n; s++)
        memcpy(k->cls + s * C, last + s * c->positions * C, (size_t)C * sizeof *k->cls);
    dpt_nn_layernorm_forward(n, C, k->cls, C, k->w.post_norm, k->w.post_norm_bias, (float)c->eps,
                             k->y, C, k->mean2, k->rstd2);
    if (c->family->text_head) {
        project(pass);
        dpt_nn_linear_forward(n, p->v, D, k->z, D, k->w.text, D, NULL, k->logits, p->v);
    } else {
        dpt_nn_linear_forward(n, p->v, C, k->y, C, k->w.head, C, k->w.head_bias, k->logits, p->v);
    }
    score(pass);
    if (pass->call->mode != DPT_BACKWARD_NONE)
        backward(pass);
}
