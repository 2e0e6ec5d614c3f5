#include "transformer.h"

#include "deltapath/nn/linear.h"
#include "deltapath/nn/mlp.h"
#include "deltapath/nn/route.h"

#include <string.h>

/* Each rank has some experts whole. The tokens of an expert are gathered, some rows at a time, so that memory grows
 * with neither the experts nor what they take; its weights are formed when it is its turn. */

/* Tokens of one expert, next to each other. */
typedef struct experts_piece {
    int64_t expert, n;
    const int64_t *choice; /* (n) token * used + place among the token's choices, rising */
} experts_piece;

enum { PARALLEL_MIN = 1 << 16 };

typedef void (*experts_run_fn)(dpt_pass *pass, int64_t layer, const experts_piece *piece,
                               const float *n, const float *dy, float *out);

static int64_t experts_token(const dpt_pass *pass, const experts_piece *piece, int64_t row) {
    return piece->choice[row] / pass->arch->experts.used;
}

static int64_t experts_units(const dpt_pass *pass) {
    return pass->arch->length[DPT_AXIS_EXPERT_UNITS];
}

static int experts_index(const dpt_pass *pass, int64_t layer, const experts_piece *piece,
                         dpt_slot slot) {
    return dpt_arch_index_expert(pass->arch, layer, slot, piece->expert);
}

static void experts_gather(const dpt_pass *pass, const experts_piece *piece, const float *from,
                           float *to) {
    int64_t C = pass->width;
#pragma omp parallel for schedule(static) if (piece->n * C > PARALLEL_MIN)
    for (int64_t i = 0; i < piece->n; i++)
        memcpy(to + i * C, from + experts_token(pass, piece, i) * C, (size_t)C * sizeof *to);
}

/* to[token] += from[row]; a token has one row at most. */
static void experts_scatter(const dpt_pass *pass, const experts_piece *piece, const float *from,
                            float *to) {
    int64_t C = pass->width;
#pragma omp parallel for schedule(static) if (piece->n * C > PARALLEL_MIN)
    for (int64_t i = 0; i < piece->n; i++) {
        float *row = to + experts_token(pass, piece, i) * C;
#pragma omp simd
        for (int64_t c = 0; c < C; c++)
            row[c] += from[i * C + c];
    }
}

/* Each rank computes the logits of its own experts: were all computed everywhere, processors of two kinds could round
 * them differently, and a token whose best experts are close could be taken twice or by nobody. */
static void experts_score(dpt_pass *pass, const float *n) {
    const dpt_work *k = pass->work;
    int64_t C = pass->width, E = pass->arch->experts.count, begin = pass->slice->expert_begin;
    const float *bias = k->w[DPT_SLOT_ROUTER_BIAS];
    memset(k->route.logits, 0, (size_t)(pass->tokens * E) * sizeof *k->route.logits);
    dpt_nn_linear_forward(pass->tokens, pass->slice->expert_end - begin, C, n, C,
                          k->w[DPT_SLOT_ROUTER] + begin * C, C, bias != NULL ? bias + begin : NULL,
                          k->route.logits + begin, E);
    dpt_pass_sum(pass, k->route.logits, pass->tokens * E);
}

/* Each token's choice and its weights, and the choices of the experts here. */
static void experts_route(dpt_pass *pass, const float *n) {
    const dpt_work *k = pass->work;
    const dpt_slice *p = pass->slice;
    const dpt_arch_experts *experts = &pass->arch->experts;
    int64_t T = pass->tokens, E = experts->count;
    experts_score(pass, n);
    dpt_nn_route_forward(experts->kind, T, E, experts->used, k->route.logits, E, k->route.chosen,
                         k->route.weight);
    dpt_nn_route_list(T * experts->used, k->route.chosen, p->expert_begin, p->expert_end,
                      k->route.first, k->route.choice);
}

/* Other replicas may go on with an expert that has no more tokens here. */
static void experts_finish(const dpt_pass *pass, int64_t layer, int64_t expert) {
    for (int slot = DPT_SLOTS_LAYER; slot < DPT_SLOTS_HEAD; slot++) {
        const dpt_row *row = pass->arch->row[slot];
        if (row != NULL && row->expert)
            dpt_accumulate_finish(&pass->to,
                                  dpt_arch_index_expert(pass->arch, layer, (dpt_slot)slot, expert));
    }
}

/* Call `run` for the tokens of each expert of this rank. */
static void experts_each(dpt_pass *pass, int64_t layer, experts_run_fn run, const float *n,
                         const float *dy, float *out) {
    const dpt_work *k = pass->work;
    const dpt_slice *p = pass->slice;
    for (int64_t e = p->expert_begin; e < p->expert_end; e++) {
        const int64_t *range = k->route.first + (e - p->expert_begin);
        if (range[0] < range[1])
            dpt_weights_form_expert(pass, layer, e);
        for (int64_t at = range[0]; at < range[1]; at += k->route.rows) {
            int64_t left = range[1] - at;
            experts_piece piece = {.expert = e,
                                   .n = left < k->route.rows ? left : k->route.rows,
                                   .choice = k->route.choice + at};
            run(pass, layer, &piece, n, dy, out);
        }
        if (dy != NULL)
            experts_finish(pass, layer, e);
    }
}

/* x = rows of n; m = act(gate) up of x, or act(up). */
static void experts_inner(const dpt_pass *pass, int64_t layer, const experts_piece *piece,
                          const float *n) {
    const dpt_work *k = pass->work;
    int64_t R = piece->n, C = pass->width, f = experts_units(pass);
    experts_gather(pass, piece, n, k->route.x);
    dpt_linear_forward(pass, experts_index(pass, layer, piece, DPT_SLOT_GATE), R, k->route.x, C,
                       k->w[DPT_SLOT_GATE_BIAS], k->route.hidden, 2 * f);
    dpt_linear_forward(pass, experts_index(pass, layer, piece, DPT_SLOT_UP), R, k->route.x, C,
                       k->w[DPT_SLOT_UP_BIAS], k->route.hidden + f, 2 * f);
    dpt_nn_gated_forward(pass->arch->act, (float)pass->arch->act_limit, R, f, k->route.hidden,
                         2 * f, k->route.hidden + f, 2 * f, k->route.m, f);
}

static void experts_weigh(int64_t n, float weight, float *x) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        x[i] *= weight;
}

/* y = weight y of each token. */
static void experts_weigh_rows(const dpt_pass *pass, const experts_piece *piece) {
    const dpt_work *k = pass->work;
    int64_t C = pass->width;
#pragma omp parallel for schedule(static) if (piece->n * C > PARALLEL_MIN)
    for (int64_t i = 0; i < piece->n; i++)
        experts_weigh(C, k->route.weight[piece->choice[i]], k->route.y + i * C);
}

static double experts_dot(int64_t n, const float *x, const float *y) {
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)y[i];
    return sum;
}

/* out += weight (m Wd^T + b) of each token. */
static void experts_forward_piece(dpt_pass *pass, int64_t layer, const experts_piece *piece,
                                  const float *n, const float *dy, float *out) {
    const dpt_work *k = pass->work;
    int64_t R = piece->n, C = pass->width, f = experts_units(pass);
    (void)dy;
    experts_inner(pass, layer, piece, n);
    dpt_linear_forward(pass, experts_index(pass, layer, piece, DPT_SLOT_DOWN), R, k->route.m, f,
                       k->w[DPT_SLOT_DOWN_BIAS], k->route.y, C);
    experts_weigh_rows(pass, piece);
    experts_scatter(pass, piece, k->route.y, out);
}

void dpt_experts_forward(dpt_pass *pass, int64_t layer, const float *n, float *out) {
    memset(out, 0, (size_t)(pass->tokens * pass->width) * sizeof *out);
    experts_route(pass, n);
    experts_each(pass, layer, experts_forward_piece, n, NULL, out);
}

/* forward: y = x W^T + b. dx (+)= gradient of x. */
static void experts_linear_backward(const dpt_pass *pass, int64_t layer, const experts_piece *piece,
                                    dpt_slot weight, dpt_slot bias, dpt_rows rows, bool add,
                                    float *dx) {
    int index = experts_index(pass, layer, piece, weight);
    dpt_accumulate_bias(&pass->to, experts_index(pass, layer, piece, bias), rows);
    dpt_linear_backward(pass, index, rows, add, dx, rows.ldx);
}

/* forward: y = weight v, v = m Wd^T + b. Of dv = weight dy in the place of y and dm = dv Wd: dweight = dy . v
 * = (dm . m + dv . b) / weight. A token that an expert is given without any weight moves nothing. */
static void experts_weigh_backward(const dpt_pass *pass, const experts_piece *piece) {
    const dpt_work *k = pass->work;
    int64_t C = pass->width, f = experts_units(pass);
    const float *bias = k->w[DPT_SLOT_DOWN_BIAS];
#pragma omp parallel for schedule(static) if (piece->n * f > PARALLEL_MIN)
    for (int64_t i = 0; i < piece->n; i++) {
        float weight = k->route.weight[piece->choice[i]];
        double slope = experts_dot(f, k->route.dm + i * f, k->route.m + i * f);
        slope += bias != NULL ? experts_dot(C, k->route.y + i * C, bias) : 0.0;
        k->route.dweight[piece->choice[i]] = weight > 0.0F ? (float)(slope / (double)weight) : 0.0F;
    }
}

/* forward: y = weight (m Wd^T + b); m = act(g) u; [g u] = x Win^T. out += gradient of x of each token. */
static void experts_backward_piece(dpt_pass *pass, int64_t layer, const experts_piece *piece,
                                   const float *n, const float *dy, float *out) {
    const dpt_work *k = pass->work;
    int64_t R = piece->n, C = pass->width, f = experts_units(pass);
    float *g = k->route.hidden, *u = g + f;
    for (int64_t i = 0; i < R; i++)
        k->route.sample[i] = k->sequence[experts_token(pass, piece, i)];
    experts_inner(pass, layer, piece, n);
    experts_gather(pass, piece, dy, k->route.y);
    experts_weigh_rows(pass, piece);
    experts_linear_backward(pass, layer, piece, DPT_SLOT_DOWN, DPT_SLOT_DOWN_BIAS,
                            dpt_rows_of(R, k->route.sample, k->route.y, C, k->route.m, f), false,
                            k->route.dm);
    experts_weigh_backward(pass, piece);
    dpt_nn_gated_backward(pass->arch->act, (float)pass->arch->act_limit, R, f, k->route.dm, f, g,
                          2 * f, u, 2 * f, g, u);
    experts_linear_backward(pass, layer, piece, DPT_SLOT_GATE, DPT_SLOT_GATE_BIAS,
                            dpt_rows_of(R, k->route.sample, g, 2 * f, k->route.x, C), false,
                            k->route.y);
    experts_linear_backward(pass, layer, piece, DPT_SLOT_UP, DPT_SLOT_UP_BIAS,
                            dpt_rows_of(R, k->route.sample, u, 2 * f, k->route.x, C), true,
                            k->route.y);
    experts_scatter(pass, piece, k->route.y, out);
}

/* forward: logits = n Wr^T + b. The first rank, which alone counts the router, adds to the gradient of n. */
static void experts_route_backward(dpt_pass *pass, int64_t layer, const float *n, float *dn) {
    const dpt_work *k = pass->work;
    const dpt_arch_experts *experts = &pass->arch->experts;
    int64_t T = pass->tokens, C = pass->width, E = experts->count;
    dpt_pass_sum(pass, k->route.dweight, T * experts->used);
    dpt_nn_route_backward(experts->kind, T, E, experts->used, k->route.logits, E, k->route.chosen,
                          k->route.weight, k->route.dweight, k->route.dlogits, E);
    dpt_pass_accumulate(pass, layer, DPT_SLOT_ROUTER, DPT_SLOT_ROUTER_BIAS,
                        dpt_pass_rows(pass, k->route.dlogits, E, n, C));
    if (pass->slice->first)
        dpt_nn_linear_backward_input(T, E, C, k->route.dlogits, E, k->w[DPT_SLOT_ROUTER], C, true,
                                     dn, C);
}

void dpt_experts_backward(dpt_pass *pass, int64_t layer, const float *n, const float *dy,
                          float *dn) {
    const dpt_work *k = pass->work;
    memset(dn, 0, (size_t)(pass->tokens * pass->width) * sizeof *dn);
    memset(k->route.dweight, 0,
           (size_t)(pass->tokens * pass->arch->experts.used) * sizeof *k->route.dweight);
    experts_route(pass, n);
    experts_each(pass, layer, experts_backward_piece, n, dy, dn);
    experts_route_backward(pass, layer, n, dn);
}
