#include "params.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/stop.h"
#include "deltapath/tensor/columns.h"

#include <inttypes.h>
#include <string.h>

enum { CHUNK = 1 << 13 }; /* elements formed at a time: three fp32 chunks stay in the L2 cache */

dpt_status dpt_params_create(const dpt_catalog *catalog, int count, dpt_params *out) {
    *out = (dpt_params){.catalog = catalog};
    out->items = dpt_mem_zalloc(count, sizeof *out->items, "list of model tensors");
    if (out->items == NULL)
        return DPT_ERR_OUTPUT;
    out->count = count;
    for (int i = 0; i < count; i++)
        out->items[i].tensor = -1;
    return DPT_OK;
}

void dpt_params_destroy(dpt_params *params) {
    dpt_params_unbind(params);
    for (int i = 0; i < params->count; i++)
        dpt_mem_free(params->items[i].post);
    dpt_mem_free(params->items);
    dpt_mem_free(params->problem);
    *params = (dpt_params){.count = 0};
}

static void params_note(dpt_params *params, char *problem) {
    if (params->problems++ == 0)
        params->problem = problem;
    else
        dpt_mem_free(problem);
}

static dpt_tensor_info param_shape(const dpt_param_part *part) {
    dpt_tensor_info info = {.ndim = part->ndim};
    for (int i = 0; i < part->ndim; i++)
        info.shape[i] = part->sides[i];
    return info;
}

static bool param_same_shape(const dpt_tensor_info *a, const dpt_tensor_info *b) {
    return a->ndim == b->ndim &&
           memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof a->shape[0]) == 0;
}

void dpt_params_claim(dpt_params *params, int i, const char *name, const dpt_param_part *part) {
    int tensor = dpt_catalog_find(params->catalog, name);
    if (tensor < 0) {
        params_note(params, dpt_mem_format("tensor %s is missing", name));
        return;
    }
    const dpt_tensor_info *info = &params->catalog->tensors[tensor];
    dpt_param *param = &params->items[i];
    param->tensor = tensor;
    dpt_tensor_info wanted = param_shape(part);
    if (!param_same_shape(info, &wanted)) {
        char shape[128], right[128];
        dpt_catalog_shape_text(info, shape, sizeof shape);
        dpt_catalog_shape_text(&wanted, right, sizeof right);
        params_note(params, dpt_mem_format("tensor %s has the shape %s in place of %s", name, shape,
                                           right));
        return;
    }
    if (!dpt_dtype_editable(info->dtype)) {
        params_note(params, dpt_mem_format("tensor %s has the type %s in place of F32, F16 or BF16",
                                           name, dpt_dtype_name(info->dtype)));
        return;
    }
    DPT_ASSERT(part->row_begin >= 0 && part->row_begin <= part->row_end);
    DPT_ASSERT(part->col_begin >= 0 && part->col_begin <= part->col_end &&
               part->col_end <= part->cols);
    param->columns = part->columns;
    param->counted = part->counted;
    param->post_type = info->dtype;
    param->block = (dpt_block){.tensor = tensor,
                               .ig = part->row_begin * part->cols + part->col_begin,
                               .rows = part->row_end - part->row_begin,
                               .cols = part->col_end - part->col_begin,
                               .stride = part->cols};
    if (part->ndim == 1) { /* a vector is one run */
        param->block.cols = param->block.rows;
        param->block.rows = 1;
        param->block.stride = part->sides[0];
    }
}

dpt_status dpt_params_check(dpt_params *params, dpt_params_ignore_fn ignore, const void *ctx) {
    bool *claimed = dpt_mem_zalloc(params->catalog->count, sizeof *claimed, "claimed tensors");
    if (claimed == NULL)
        return DPT_ERR_OUTPUT;
    for (int i = 0; i < params->count; i++)
        if (params->items[i].tensor >= 0)
            claimed[params->items[i].tensor] = true;
    for (int i = 0; i < params->catalog->count; i++) {
        const char *name = params->catalog->tensors[i].name;
        if (!claimed[i] && !ignore(ctx, name))
            params_note(params, dpt_mem_format("tensor %s is not part of this architecture", name));
    }
    dpt_mem_free(claimed);
    if (params->problems == 0)
        return DPT_OK;
    return dpt_error(DPT_ERR_INPUT,
                     "model: %s (%d tensors in all do not fit config.json): give the weights and "
                     "the config.json of one model",
                     params->problem != NULL ? params->problem : "a tensor does not fit",
                     params->problems);
}

int64_t dpt_params_bytes(const dpt_params *params) {
    int64_t bytes = 0;
    for (int i = 0; i < params->count; i++)
        bytes += dpt_param_numel(&params->items[i]) * dpt_dtype_size(params->items[i].post_type);
    return bytes;
}

static dpt_param *params_find(dpt_params *params, int tensor) {
    for (int i = 0; i < params->count; i++)
        if (params->items[i].tensor == tensor)
            return &params->items[i];
    return NULL;
}

/* Whether E has any value but 0 in the block. */
static bool param_differs(const dpt_param *param) {
    int64_t n = dpt_param_numel(param);
    if (param->direct) {
        const float *e = param->edit; /* in fp32, which params_check_same has seen to */
        while (n > 0 && e[n - 1] == 0.0F)
            n--;
        return n > 0;
    }
    if (param->post_type == param->edit_type)
        return memcmp(param->post, param->edit, (size_t)(n * dpt_dtype_size(param->post_type))) !=
               0;
    float post[CHUNK], edit[CHUNK];
    for (int64_t at = 0; at < n; at += CHUNK) {
        int64_t part = n - at < CHUNK ? n - at : CHUNK;
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

static dpt_status param_check_finite(const dpt_param *param, const dpt_tensor_info *info,
                                     bool edited) {
    int64_t at =
        dpt_dtype_find_nonfinite(edited ? param->edit_type : param->post_type,
                                 edited ? param->edit : param->post, dpt_param_numel(param));
    if (at < 0)
        return DPT_OK;
    int64_t ig =
        param->block.ig + at / param->block.cols * param->block.stride + at % param->block.cols;
    return dpt_error(DPT_ERR_INPUT,
                     "model: tensor %s: element %" PRId64
                     " is not a finite number: fix the weights",
                     info->name, ig);
}

/* Room for the block and its type; NULL when this rank takes nothing of the tensor. */
static dpt_status param_reserve(dpt_param *param, const dpt_tensor_info *info, bool edited,
                                void **out) {
    *out = NULL;
    if (param == NULL || dpt_param_numel(param) == 0)
        return DPT_OK;
    if (!dpt_dtype_editable(info->dtype))
        return dpt_error(DPT_ERR_INPUT,
                         "model: tensor %s has the type %s: F32, F16 or BF16 is needed", info->name,
                         dpt_dtype_name(info->dtype));
    *out = dpt_mem_alloc(dpt_param_numel(param), (size_t)dpt_dtype_size(info->dtype),
                         edited ? "edited weights" : "post-trained weights");
    if (*out == NULL)
        return DPT_ERR_OUTPUT;
    if (edited) {
        param->edit = *out;
        param->edit_type = info->dtype;
    } else {
        param->post = *out;
    }
    return DPT_OK;
}

static dpt_status params_check_same(const dpt_params *params, const dpt_catalog *edited,
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

/* What one fetch of the loop below brings. */
typedef struct params_fetch {
    const dpt_comm *group;
    const dpt_source *source;
    dpt_param *param; /* NULL: the model has no such tensor */
    int tensor;
    dpt_params_kind kind;
} params_fetch;

/* The block of one tensor. A rank that has failed still takes part, with nothing wanted. */
static dpt_status params_fetch_one(const params_fetch *f, dpt_status st) {
    const dpt_source *source = f->source;
    const dpt_tensor_info *info = &source->catalog->tensors[f->tensor];
    bool columns = f->param != NULL && f->param->columns && source->independent;
    bool edited = f->kind != DPT_PARAMS_POST;
    void *out = NULL;
    if (st == DPT_OK)
        st = param_reserve(f->param, info, edited, &out);
    if (columns && f->group->size > 1) {
        st = dpt_agree(f->group, st);
        if (st == DPT_OK)
            st = dpt_columns_fetch(f->group, source, &f->param->block, out);
    } else {
        dpt_block none = {.tensor = f->tensor};
        dpt_status got =
            source->fetch(source->ctx, out != NULL, out != NULL ? &f->param->block : &none, &out);
        st = st == DPT_OK ? got : st;
    }
    if (st == DPT_OK && out != NULL)
        st = param_check_finite(f->param, info, edited);
    if (st == DPT_OK && out != NULL && edited) {
        f->param->direct = f->kind == DPT_PARAMS_DIRECTION;
        f->param->has_delta = param_differs(f->param);
    }
    return st;
}

dpt_status dpt_params_load(dpt_params *params, const dpt_comm *group, dpt_status local,
                           const dpt_source *source, dpt_params_kind kind) {
    dpt_status st = params != NULL || local != DPT_OK ? local : DPT_ERR_INTERNAL;
    bool takes_part = local == DPT_OK && params != NULL; /* as all of the group */
    bool edited = kind != DPT_PARAMS_POST;
    if (edited && params != NULL)
        dpt_params_unbind(params);
    if (st == DPT_OK && edited)
        st = params_check_same(params, source->catalog, kind);
    for (int i = 0; i < source->catalog->count; i++) {
        if (st == DPT_OK)
            st = dpt_stop_check(); /* like an error: the others still need this one's fetches */
        params_fetch fetch = {.group = group,
                              .source = source,
                              .param = takes_part ? params_find(params, i) : NULL,
                              .tensor = i,
                              .kind = kind};
        st = params_fetch_one(&fetch, st);
    }
    if (st != DPT_OK && edited && params != NULL)
        dpt_params_unbind(params);
    return st;
}

void dpt_params_unbind(dpt_params *params) {
    for (int i = 0; i < params->count; i++) {
        dpt_mem_free(params->items[i].edit);
        params->items[i].edit = NULL;
        params->items[i].has_delta = params->items[i].direct = false;
        dpt_param_clear_direction(&params->items[i]);
    }
}

void dpt_param_clear_direction(dpt_param *param) {
    dpt_mem_free(param->signs);
    param->signs = NULL;
    param->still = false;
}

dpt_status dpt_param_draw_signs(dpt_param *param, dpt_rng stream) {
    const dpt_block *block = &param->block;
    int64_t n = dpt_param_numel(param);
    uint64_t mask[CHUNK / 64], half = dpt_rng_threshold(0.5);
    dpt_mem_free(param->signs);
    param->signs = dpt_mem_zalloc((n + 63) / 64, sizeof *param->signs, "signs of an edit");
    if (param->signs == NULL)
        return DPT_ERR_OUTPUT;
    for (int64_t row = 0; n > 0 && row < block->rows; row++)
        for (int64_t col = 0; col < block->cols; col += CHUNK) {
            int64_t part = block->cols - col < CHUNK ? block->cols - col : CHUNK;
            dpt_rng_mask(stream, block->ig + row * block->stride + col, part, half, mask);
            for (int64_t i = 0, at = row * block->cols + col; i < part; i++, at++)
                param->signs[at / 64] |= (uint64_t)dpt_rng_mask_bit(mask, i) << (at % 64);
        }
    return DPT_OK;
}

/* post + t E in `out`, which holds post, or E, with signs or of a block that holds E. */
static void param_form_direction(const dpt_param *param, bool with_post, float t, int64_t at,
                                 int64_t n, const float *edit, float *out) {
    for (int64_t i = 0; i < n; i++) {
        float e = param->direct ? edit[i] : edit[i] - out[i];
        e = param->signs != NULL && dpt_rng_mask_bit(param->signs, at + i) ? -e : e;
        out[i] = with_post ? out[i] + t * e : e;
    }
}

/* post + t E, or E, of a chunk of at most CHUNK elements from element `at` on. */
static void param_form_chunk(const dpt_param *param, bool with_post, float t, int64_t at, int64_t n,
                             float *out) {
    float edit[CHUNK];
    dpt_dtype_to_f32(param->post_type, (char *)param->post + at * dpt_dtype_size(param->post_type),
                     out, n);
    dpt_dtype_to_f32(param->edit_type, (char *)param->edit + at * dpt_dtype_size(param->edit_type),
                     edit, n);
    if (param->signs != NULL || param->direct) {
        param_form_direction(param, with_post, t, at, n, edit, out);
    } else if (with_post) {
        for (int64_t i = 0; i < n; i++)
            out[i] += t * (edit[i] - out[i]);
    } else {
        for (int64_t i = 0; i < n; i++)
            out[i] = edit[i] - out[i];
    }
}

void dpt_param_weights(const dpt_param *param, double t, int64_t row, int64_t rows, float *out) {
    int64_t first = row * param->block.cols;
    int64_t n = rows * param->block.cols;
    bool moves = param->has_delta && !param->still && t != 0.0;
    bool at_edit = moves && t == 1.0 && param->signs == NULL && !param->direct;
    bool one_end = !moves || at_edit;
    dpt_dtype type = at_edit ? param->edit_type : param->post_type;
    const char *stored = at_edit ? param->edit : param->post;
#pragma omp parallel for schedule(static) if (n > 8 * CHUNK)
    for (int64_t at = 0; at < n; at += CHUNK) {
        int64_t part = n - at < CHUNK ? n - at : CHUNK;
        if (one_end)
            dpt_dtype_to_f32(type, stored + (first + at) * dpt_dtype_size(type), out + at, part);
        else
            param_form_chunk(param, true, (float)t, first + at, part, out + at);
    }
}

void dpt_param_delta(const dpt_param *param, int64_t row, int64_t rows, float *out) {
    int64_t first = row * param->block.cols;
    int64_t n = rows * param->block.cols;
    if (!param->has_delta) {
        memset(out, 0, (size_t)n * sizeof *out);
        return;
    }
#pragma omp parallel for schedule(static) if (n > 8 * CHUNK)
    for (int64_t at = 0; at < n; at += CHUNK)
        param_form_chunk(param, false, 1.0F, first + at, n - at < CHUNK ? n - at : CHUNK, out + at);
}
