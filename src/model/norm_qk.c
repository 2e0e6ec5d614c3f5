#include "transformer.h"

#include "deltapath/nn/norm.h"

#include <string.h>

/* One RMSNorm over the queries of all heads and one over the keys: the sums of a token's row go over the ranks. */

/* The part of a row that is normed: queries or keys. */
typedef struct qk_columns {
    dpt_slot slot;
    int64_t at, n; /* columns here */
    int64_t own;   /* of these the first, which no later rank has too */
    int64_t total; /* columns of all ranks */
    double *sum;   /* (T) */
    float *rstd;   /* (T) */
} qk_columns;

static void qk_list(const dpt_pass *pass, qk_columns out[2]) {
    const dpt_work *k = pass->work;
    const dpt_slice *p = pass->slice;
    const dpt_arch *arch = pass->arch;
    int64_t T = pass->tokens, group = arch->heads / arch->kv_heads;
    bool shared =
        (p->first_head + p->heads) % group != 0; /* the last key-value head, with the next rank */
    out[0] = (qk_columns){.slot = DPT_SLOT_Q_NORM,
                          .n = p->q,
                          .own = p->q,
                          .total = arch->length[DPT_AXIS_HEADS],
                          .sum = k->sums,
                          .rstd = k->qk_rstd};
    out[1] = (qk_columns){.slot = DPT_SLOT_K_NORM,
                          .at = p->q,
                          .n = p->kv,
                          .own = p->kv - (shared && p->kv > 0 ? arch->head_dim : 0),
                          .total = arch->length[DPT_AXIS_KV_HEADS],
                          .sum = k->sums + T,
                          .rstd = k->qk_rstd + T};
}

static void qk_sum(dpt_pass *pass) {
    dpt_status st = dpt_comm_sum_f64(&pass->model->group, pass->work->sums, 2 * pass->tokens);
    pass->status = dpt_status_worse(pass->status, st);
}

/* What goes into the norms, for the backward pass. */
static void qk_keep(const dpt_pass *pass) {
    const dpt_work *k = pass->work;
    int64_t T = pass->tokens, n = pass->slice->q + pass->slice->kv, ld = pass->slice->qkv;
#pragma omp parallel for schedule(static) if (T * n > 1 << 16)
    for (int64_t t = 0; t < T; t++)
        memcpy(k->raw + t * n, k->qkv + t * ld, (size_t)n * sizeof *k->raw);
}

void dpt_norm_qk_forward(dpt_pass *pass) {
    const dpt_work *k = pass->work;
    int64_t T = pass->tokens, ld = pass->slice->qkv;
    qk_columns parts[2];
    qk_list(pass, parts);
    qk_keep(pass);
    memset(k->sums, 0, (size_t)(2 * T) * sizeof *k->sums);
    for (int i = 0; i < 2; i++)
        dpt_nn_rmsnorm_squares(T, parts[i].own, k->qkv + parts[i].at, ld, parts[i].sum);
    qk_sum(pass);
    for (int i = 0; i < 2; i++)
        dpt_nn_rmsnorm_scale(T, parts[i].n, parts[i].total, parts[i].sum, (float)pass->arch->eps,
                             k->qkv + parts[i].at, ld, k->w[parts[i].slot], k->qkv + parts[i].at,
                             ld, parts[i].rstd);
}

/* forward: y = w x rstd, of x in raw. dqkv holds the gradient of y on entry and that of x on return. */
void dpt_norm_qk_backward(dpt_pass *pass, int64_t layer) {
    const dpt_work *k = pass->work;
    int64_t T = pass->tokens, ld = pass->slice->qkv, ldx = pass->slice->q + pass->slice->kv;
    qk_columns parts[2];
    qk_list(pass, parts);
    memset(k->sums, 0, (size_t)(2 * T) * sizeof *k->sums);
    for (int i = 0; i < 2; i++)
        dpt_nn_rmsnorm_dots(T, parts[i].n, k->dqkv + parts[i].at, ld, k->raw + parts[i].at, ldx,
                            k->w[parts[i].slot], parts[i].sum);
    qk_sum(pass);
    for (int i = 0; i < 2; i++) {
        const qk_columns *q = &parts[i];
        dpt_accumulate_norm(&pass->to, dpt_pass_index(pass, layer, q->slot), -1,
                            dpt_pass_rows(pass, k->dqkv + q->at, ld, k->raw + q->at, ldx), NULL,
                            q->rstd);
        dpt_nn_rmsnorm_backward_scale(T, q->n, q->own, q->total, q->sum, k->dqkv + q->at, ld,
                                      k->raw + q->at, ldx, k->w[q->slot], q->rstd, k->dqkv + q->at,
                                      ld);
    }
}
