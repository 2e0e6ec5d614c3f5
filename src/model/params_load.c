#include "shares.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/stop.h"
#include "deltapath/tensor/columns.h"

#include <inttypes.h>
#include <string.h>

enum {
    LOAD_CHUNK = 1 << 13, /* elements compared at a time */
    LOAD_TILE = 32        /* side of what is transposed at a time: it stays in the L1 cache */
};

/* The rows that this rank loads of one run of a block, as a block of the tensor. Its columns hold those elements and, where
 * they are further apart than one, what lies between. */
typedef struct load_piece {
    dpt_param *param;
    dpt_block block;
    int64_t row, rows; /* of the rows that this rank loads */
    int64_t size;      /* bytes of an element */
    int64_t shift;     /* column of the first element */
    int64_t apart;     /* columns from one element to the next */
    bool turned;       /* rows of the block are columns of the param */
    bool staged;       /* fetched into room of its own and brought in order from there */
    int room;          /* piece that the room belongs to: another's when it has the same block */
    int64_t place;     /* bytes from the start of all room */
} load_piece;

/* What one fetch brings: the blocks of a unit. */
typedef struct load_plan {
    int count;
    load_piece *pieces;
    int64_t room_bytes; /* of what is staged */
    char *room;
    dpt_block *blocks; /* (count) those that are fetched, and where to */
    void **outs;
} load_plan;

static int64_t load_runs(const dpt_layout *layout) {
    return (layout->rows + layout->run - 1) / layout->run;
}

static int64_t load_clip(int64_t value, int64_t low, int64_t high) {
    return value < low ? low : value > high ? high : value;
}

/* The piece of run number `run` of the matrix, which may have no rows. Where both allow it the elements between two
 * of a row are taken on both sides, so that matrices which alternate in a tensor have the same block. */
static load_piece load_piece_of(dpt_param *param, int64_t run, int64_t numel) {
    const dpt_layout *l = &param->layout;
    int64_t begin = param->row + param->own_row, end = begin + param->own_rows;
    int64_t first = run * l->run;
    int64_t low = load_clip(first, begin, end), high = load_clip(first + l->run, begin, end);
    bool turned = dpt_layout_is_turned(l);
    load_piece piece = {.param = param,
                        .row = low - begin,
                        .rows = high - low,
                        .turned = turned,
                        .apart = turned ? l->row_stride : l->col_stride};
    int64_t lines = turned ? param->cols : high - low, length = turned ? high - low : param->cols;
    int64_t distance = turned ? l->col_stride : l->row_stride;
    int64_t ig = length > 0 && lines > 0 ? dpt_layout_place(l, low, param->col)
                                         : dpt_layout_place(l, first, 0);
    bool even = numel % piece.apart == 0 && (l->cols == 1 || distance % piece.apart == 0);
    int64_t width = even || length == 0 ? length * piece.apart : (length - 1) * piece.apart + 1;
    piece.shift = even ? ig % piece.apart : 0;
    piece.staged = piece.apart > 1 || (turned && l->cols > 1);
    piece.block = (dpt_block){.tensor = param->tensor,
                              .ig = ig - piece.shift,
                              .rows = lines,
                              .cols = width,
                              .stride = lines == 1 && !param->columns ? width : distance};
    return piece;
}

static bool load_same_block(const dpt_block *a, const dpt_block *b) {
    return a->ig == b->ig && a->rows == b->rows && a->cols == b->cols && a->stride == b->stride;
}

/* Give a staged piece its room. Ranks that make one fetch together must not share room each for themselves. */
static void load_find_room(load_plan *plan, int i) {
    load_piece *piece = &plan->pieces[i];
    piece->room = i;
    for (int k = i - 1; k >= 0 && piece->staged && !piece->param->columns; k--) {
        const load_piece *other = &plan->pieces[k];
        if (other->param->tensor != piece->param->tensor)
            break;
        if (other->staged && !other->param->columns &&
            load_same_block(&other->block, &piece->block)) {
            piece->room = other->room;
            piece->place = other->place;
            return;
        }
    }
    if (piece->staged) {
        piece->place = plan->room_bytes;
        plan->room_bytes += dpt_share_up(piece->block.rows * piece->block.cols * piece->size);
    }
}

/* The next block of a unit, those of a tensor one after the other; *at is 0 before the first. @return NULL: none. */
static dpt_param *load_next(const dpt_params *params, int unit, int *at, dpt_param *before) {
    const dpt_shares *shares = params->shares;
    int begin, end;
    dpt_shares_blocks(shares, unit, &begin, &end);
    if (before != NULL && before->next >= 0)
        return &params->items[before->next];
    for (; *at < end - begin; (*at)++) {
        int i = shares->order[begin + *at], tensor = params->items[i].tensor;
        if (tensor >= 0 && params->first[tensor] == i) {
            (*at)++;
            return &params->items[i];
        }
    }
    return NULL;
}

static bool load_wants(const dpt_params *params, dpt_param *param, int64_t run, load_piece *piece) {
    *piece = load_piece_of(param, run, params->catalog->tensors[param->tensor].numel);
    return param->columns || (piece->rows > 0 && param->cols > 0);
}

/* Pieces of all blocks of a unit; those of columns are there also when this rank has none of them. */
static dpt_status load_plan_create(const dpt_params *params, int unit, const dpt_catalog *types,
                                   load_plan *out) {
    *out = (load_plan){.count = 0};
    int64_t count = 0;
    int at = 0;
    load_piece piece;
    for (dpt_param *p = NULL; (p = load_next(params, unit, &at, p)) != NULL;)
        for (int64_t run = 0; run < load_runs(&p->layout); run++)
            count += load_wants(params, p, run, &piece);
    out->pieces = dpt_mem_alloc(count, sizeof *out->pieces, "blocks of a layer");
    out->blocks = dpt_mem_alloc(count, sizeof *out->blocks, "blocks of a layer");
    out->outs = dpt_mem_alloc(count, sizeof *out->outs, "blocks of a layer");
    if (out->pieces == NULL || out->blocks == NULL || out->outs == NULL)
        return DPT_ERR_OUTPUT;
    at = 0;
    for (dpt_param *p = NULL; (p = load_next(params, unit, &at, p)) != NULL;)
        for (int64_t run = 0; run < load_runs(&p->layout); run++)
            if (load_wants(params, p, run, &piece)) {
                piece.size = dpt_dtype_size(types->tensors[p->tensor].dtype);
                out->pieces[out->count] = piece;
                load_find_room(out, out->count++);
            }
    return DPT_OK;
}

static void load_plan_destroy(load_plan *plan) {
    dpt_mem_free(plan->pieces);
    dpt_mem_free(plan->blocks);
    dpt_mem_free(plan->outs);
    dpt_mem_free(plan->room);
}

dpt_status dpt_params_loading_bytes(const dpt_params *params, int64_t *bytes) {
    dpt_status st = DPT_OK;
    *bytes = 0;
    for (int unit = 0; unit < params->shares->units && st == DPT_OK; unit++) {
        load_plan plan;
        st = load_plan_create(params, unit, params->catalog, &plan);
        *bytes = plan.room_bytes > *bytes ? plan.room_bytes : *bytes;
        load_plan_destroy(&plan);
    }
    return st;
}

/* Whether E has any value but 0 in the rows of this rank. */
static bool load_differs(const dpt_param *param) {
    int64_t n = param->own_rows * param->cols;
    const char *own_post = param->own[DPT_VALUES_POST], *own_edit = param->own[DPT_VALUES_EDIT];
    if (param->direct) {
        const float *e =
            param->own[DPT_VALUES_EDIT]; /* in fp32, which load_check_same has seen to */
        while (n > 0 && e[n - 1] == 0.0F)
            n--;
        return n > 0;
    }
    if (param->post_type == param->edit_type)
        return memcmp(own_post, own_edit, (size_t)(n * dpt_dtype_size(param->post_type))) != 0;
    float post[LOAD_CHUNK], edit[LOAD_CHUNK];
    for (int64_t at = 0; at < n; at += LOAD_CHUNK) {
        int64_t part = n - at < LOAD_CHUNK ? n - at : LOAD_CHUNK;
        dpt_dtype_to_f32(param->post_type, own_post + at * dpt_dtype_size(param->post_type), post,
                         part);
        dpt_dtype_to_f32(param->edit_type, own_edit + at * dpt_dtype_size(param->edit_type), edit,
                         part);
        for (int64_t i = 0; i < part; i++)
            if (post[i] != edit[i])
                return true;
    }
    return false;
}

/* One call of dpt_params_load. */
typedef struct load_call {
    const dpt_comm *group;
    const dpt_source *source;
    dpt_params *params;
    dpt_params_kind kind;
    dpt_values values;
} load_call;

static dpt_status load_agree(const load_call *call, dpt_status st) {
    return dpt_agree(&call->params->shares->replicas, dpt_agree(call->group, st));
}

static dpt_status load_check_finite(const load_call *call, const dpt_param *param) {
    bool edited = call->values == DPT_VALUES_EDIT;
    int64_t at = dpt_dtype_find_nonfinite(edited ? param->edit_type : param->post_type,
                                          param->own[call->values], param->own_rows * param->cols);
    if (at < 0)
        return DPT_OK;
    return dpt_error(DPT_ERR_INPUT,
                     "model: tensor %s: element %" PRId64
                     " is not a finite number: fix the weights",
                     call->source->catalog->tensors[param->tensor].name,
                     dpt_param_place(param, param->own_row + at / param->cols, at % param->cols));
}

/* The types of the values. */
static dpt_status load_find_types(const load_call *call) {
    dpt_status st = DPT_OK;
    for (int i = 0; i < call->params->count; i++) {
        dpt_param *param = &call->params->items[i];
        if (dpt_param_numel(param) == 0)
            continue;
        const dpt_tensor_info *info = &call->source->catalog->tensors[param->tensor];
        if (st == DPT_OK && !dpt_dtype_editable(info->dtype))
            st = dpt_error(DPT_ERR_INPUT,
                           "model: tensor %s has the type %s: F32, F16 or BF16 is needed",
                           info->name, dpt_dtype_name(info->dtype));
        if (call->values == DPT_VALUES_EDIT)
            param->edit_type = info->dtype;
        else
            param->post_type = info->dtype;
    }
    return st;
}

static char *load_block_of(const load_call *call, const dpt_param *param) {
    return param->own[call->values];
}

/* Where a piece is fetched to; NULL when it is empty. */
static void *load_target(const load_call *call, const load_plan *plan, const load_piece *piece) {
    if (piece->block.rows * piece->block.cols == 0)
        return NULL;
    if (piece->staged)
        return plan->room + piece->place;
    return load_block_of(call, piece->param) + piece->row * piece->param->cols * piece->size;
}

/* A tile of a staged piece. Each of its elements is of `size` bytes, a constant where this is inlined. */
static inline void load_order_tile(const load_piece *piece, const char *from, char *to, size_t size,
                                   int64_t line, int64_t lines, int64_t at, int64_t end) {
    int64_t cols = piece->param->cols, width = piece->block.cols;
    for (int64_t i = at; i < end; i++)
        for (int64_t k = line; k < lines; k++) {
            int64_t element =
                piece->turned ? (piece->row + i) * cols + k : (piece->row + k) * cols + i;
            memcpy(to + (size_t)element * size,
                   from + (size_t)(k * width + piece->shift + i * piece->apart) * size, size);
        }
}

/* A staged piece into the order of its param. */
static void load_order(const load_call *call, const load_plan *plan, const load_piece *piece) {
    int64_t lines = piece->block.rows;
    int64_t length = piece->turned ? piece->rows : piece->param->cols;
    const char *from = plan->room + piece->place;
    char *to = load_block_of(call, piece->param);
#pragma omp parallel for schedule(static) if (lines * length > 8 * LOAD_CHUNK)
    for (int64_t i = 0; i < length; i += LOAD_TILE)
        for (int64_t k = 0; k < lines; k += LOAD_TILE) {
            int64_t end = length - i < LOAD_TILE ? length : i + LOAD_TILE;
            int64_t stop = lines - k < LOAD_TILE ? lines : k + LOAD_TILE;
            if (piece->size == 2)
                load_order_tile(piece, from, to, 2, k, stop, i, end);
            else
                load_order_tile(piece, from, to, 4, k, stop, i, end);
        }
}

/* What is fetched of a unit by one call. */
static dpt_status load_prepare(const load_call *call, int unit, load_plan *plan, int *count) {
    dpt_status st = load_plan_create(call->params, unit, call->source->catalog, plan);
    if (st != DPT_OK)
        return st;
    plan->room = dpt_mem_alloc(plan->room_bytes, 1, "tensors that are stored in another order");
    if (plan->room == NULL)
        return DPT_ERR_OUTPUT;
    for (int i = 0; i < plan->count; i++) {
        const load_piece *piece = &plan->pieces[i];
        void *target = load_target(call, plan, piece);
        bool together = piece->param->columns && call->source->independent && call->group->size > 1;
        if (together || target == NULL || piece->room != i)
            continue;
        plan->blocks[*count] = piece->block;
        plan->outs[(*count)++] = target;
    }
    return DPT_OK;
}

/* Columns that the ranks of the group share, from a file that each reads for itself. */
static dpt_status load_columns(const load_call *call, int unit, const load_plan *plan,
                               dpt_status st) {
    const dpt_share_section *section = &call->params->shares->sections[unit * DPT_SHARE_KINDS + 1];
    if (section->count == 0 || !call->source->independent || call->group->size == 1)
        return st;
    st = dpt_agree(call->group, st);
    for (int i = 0; i < plan->count && st == DPT_OK; i++)
        if (plan->pieces[i].param->columns)
            st = dpt_columns_fetch(call->group, call->source, &plan->pieces[i].block,
                                   load_target(call, plan, &plan->pieces[i]));
    return st;
}

/* What has been fetched of a unit, in order and checked. */
static dpt_status load_check(const load_call *call, int unit, const load_plan *plan) {
    dpt_status st = DPT_OK;
    int at = 0;
    for (int i = 0; i < plan->count; i++)
        if (plan->pieces[i].staged)
            load_order(call, plan, &plan->pieces[i]);
    for (dpt_param *p = NULL;
         st == DPT_OK && (p = load_next(call->params, unit, &at, p)) != NULL;) {
        if (dpt_param_numel(p) == 0)
            continue;
        st = load_check_finite(call, p);
        if (st == DPT_OK && call->values == DPT_VALUES_EDIT) {
            p->direct = call->kind == DPT_PARAMS_DIRECTION;
            p->has_delta = load_differs(p);
        }
    }
    return st;
}

/* The blocks of one unit. A rank that has failed still takes part, with nothing wanted. */
static dpt_status load_unit(const load_call *call, int unit, dpt_status st) {
    const dpt_source *source = call->source;
    load_plan plan = {.count = 0};
    int count = 0;
    if (st == DPT_OK)
        st = load_prepare(call, unit, &plan, &count);
    dpt_status got = source->fetch(source->ctx, st == DPT_OK ? count : 0, plan.blocks, plan.outs);
    st = load_columns(call, unit, &plan, st == DPT_OK ? got : st);
    if (st == DPT_OK)
        st = load_check(call, unit, &plan);
    load_plan_destroy(&plan);
    return st;
}

static dpt_status load_check_same(const dpt_params *params, const dpt_catalog *edited,
                                  dpt_params_kind kind) {
    const dpt_catalog *post = params->catalog;
    bool same = post->count == edited->count;
    for (int i = 0; same && i < post->count; i++) {
        const dpt_tensor_info *a = &post->tensors[i], *b = &edited->tensors[i];
        same = strcmp(a->name, b->name) == 0 && a->ndim == b->ndim &&
               memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof a->shape[0]) == 0;
        if (kind == DPT_PARAMS_DIRECTION && b->dtype != DPT_F32)
            return dpt_error(DPT_ERR_INTERNAL, "model: a direction is not in fp32");
    }
    return same ? DPT_OK
                : dpt_error(DPT_ERR_INPUT, "model: the edited model has other tensors than the "
                                           "post-trained one: make it from the same model");
}

dpt_status dpt_params_load(dpt_params *params, const dpt_comm *group, const dpt_source *source,
                           dpt_params_kind kind) {
    dpt_values values = kind == DPT_PARAMS_POST ? DPT_VALUES_POST : DPT_VALUES_EDIT;
    load_call call = {
        .group = group, .source = source, .params = params, .kind = kind, .values = values};
    dpt_status st = DPT_OK;
    if (values == DPT_VALUES_EDIT) {
        dpt_params_unbind(params);
        st = load_check_same(params, source->catalog, kind);
    }
    if (st == DPT_OK)
        st = load_find_types(&call);
    st = load_agree(&call, st);
    if (st == DPT_OK)
        st = load_agree(&call, dpt_shares_reserve(params, values));
    if (st != DPT_OK)
        return st;
    for (int unit = 0; unit < params->shares->units; unit++) {
        if (st == DPT_OK)
            st = dpt_stop_check(); /* like an error: the others still need this one's fetches */
        st = load_unit(&call, unit, st);
    }
    st = load_agree(&call, st);
    if (st == DPT_OK)
        st = dpt_shares_finish(params, values);
    if (st != DPT_OK && values == DPT_VALUES_EDIT)
        dpt_params_unbind(params);
    return st;
}
