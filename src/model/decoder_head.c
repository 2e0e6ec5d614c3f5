#include "decoder.h"
#include "score.h"

#include "deltapath/nn/cross_entropy.h"
#include "deltapath/nn/linear.h"
#include "deltapath/nn/norm.h"

#include <string.h>

/* Rows of the head: token i is predicted from token i - 1 of its sequence. */
static int64_t list_rows(const dpt_decoder_pass *pass) {
    const dpt_decoder_work *k = pass->work;
    const dpt_batch *batch = pass->call->batch;
    int64_t n = 0;
    for (int64_t s = 0; s < batch->sequences; s++) {
        for (int64_t i = batch->first[s] + 1; i < batch->first[s + 1]; i++) {
            if (!batch->mask[i])
                continue;
            k->rows[n] = i - 1;
            k->row_sequence[n] = s;
            k->targets[n] = batch->tokens[i];
            k->scale[n] = pass->call->weight != NULL ? (float)pass->call->weight[i] : 0.0F;
            n++;
        }
    }
    return n;
}

/* nll of n rows whose logits over this rank's vocabulary are in work->logits. */
static void score_rows(dpt_decoder_pass *pass, int64_t row, int64_t n) {
    const dpt_decoder_work *k = pass->work;
    const dpt_decoder_part *p = &pass->d->part;
    uint8_t *correct = pass->call->correct;
    dpt_score_rows rows = {.n = n,
                           .v = p->v,
                           .begin = p->row_begin,
                           .logits = k->logits,
                           .targets = k->targets + row,
                           .max = k->max + row,
                           .sums = k->sums,
                           .top = k->part, /* free here, and n <= T */
                           .hits = correct != NULL ? k->best + row : NULL};
    double *nll = k->sums + n;
    pass->status = dpt_status_worse(pass->status, dpt_score(&pass->model->group, &rows, nll));
    for (int64_t r = 0; r < n; r++) {
        int64_t token = k->rows[row + r] + 1;
        pass->call->nll[token] = nll[r];
        if (correct != NULL)
            correct[token] = rows.hits[r] != 0;
    }
}

/* Gradient of n rows through the head: d (rows, C) is this rank's share. */
static void backward_rows(dpt_decoder_pass *pass, int64_t row, int64_t n, const float *y,
                          float *d) {
    const dpt_decoder_work *k = pass->work;
    const dpt_decoder_part *p = &pass->d->part;
    int64_t C = pass->d->config.hidden;
    dpt_nn_ce_backward(n, p->v, p->row_begin, k->logits, p->v, k->targets + row, k->max + row,
                       k->sums, k->scale + row);
    dpt_nn_linear_backward_input(n, p->v, C, k->logits, p->v, k->w.head, C, false, d + row * C, C);
    dpt_leave_rows rows =
        dpt_leave_rows_of(n, k->row_sequence + row, k->logits, p->v, y + row * C, C);
    dpt_leave_linear(&pass->leave, pass->d->config.tied ? DPT_DECODER_EMBED : DPT_DECODER_HEAD,
                     rows);
}

/* forward: y = norm(x[rows]); leaves dx of every token, zero where nothing is predicted from it. */
static void backward_norm(dpt_decoder_pass *pass, const float *x, float *d) {
    const dpt_decoder_work *k = pass->work;
    int64_t T = pass->tokens, C = pass->d->config.hidden, R = pass->scored;
    dpt_decoder_sum(pass, d, R * C);
    dpt_leave_rmsnorm(&pass->leave, DPT_DECODER_FINAL_NORM,
                      dpt_leave_rows_of(R, k->row_sequence, d, C, x, C), k->rstd1);
    dpt_nn_rmsnorm_backward_input(R, C, d, C, x, C, k->w.head_norm, k->rstd1, false, d, C);
    memset(k->dx, 0, (size_t)(T * C) * sizeof *k->dx);
    for (int64_t r = 0; r < R; r++)
        memcpy(k->dx + k->rows[r] * C, d + r * C, (size_t)C * sizeof *d);
}

void dpt_decoder_head(dpt_decoder_pass *pass) {
    const dpt_decoder_work *k = pass->work;
    int64_t C = pass->d->config.hidden, v = pass->d->part.v;
    const float *last = dpt_decoder_input(pass, pass->d->config.layers);
    bool backward = pass->call->mode != DPT_BACKWARD_NONE;
    float *x = k->h, *y = k->n1, *d = k->n2; /* (R, C) each: the layers' buffers are free */
    pass->scored = list_rows(pass);
    for (int64_t r = 0; r < pass->scored; r++)
        memcpy(x + r * C, last + k->rows[r] * C, (size_t)C * sizeof *x);
    if (pass->scored > 0)
        dpt_decoder_weights_head(pass);
    dpt_nn_rmsnorm_forward(pass->scored, C, x, C, k->w.head_norm, (float)pass->d->config.rms_eps, y,
                           C, k->rstd1);
    int64_t step = dpt_decoder_head_rows(pass->d, pass->scored);
    for (int64_t row = 0; row < pass->scored; row += step) {
        int64_t n = pass->scored - row < step ? pass->scored - row : step;
        dpt_nn_linear_forward(n, v, C, y + row * C, C, k->w.head, C, NULL, k->logits, v);
        score_rows(pass, row, n);
        if (backward)
            backward_rows(pass, row, n, y, d);
    }
    if (backward)
        backward_norm(pass, x, d);
}
