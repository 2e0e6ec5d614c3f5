#include "params.h"

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

/* The rows that a block has of one run, as a block of the tensor. Its columns hold those elements and, where
 * they are further apart than one, what lies between. */
typedef struct load_piece {
    dpt_param *param;
    dpt_block block;
    int64_t row, rows; /* of the param's block */
    int64_t shift;     /* column of the first element */
    int64_t apart;     /* columns from one element to the next */
    bool turned;       /* rows of the block are columns of the param */
    bool staged;       /* fetched into room of its own and brought in order from there */
    int room;          /* piece that the room belongs to: another's when it has the same block */
    int64_t place;     /* bytes from the start of all room */
} load_piece;

/* What one fetch of a tensor brings. */
typedef struct load_plan {
    int count;
    load_piece *pieces;
    int64_t size;       /* bytes of an element */
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
    int64_t end = param->row + param->rows, first = run * l->run;
    int64_t low = load_clip(first, param->row, end),
            high = load_clip(first + l->run, param->row, end);
    bool turned = dpt_layout_is_turned(l);
    load_piece piece = {.param = param,
                        .row = low - param->row,
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
    for (int k = 0; k < i && piece->staged && !piece->param->columns; k++)
        if (plan->pieces[k].staged && !plan->pieces[k].param->columns &&
            load_same_block(&plan->pieces[k].block, &piece->block)) {
            piece->room = k;
            piece->place = plan->pieces[k].place;
            return;
        }
    if (piece->staged) {
        piece->place = plan->room_bytes;
        plan->room_bytes += piece->block.rows * piece->block.cols * plan->size;
    }
}

static bool load_wants(const dpt_params *params, int i, int64_t run, load_piece *piece) {
    dpt_param *param = &params->items[i];
    *piece = load_piece_of(param, run, params->catalog->tensors[param->tensor].numel);
    return param->columns || (piece->rows > 0 && param->cols > 0);
}

/* Pieces of all blocks of a tensor; those of columns are there also when this rank has none of them. */
static dpt_status load_plan_create(const dpt_params *params, int tensor, dpt_dtype type,
                                   load_plan *out) {
    *out = (load_plan){.size = dpt_dtype_size(type)};
    int64_t count = 0;
    load_piece piece;
    for (int i = params->first[tensor]; i >= 0; i = params->items[i].next)
        for (int64_t run = 0; run < load_runs(&params->items[i].layout); run++)
            count += load_wants(params, i, run, &piece);
    out->pieces = dpt_mem_alloc(count, sizeof *out->pieces, "blocks of a tensor");
    out->blocks = dpt_mem_alloc(count, sizeof *out->blocks, "blocks of a tensor");
    out->outs = dpt_mem_alloc(count, sizeof *out->outs, "blocks of a tensor");
    if (out->pieces == NULL || out->blocks == NULL || out->outs == NULL)
        return DPT_ERR_OUTPUT;
    for (int i = params->first[tensor]; i >= 0; i = params->items[i].next)
        for (int64_t run = 0; run < load_runs(&params->items[i].layout); run++)
            if (load_wants(params, i, run, &piece)) {
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
    for (int i = 0; i < params->catalog->count && st == DPT_OK; i++) {
        load_plan plan;
        st = load_plan_create(params, i, params->catalog->tensors[i].dtype, &plan);
        *bytes = plan.room_bytes > *bytes ? plan.room_bytes : *bytes;
        load_plan_destroy(&plan);
    }
    return st;
}

/* Whether E has any value but 0 in the block. */
static bool load_differs(const dpt_param *param) {
    int64_t n = dpt_param_numel(param);
    if (param->direct) {
        const float *e = param->edit; /* in fp32, which load_check_same has seen to */
        while (n > 0 && e[n - 1] == 0.0F)
            n--;
        return n > 0;
    }
    if (param->post_type == param->edit_type)
        return memcmp(param->post, param->edit, (size_t)(n * dpt_dtype_size(param->post_type))) !=
               0;
    float post[LOAD_CHUNK], edit[LOAD_CHUNK];
    for (int64_t at = 0; at < n; at += LOAD_CHUNK) {
        int64_t part = n - at < LOAD_CHUNK ? n - at : LOAD_CHUNK;
        dpt_dtype_to_f32(param->post_type,
                         (char *)param->post + at * dpt_dtype_size(param->post_type), post, part);
        dpt_dtype_to_f32(param->edit_type,
                         (char *)param->edit + at * dpt_dtype_size(param->edit_type), edit, part);
        for (int64_t i = 0; i < part; i++)
            if (post[i] != edit[i])
                return true;
    }
    return false;
}

/* One call of dpt_params_load; `params` is NULL where the group only takes part in the calls of others. */
typedef struct load_call {
    const dpt_comm *group;
    const dpt_source *source;
    dpt_params *params;
    dpt_params_kind kind;
    bool edited;
} load_call;

static dpt_status load_check_finite(const load_call *call, const dpt_param *param) {
    int64_t at =
        dpt_dtype_find_nonfinite(call->edited ? param->edit_type : param->post_type,
                                 call->edited ? param->edit : param->post, dpt_param_numel(param));
    if (at < 0)
        return DPT_OK;
    return dpt_error(DPT_ERR_INPUT,
                     "model: tensor %s: element %" PRId64
                     " is not a finite number: fix the weights",
                     call->source->catalog->tensors[param->tensor].name,
                     dpt_param_place(param, at / param->cols, at % param->cols));
}

/* Room for the block and its type; none when this rank takes nothing of the matrix. */
static dpt_status load_reserve(const load_call *call, dpt_param *param) {
    const dpt_tensor_info *info = &call->source->catalog->tensors[param->tensor];
    if (dpt_param_numel(param) == 0)
        return DPT_OK;
    if (!dpt_dtype_editable(info->dtype))
        return dpt_error(DPT_ERR_INPUT,
                         "model: tensor %s has the type %s: F32, F16 or BF16 is needed", info->name,
                         dpt_dtype_name(info->dtype));
    void *out = dpt_mem_alloc(dpt_param_numel(param), (size_t)dpt_dtype_size(info->dtype),
                              call->edited ? "edited weights" : "post-trained weights");
    if (call->edited) {
        param->edit = out;
        param->edit_type = info->dtype;
    } else {
        param->post = out;
    }
    return out != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

static char *load_block_of(const load_call *call, const dpt_param *param) {
    return call->edited ? param->edit : param->post;
}

/* Where a piece is fetched to; NULL when it is empty. */
static void *load_target(const load_call *call, const load_plan *plan, const load_piece *piece) {
    if (piece->block.rows * piece->block.cols == 0)
        return NULL;
    if (piece->staged)
        return plan->room + piece->place;
    return load_block_of(call, piece->param) + piece->row * piece->param->cols * plan->size;
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
            if (plan->size == 2)
                load_order_tile(piece, from, to, 2, k, stop, i, end);
            else
                load_order_tile(piece, from, to, 4, k, stop, i, end);
        }
}

/* Memory for a tensor, and what is fetched of it by one call. */
static dpt_status load_prepare(const load_call *call, int tensor, load_plan *plan, int *count) {
    const dpt_params *params = call->params;
    dpt_status st = DPT_OK;
    for (int i = params->first[tensor]; i >= 0 && st == DPT_OK; i = params->items[i].next)
        st = load_reserve(call, &params->items[i]);
    if (st == DPT_OK)
        st = load_plan_create(params, tensor, call->source->catalog->tensors[tensor].dtype, plan);
    if (st != DPT_OK)
        return st;
    plan->room = dpt_mem_alloc(plan->room_bytes, 1, "tensor that is stored in another order");
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
static dpt_status load_columns(const load_call *call, int tensor, const load_plan *plan,
                               dpt_status st) {
    bool columns = false;
    const dpt_params *params = call->params;
    for (int i = params->first[tensor]; i >= 0; i = params->items[i].next)
        columns = columns || params->items[i].columns;
    if (!columns || !call->source->independent || call->group->size == 1)
        return st;
    st = dpt_agree(call->group, st);
    for (int i = 0; i < plan->count && st == DPT_OK; i++)
        if (plan->pieces[i].param->columns)
            st = dpt_columns_fetch(call->group, call->source, &plan->pieces[i].block,
                                   load_target(call, plan, &plan->pieces[i]));
    return st;
}

/* What has been fetched of a tensor, in order and checked. */
static dpt_status load_finish(const load_call *call, int tensor, const load_plan *plan) {
    dpt_status st = DPT_OK;
    for (int i = 0; i < plan->count; i++)
        if (plan->pieces[i].staged)
            load_order(call, plan, &plan->pieces[i]);
    for (int i = call->params->first[tensor]; i >= 0 && st == DPT_OK;
         i = call->params->items[i].next) {
        dpt_param *param = &call->params->items[i];
        if (dpt_param_numel(param) == 0)
            continue;
        st = load_check_finite(call, param);
        if (st == DPT_OK && call->edited) {
            param->direct = call->kind == DPT_PARAMS_DIRECTION;
            param->has_delta = load_differs(param);
        }
    }
    return st;
}

/* The blocks of one tensor. A rank that has failed still takes part, with nothing wanted. */
static dpt_status load_tensor(const load_call *call, int tensor, dpt_status st) {
    const dpt_source *source = call->source;
    load_plan plan = {.count = 0};
    int count = 0;
    if (st == DPT_OK && call->params != NULL)
        st = load_prepare(call, tensor, &plan, &count);
    dpt_status got = source->fetch(source->ctx, st == DPT_OK ? count : 0, plan.blocks, plan.outs);
    st = st == DPT_OK ? got : st;
    if (call->params != NULL)
        st = load_columns(call, tensor, &plan, st);
    if (st == DPT_OK && call->params != NULL)
        st = load_finish(call, tensor, &plan);
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

dpt_status dpt_params_load(dpt_params *params, const dpt_comm *group, dpt_status local,
                           const dpt_source *source, dpt_params_kind kind) {
    dpt_status st = params != NULL || local != DPT_OK ? local : DPT_ERR_INTERNAL;
    load_call call = {.group = group,
                      .source = source,
                      .params = params,
                      .kind = kind,
                      .edited = kind != DPT_PARAMS_POST};
    if (call.edited && params != NULL)
        dpt_params_unbind(params);
    if (st == DPT_OK && call.edited)
        st = load_check_same(params, source->catalog, kind);
    if (st != DPT_OK)
        call.params = NULL; /* on all ranks of the group */
    for (int i = 0; i < source->catalog->count; i++) {
        if (st == DPT_OK)
            st = dpt_stop_check(); /* like an error: the others still need this one's fetches */
        st = load_tensor(&call, i, st);
    }
    if (st != DPT_OK && call.edited && params != NULL)
        dpt_params_unbind(params);
    return st;
}
