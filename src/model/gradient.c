#include "transformer.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"
#include "deltapath/linalg/reduce.h"
#include "deltapath/tensor/shard.h"

#include <string.h>

enum { GRADIENT_PIECE = 1 << 20 }; /* elements of E formed at a time */

/* Elements of a block that are this rank's to keep the gradient of. */
static int64_t gradient_numel(const dpt_param *param) {
    return dpt_share_numel(param, DPT_SHARE_GRADIENT) > 0 ? param->own_rows * param->cols : 0;
}

/* Ranks of this machine. */
static int gradient_ranks(const dpt_shares *shares) {
    return shares->places[shares->here + 1] - shares->places[shares->here];
}

int64_t dpt_gradient_bytes(const dpt_params *params) {
    const dpt_model_gradient *gradient = NULL;
    const dpt_shares *shares = params->shares;
    int64_t lists = sizeof *gradient->own + sizeof *gradient->numel + sizeof *gradient->to;
    return (int64_t)sizeof *gradient + params->count * lists +
           dpt_shared_bytes(shares->gradient_bytes, gradient_ranks(shares));
}

/* Bytes of the largest unit of all machines, where there are several. */
static int64_t gradient_room_bytes(const dpt_shares *shares) {
    int64_t most = 0;
    for (int unit = 0; unit < shares->units && shares->machines > 1; unit++) {
        int64_t bytes = dpt_shares_unit_bytes(shares, unit, DPT_SHARE_GRADIENT);
        most = bytes > most ? bytes : most;
    }
    return most;
}

static int64_t gradient_turn_bytes(const dpt_params *params) {
    int ranks = gradient_ranks(params->shares);
    return ranks > 1 ? ranks * dpt_gradient_turn_bytes(params) : 0;
}

int64_t dpt_gradient_pass_bytes(const dpt_params *params) {
    const dpt_shares *shares = params->shares;
    int ranks = gradient_ranks(shares);
    int64_t bytes = 0, room = gradient_room_bytes(shares), turns = gradient_turn_bytes(params);
    if (room > 0)
        bytes += dpt_shared_bytes(room, ranks) + DPT_GRADIENT_MESSAGE;
    if (turns > 0)
        bytes += dpt_shared_bytes(turns, ranks);
    return bytes;
}

/* Zeros in what the ranks of the machine have in common, and all see them. */
static void gradient_clear(const dpt_shares *shares, const dpt_shared *shared) {
    int64_t begin, end;
    if (shared->base == NULL)
        return;
    dpt_shard_split(shared->bytes, shares->machine.size, shares->machine.rank, &begin, &end);
    memset((char *)shared->base + begin, 0, (size_t)(end - begin));
    dpt_shared_sync(&shares->machine, shared);
}

static dpt_status gradient_allocate(const dpt_params *params, dpt_model_gradient **out) {
    int count = params->count;
    dpt_model_gradient *gradient = dpt_mem_zalloc(1, sizeof *gradient, "gradient");
    *out = gradient;
    if (gradient == NULL)
        return DPT_ERR_OUTPUT;
    gradient->params = params;
    gradient->count = count;
    gradient->own = dpt_mem_zalloc(count, sizeof *gradient->own, "list of gradients");
    gradient->numel = dpt_mem_zalloc(count, sizeof *gradient->numel, "list of gradients");
    gradient->to = dpt_mem_zalloc(count, sizeof *gradient->to, "list of gradients");
    return gradient->own != NULL && gradient->numel != NULL && gradient->to != NULL
               ? DPT_OK
               : DPT_ERR_OUTPUT;
}

/* Where the rows of this rank lie, and where a single machine adds to. */
static void gradient_place_blocks(dpt_model_gradient *gradient) {
    const dpt_params *params = gradient->params;
    const dpt_shares *shares = params->shares;
    for (int s = 0; s < shares->units * DPT_SHARE_KINDS; s++) {
        const dpt_share_section *section = &shares->sections[s];
        char *base = dpt_gradient_held(gradient, section);
        for (int at = section->first; at < section->first + section->count; at++) {
            int i = shares->order[at];
            const dpt_param *param = &params->items[i];
            float *block = (float *)(void *)(base + shares->offset[DPT_SHARE_GRADIENT][at]);
            gradient->numel[i] = gradient_numel(param);
            if (gradient->numel[i] > 0)
                gradient->own[i] = block + param->own_row * param->cols;
            if (shares->machines == 1 && dpt_share_numel(param, DPT_SHARE_GRADIENT) > 0)
                gradient->to[i] = block;
        }
    }
}

dpt_status dpt_model_gradient_create(const dpt_model *model, dpt_model_gradient **out) {
    const dpt_params *params = &model->params;
    const dpt_shares *shares = params->shares;
    dpt_status st = gradient_allocate(params, out);
    st = dpt_agree(&model->replicas, dpt_agree(&model->group, st));
    if (st == DPT_OK) {
        st =
            dpt_shared_create(&shares->machine, shares->gradient_bytes, "gradients", &(*out)->held);
        st = dpt_agree(&model->replicas, dpt_agree(&model->group, st));
    }
    if (st == DPT_OK) {
        gradient_place_blocks(*out);
        gradient_clear(shares, &(*out)->held);
        return DPT_OK;
    }
    dpt_model_gradient_destroy(*out);
    *out = NULL;
    return st;
}

void dpt_model_gradient_destroy(dpt_model_gradient *gradient) {
    if (gradient == NULL)
        return;
    dpt_shared_destroy(&gradient->held);
    dpt_mem_free(gradient->own);
    dpt_mem_free(gradient->numel);
    dpt_mem_free(gradient->to);
    dpt_mem_free(gradient);
}

int dpt_model_gradient_count(const dpt_model_gradient *gradient) {
    return gradient->count;
}

float *dpt_model_gradient_rows(const dpt_model_gradient *gradient, int i, int64_t *numel) {
    *numel = gradient->numel[i];
    return gradient->own[i];
}

dpt_status dpt_gradient_begin(dpt_model_gradient *gradient) {
    const dpt_shares *shares = gradient->params->shares;
    int64_t room = gradient_room_bytes(shares), turns = gradient_turn_bytes(gradient->params);
    dpt_status st = DPT_OK;
    gradient->step = 0;
    if (room > 0)
        st = dpt_shared_create(&shares->machine, room, "gradients of a layer", &gradient->room);
    if (st == DPT_OK && room > 0) {
        gradient->message = dpt_mem_alloc(DPT_GRADIENT_MESSAGE, 1, "message of a gradient");
        st = gradient->message != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    }
    st = dpt_agree(&shares->replicas, st);
    if (st == DPT_OK && turns > 0)
        st = dpt_shared_create(&shares->machine, turns, "turns of ranks", &gradient->turns);
    st = dpt_agree(&shares->replicas, st);
    if (st == DPT_OK) {
        gradient_clear(shares, &gradient->room);
        gradient_clear(shares, &gradient->turns);
        dpt_shared_sync(&shares->machine, &gradient->held); /* what the ranks have put into it */
    }
    return st;
}

void dpt_gradient_end(dpt_model_gradient *gradient) {
    if (gradient->held.base != NULL)
        dpt_shared_sync(&gradient->params->shares->machine, &gradient->held);
    dpt_shared_destroy(&gradient->room);
    dpt_shared_destroy(&gradient->turns);
    dpt_mem_free(gradient->message);
    gradient->message = NULL;
}

void dpt_gradient_enter(dpt_model_gradient *gradient, int unit) {
    const dpt_params *params = gradient->params;
    const dpt_shares *shares = params->shares;
    if (shares->machines == 1)
        return;
    int list[DPT_SHARE_SECTIONS], n = dpt_shares_sections(shares, unit, list);
    char *base = gradient->room.base;
    for (int k = 0; k < n; k++) {
        const dpt_share_section *section = &shares->sections[list[k]];
        for (int at = section->first; at < section->first + section->count; at++) {
            char *block = base + shares->offset[DPT_SHARE_GRADIENT][at];
            int i = shares->order[at];
            bool any = dpt_share_numel(&params->items[i], DPT_SHARE_GRADIENT) > 0;
            gradient->to[i] = any ? (float *)(void *)block : NULL;
        }
        base += dpt_share_up(section->bytes[DPT_SHARE_GRADIENT]);
    }
}

void dpt_gradient_leave(dpt_model_gradient *gradient, int unit) {
    const dpt_shares *shares = gradient->params->shares;
    int begin, end;
    dpt_shares_blocks(shares, unit, &begin, &end);
    for (int at = begin; at < end; at++)
        dpt_gradient_finish(gradient, shares->order[at]);
    if (unit == shares->units - 1)
        dpt_gradient_finish(gradient, gradient->count); /* the part of a tied head */
    if (shares->machines > 1)
        dpt_gradient_exchange(gradient, unit);
}

void dpt_gradient_next(dpt_model_gradient *gradient) {
    gradient->step++;
}

dpt_param dpt_gradient_part(const dpt_param *param) {
    dpt_param part = *param;
    part.row += param->own_row;
    part.rows = param->own_rows;
    part.post = param->own[DPT_VALUES_POST];
    part.edit = param->own[DPT_VALUES_EDIT];
    return part;
}

/* <grad, E> over the rows of this rank. */
static double gradient_dot_rows(const dpt_param *part, const float *grad, int64_t first, float *e) {
    int64_t numel = part->rows * part->cols;
    double dot = 0.0;
    for (int64_t at = 0; at < numel; at += GRADIENT_PIECE) {
        int64_t n = numel - at < GRADIENT_PIECE ? numel - at : GRADIENT_PIECE;
        dpt_param_delta_part(part, first, at, n, e);
        dot += dpt_reduce_dot(grad + at, e, n);
    }
    return dot;
}

dpt_status dpt_model_gradient_dot(const dpt_model *model, const dpt_model_gradient *gradient,
                                  double *terms) {
    if (!model->bound)
        return dpt_error(DPT_ERR_INTERNAL, "model: terms need an edit: bind one first");
    float *e = dpt_mem_alloc(GRADIENT_PIECE, sizeof *e, "piece of an edit");
    if (e == NULL)
        return DPT_ERR_OUTPUT;
    memset(terms, 0, (size_t)dpt_model_columns(model) * sizeof *terms);
    for (int i = 0; i < gradient->count; i++) {
        const dpt_param *param = &model->params.items[i];
        if (gradient->own[i] == NULL || !param->has_delta)
            continue;
        dpt_param part = dpt_gradient_part(param);
        double dot = gradient_dot_rows(&part, gradient->own[i], param->own_row * param->cols, e);
        terms[param->tensor] += dot;
        if (param->matrix >= 0)
            terms[model->catalog.count + param->matrix] += dot;
    }
    dpt_mem_free(e);
    return DPT_OK;
}

dpt_status dpt_gradient_count_held(const dpt_model *model, const dpt_model_gradient *gradient,
                                   int64_t *held) {
    int tensors = model->catalog.count;
    for (int i = 0; i < gradient->count; i++)
        if (gradient->own[i] != NULL)
            held[model->params.items[i].tensor] += gradient->numel[i];
    dpt_status st = dpt_comm_sum_i64(&model->group, held, tensors);
    return dpt_status_worse(st, dpt_comm_sum_i64(&model->replicas, held, tensors));
}

/* The part of some rows that falls into a run. */
static void gradient_place(const dpt_param *part, const float *from, dpt_range range, float *out) {
    dpt_param_cut cut = {.line = -1};
    while (dpt_param_next_cut(part, range, &cut)) {
        dpt_param_line line = cut.part;
        float *to = out + (line.ig - range.ig);
        if (line.step == 1 && line.stride == 1)
            memcpy(to, from + line.at, (size_t)line.n * sizeof *to);
        else
            for (int64_t i = 0; i < line.n; i++)
                to[i * line.stride] = from[line.at + i * line.step];
    }
}

dpt_status dpt_model_gradient_range(const dpt_model *model, const dpt_model_gradient *gradient,
                                    dpt_range range, float *out) {
    const dpt_params *params = &model->params;
    DPT_ASSERT_SAME(&model->group, range.tensor);
    DPT_ASSERT_SAME(&model->group, range.ig);
    DPT_ASSERT_SAME(&model->group, range.n);
    memset(out, 0, (size_t)range.n * sizeof *out);
    for (int i = params->first[range.tensor]; i >= 0; i = params->items[i].next)
        if (gradient->own[i] != NULL) {
            dpt_param part = dpt_gradient_part(&params->items[i]);
            gradient_place(&part, gradient->own[i], range, out);
        }
    dpt_status st = dpt_comm_sum_f32(&model->group, out, range.n);
    st = dpt_status_worse(st, dpt_comm_sum_f32(&model->replicas, out, range.n));
    return dpt_agree(&model->replicas, dpt_agree(&model->group, st));
}
