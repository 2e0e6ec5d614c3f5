#include "score.h"
#include "transformer.h"

#include "deltapath/base/assert.h"
#include "deltapath/nn/cross_entropy.h"

#include <string.h>

static float head_weight(const dpt_pass *pass, int64_t at) {
    return pass->call->weight != NULL ? (float)pass->call->weight[at] : 0.0F;
}

static void head_list_row(dpt_pass *pass, int64_t token, int64_t s, int32_t target, float weight) {
    const dpt_work *k = pass->work;
    int64_t n = pass->scored++;
    k->rows[n] = token;
    k->row_sequence[n] = s;
    k->targets[n] = target;
    k->scale[n] = weight;
}

static bool head_is_pooled(const dpt_pass *pass) {
    return pass->arch->pool != DPT_POOL_CLASS;
}

/* Predictions of the batch: an image is predicted from its class token, token i from token i - 1 of its
 * sequence. */
static void head_list_rows(dpt_pass *pass) {
    const dpt_batch *batch = pass->call->batch;
    pass->scored = 0;
    for (int64_t s = 0; s < pass->sequences; s++) {
        int64_t first = pass->first[s], end = pass->first[s + 1];
        if (batch->images != NULL)
            head_list_row(pass, first, s, batch->labels[s], head_weight(pass, s));
        for (int64_t i = first + 1; batch->images == NULL && i < end; i++)
            if (batch->mask[i])
                head_list_row(pass, i - 1, s, batch->tokens[i], head_weight(pass, i));
    }
}

static int64_t head_score_at(const dpt_pass *pass, int64_t row) {
    const dpt_work *k = pass->work;
    return pass->call->batch->images != NULL ? k->row_sequence[row] : k->rows[row] + 1;
}

/* Labels from the model itself take the place of the batch's. */
static void head_draw(dpt_pass *pass, int64_t row, const dpt_score_rows *rows) {
    const dpt_work *k = pass->work;
    const dpt_model_draw *draw = pass->call->draw;
    int64_t V = pass->arch->length[DPT_AXIS_VOCABULARY], *first = k->best + row;
    for (int64_t r = 0; r < rows->n; r++) {
        int64_t place = draw->place + head_score_at(pass, row + r);
        DPT_ASSERT(place >= 0 && place < INT64_MAX / V);
        first[r] = place * V;
    }
    dpt_status st = dpt_score_draw(&pass->model->group, rows, draw->rng, first, k->targets + row);
    pass->status = dpt_status_worse(pass->status, st);
}

/* nll of n rows whose logits over this rank's vocabulary are in work->logits. */
static void head_score(dpt_pass *pass, int64_t row, int64_t n) {
    const dpt_work *k = pass->work;
    uint8_t *correct = pass->call->correct;
    dpt_score_rows rows = {.n = n,
                           .v = pass->slice->v,
                           .begin = pass->slice->begin[DPT_AXIS_VOCABULARY],
                           .logits = k->logits,
                           .targets = k->targets + row,
                           .max = k->max + row,
                           .sums = k->sums,
                           .top = k->part, /* free here, and n <= T */
                           .hits = correct != NULL ? k->best + row : NULL};
    double *nll = k->sums + n;
    if (pass->call->draw != NULL)
        head_draw(pass, row, &rows);
    pass->status = dpt_status_worse(pass->status, dpt_score(&pass->model->group, &rows, nll));
    for (int64_t r = 0; r < n; r++) {
        int64_t at = head_score_at(pass, row + r);
        pass->call->nll[at] = nll[r];
        if (correct != NULL)
            correct[at] = rows.hits[r] != 0;
    }
}

/* Logits of n rows for the caller, who adds the columns of the other ranks. */
static void head_give(const dpt_pass *pass, int64_t row, int64_t n) {
    const dpt_work *k = pass->work;
    int64_t v = pass->slice->v, begin = pass->slice->begin[DPT_AXIS_VOCABULARY];
    int64_t classes = pass->arch->length[DPT_AXIS_VOCABULARY];
    for (int64_t r = 0; r < n; r++)
        for (int64_t c = 0; c < v; c++)
            pass->call->logits[head_score_at(pass, row + r) * classes + begin + c] =
                (double)k->logits[r * v + c];
}

/* Width of what the head reads. */
static int64_t head_features(const dpt_pass *pass) {
    return head_is_pooled(pass) ? pass->arch->length[DPT_AXIS_FEATURES] : pass->width;
}

/* Logits of n rows of y (n, F): y W^T + b, or z text^T with the embeddings of y. */
static void head_forward(dpt_pass *pass, int64_t row, int64_t n, const float *y) {
    const dpt_work *k = pass->work;
    int64_t F = head_features(pass), v = pass->slice->v;
    int64_t D = pass->arch->length[DPT_AXIS_PROJECTION];
    if (pass->arch->row[DPT_SLOT_TEXT] == NULL) {
        dpt_product_forward(pass, 0, DPT_SLOT_HEAD, DPT_SLOT_HEAD_BIAS, n, y, F, k->logits, v);
        return;
    }
    dpt_head_project(pass, row, n, y);
    dpt_product_forward(pass, 0, DPT_SLOT_TEXT, DPT_SLOTS, n, k->z + row * D, D, k->logits, v);
}

/* Gradient of n rows through the head: dy (n, F) is this rank's share. */
static void head_backward(dpt_pass *pass, int64_t row, int64_t n, const float *y, float *dy) {
    const dpt_work *k = pass->work;
    int64_t F = head_features(pass), v = pass->slice->v;
    int64_t D = pass->arch->length[DPT_AXIS_PROJECTION];
    dpt_nn_ce_backward(n, v, pass->slice->begin[DPT_AXIS_VOCABULARY], (float)pass->arch->logit_cap,
                       k->logits, v, k->targets + row, k->max + row, k->sums, k->scale + row);
    const int64_t *sample = k->row_sequence + row;
    if (pass->arch->row[DPT_SLOT_TEXT] != NULL) {
        dpt_product_backward(pass, 0, DPT_SLOT_TEXT, DPT_SLOTS,
                             dpt_rows_of(n, sample, k->logits, v, k->z + row * D, D),
                             k->dz + row * D, D);
        dpt_head_project_backward(pass, row, n, y, dy);
        return;
    }
    dpt_product_backward(pass, 0, DPT_SLOT_HEAD, DPT_SLOT_HEAD_BIAS,
                         dpt_rows_of(n, sample, k->logits, v, y, F), dy, F);
}

/* y = norm(last[rows]); the rows themselves stay in x for the way back. */
static void head_take_rows(const dpt_pass *pass, const float *last, float *x, float *y) {
    const dpt_work *k = pass->work;
    int64_t C = pass->width;
    for (int64_t r = 0; r < pass->scored; r++)
        memcpy(x + r * C, last + k->rows[r] * C, (size_t)C * sizeof *x);
    dpt_pass_norm(pass, DPT_SLOT_FINAL_NORM, pass->scored, x, y, k->norm1);
}

/* forward: y = norm(x[rows]). dx of every token is zero where nothing is predicted from it. */
static void head_take_rows_backward(const dpt_pass *pass, const float *x, float *d) {
    const dpt_work *k = pass->work;
    int64_t C = pass->width, R = pass->scored;
    dpt_pass_norm_backward(pass, 0, DPT_SLOT_FINAL_NORM,
                           dpt_rows_of(R, k->row_sequence, d, C, x, C), k->norm1, false, d);
    memset(k->dx, 0, (size_t)(pass->tokens * C) * sizeof *k->dx);
    for (int64_t r = 0; r < R; r++)
        memcpy(k->dx + k->rows[r] * C, d + r * C, (size_t)C * sizeof *d);
}

/* Scores of n rows of y, and in d their gradient. */
static void head_run_rows(dpt_pass *pass, int64_t row, int64_t n, const float *y, float *d) {
    const dpt_work *k = pass->work;
    head_forward(pass, row, n, y);
    if (pass->arch->logit_cap > 0.0)
        dpt_nn_ce_cap(n, pass->slice->v, (float)pass->arch->logit_cap, k->logits, pass->slice->v);
    if (pass->call->logits != NULL)
        head_give(pass, row, n);
    head_score(pass, row, n);
    if (pass->call->mode != DPT_BACKWARD_NONE)
        head_backward(pass, row, n, y, d);
}

void dpt_head_run(dpt_pass *pass) {
    const dpt_work *k = pass->work;
    int64_t F = head_features(pass);
    const float *last = dpt_pass_input(pass, pass->arch->layers);
    bool pooled = head_is_pooled(pass);
    /* (R, F) each in the layers' buffers, which are free; pooling takes n1. */
    float *x = k->h, *y = pooled ? k->h : k->n1, *d = k->n2;
    head_list_rows(pass);
    if (pass->scored > 0)
        dpt_weights_form(pass, 0, DPT_SLOTS_HEAD, DPT_SLOTS);
    if (pooled)
        dpt_pool_forward(pass, last, y);
    else
        head_take_rows(pass, last, x, y);
    int64_t step = dpt_work_head_rows(pass->model, pass->scored);
    for (int64_t row = 0; row < pass->scored; row += step) {
        int64_t n = pass->scored - row < step ? pass->scored - row : step;
        head_run_rows(pass, row, n, y + row * F, d + row * F);
    }
    if (pass->call->mode == DPT_BACKWARD_NONE)
        return;
    dpt_pass_sum(pass, d, pass->scored * F);
    if (pooled)
        dpt_pool_backward(pass, last, d);
    else
        head_take_rows_backward(pass, x, d);
}
