#include "shares.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"

#include <string.h>

enum {
    CHUNK = 1 << 10,        /* elements formed at a time: their fp32 values stay in the L1 cache */
    PARALLEL_MIN = 1 << 16, /* elements */
    BF16_AT_ONCE = 32,      /* of a cache line */
    BF16_AHEAD = 1 << 10 /* fetched so far ahead: the processor itself stops at the end of a page */
};

dpt_status dpt_params_create(const dpt_catalog *catalog, int count, dpt_params *out) {
    *out = (dpt_params){.catalog = catalog};
    out->items = dpt_mem_zalloc(count, sizeof *out->items, "list of model tensors");
    out->first = dpt_mem_alloc(catalog->count, sizeof *out->first, "list of model tensors");
    if (out->items == NULL || out->first == NULL)
        return DPT_ERR_OUTPUT;
    out->count = count;
    for (int i = 0; i < count; i++)
        out->items[i].tensor = out->items[i].next = out->items[i].matrix = -1;
    for (int i = 0; i < catalog->count; i++)
        out->first[i] = -1;
    return DPT_OK;
}

void dpt_params_destroy(dpt_params *params) {
    dpt_params_unbind(params);
    dpt_shares_destroy(params);
    dpt_mem_free(params->items);
    dpt_mem_free(params->first);
    dpt_mem_free(params->problem);
    *params = (dpt_params){.count = 0};
}

static void params_note(dpt_params *params, char *problem) {
    if (params->problems++ == 0)
        params->problem = problem;
    else
        dpt_mem_free(problem);
}

static void params_register(dpt_params *params, int i, int tensor) {
    params->items[i].tensor = tensor;
    params->items[i].next = params->first[tensor];
    params->first[tensor] = i;
}

void dpt_params_refuse(dpt_params *params, int i, int tensor, char *problem) {
    if (tensor >= 0) {
        params_register(params, i, tensor);
    } else if (
        !params->missing) { /* how a tensor is to be read may depend on the one that is missing */
        dpt_mem_free(params->problem);
        params->problem = problem;
        params->missing = true;
        params->problems++;
        return;
    }
    params_note(params, problem);
}

/* Whether the lines of a layout come one after the other in the tensor. */
static bool param_lines_rise(const dpt_layout *l) {
    int64_t run = l->rows < l->run ? l->rows : l->run;
    bool turned = dpt_layout_is_turned(l);
    int64_t across = turned ? 0 : (l->cols - 1) * l->col_stride; /* from first to last of a line */
    int64_t last = dpt_layout_place(l, l->rows - 1, 0) - l->first + across;
    return (run == l->rows || (run - 1) * l->row_stride + across < l->run_stride) &&
           (turned || run == 1 || across < l->row_stride) &&
           (!turned || l->cols == 1 || last < l->col_stride);
}

void dpt_params_claim(dpt_params *params, int i, const dpt_param_part *part) {
    const dpt_tensor_info *info = &params->catalog->tensors[part->tensor];
    const dpt_layout *layout = &part->layout;
    dpt_param *param = &params->items[i];
    params_register(params, i, part->tensor);
    if (!dpt_dtype_editable(info->dtype)) {
        params_note(params, dpt_mem_format("tensor %s has the type %s in place of F32, F16 or BF16",
                                           info->name, dpt_dtype_name(info->dtype)));
        return;
    }
    DPT_ASSERT(part->row_begin >= 0 && part->row_begin <= part->row_end &&
               part->row_end <= layout->rows);
    DPT_ASSERT(part->col_begin >= 0 && part->col_begin <= part->col_end &&
               part->col_end <= layout->cols);
    DPT_ASSERT(layout->rows == 0 || layout->cols == 0 || param_lines_rise(layout));
    DPT_ASSERT(!part->rows_split || !part->cols_split);
    param->columns =
        dpt_layout_is_turned(layout) ? part->rows_split && layout->cols > 1 : part->cols_split;
    param->counted = part->counted;
    param->matrix = part->matrix;
    param->post_type = param->edit_type = info->dtype;
    param->layout = *layout;
    param->row = part->row_begin;
    param->col = part->col_begin;
    param->rows = part->row_end - part->row_begin;
    param->cols = part->col_end - part->col_begin;
}

dpt_status dpt_params_check(dpt_params *params, dpt_params_ignore_fn ignore, const void *ctx) {
    for (int i = 0; i < params->catalog->count; i++) {
        const dpt_tensor_info *info = &params->catalog->tensors[i];
        if (params->first[i] < 0 && !ignore(ctx, dpt_catalog_alias(info)))
            params_note(params,
                        dpt_mem_format("tensor %s is not part of this architecture", info->name));
    }
    if (params->problems == 0)
        return DPT_OK;
    return dpt_error(DPT_ERR_INPUT,
                     "model: %s (%d tensors in all do not fit config.json): give the weights and "
                     "the config.json of one model, or map names that differ with models.rename",
                     params->problem != NULL ? params->problem : "a tensor does not fit",
                     params->problems);
}

/* Runs of the layout that a block has rows of. */
static int64_t param_runs(const dpt_param *param) {
    int64_t run = param->layout.run;
    return (param->row + param->rows - 1) / run - param->row / run + 1;
}

int64_t dpt_param_lines(const dpt_param *param) {
    if (dpt_param_numel(param) == 0)
        return 0;
    return dpt_layout_is_turned(&param->layout) ? param->cols * param_runs(param) : param->rows;
}

dpt_param_line dpt_param_get_line(const dpt_param *param, int64_t line) {
    const dpt_layout *l = &param->layout;
    if (!dpt_layout_is_turned(l))
        return (dpt_param_line){.n = param->cols,
                                .at = line * param->cols,
                                .step = 1,
                                .ig = dpt_param_place(param, line, 0),
                                .stride = l->col_stride};
    int64_t runs = param_runs(param), col = line / runs;
    int64_t begin = (param->row / l->run + line % runs) * l->run - param->row;
    int64_t end = begin + l->run < param->rows ? begin + l->run : param->rows;
    begin = begin > 0 ? begin : 0;
    return (dpt_param_line){.n = end - begin,
                            .at = begin * param->cols + col,
                            .step = param->cols,
                            .ig = dpt_param_place(param, begin, col),
                            .stride = l->row_stride};
}

/* The first line that does not end before an element of the tensor. */
static int64_t param_line_from(const dpt_param *param, int64_t ig) {
    int64_t low = 0, high = dpt_param_lines(param);
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        dpt_param_line line = dpt_param_get_line(param, middle);
        if (line.ig + (line.n - 1) * line.stride < ig)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool dpt_param_next_cut(const dpt_param *param, dpt_range range, dpt_param_cut *cut) {
    int64_t lines = dpt_param_lines(param), end = range.ig + range.n;
    cut->line = cut->line < 0 ? param_line_from(param, range.ig) : cut->line + 1;
    for (; cut->line < lines; cut->line++) {
        dpt_param_line line = dpt_param_get_line(param, cut->line);
        if (line.ig >= end)
            break;
        int64_t low = range.ig > line.ig ? (range.ig - line.ig + line.stride - 1) / line.stride : 0;
        int64_t high = (end - line.ig + line.stride - 1) / line.stride;
        high = high < line.n ? high : line.n;
        cut->part = line;
        cut->part.n = high - low;
        cut->part.at += low * line.step;
        cut->part.ig += low * line.stride;
        if (low < high)
            return true;
    }
    return false;
}

void dpt_params_unbind(dpt_params *params) {
    for (int i = 0; i < params->count; i++) {
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

/* Of a line, the bits of all that lies between its first and its last element are drawn. */
static void param_draw_line(dpt_param *param, dpt_rng stream, dpt_param_line line) {
    uint64_t mask[CHUNK / 64], half = dpt_rng_threshold(0.5);
    int64_t step = CHUNK / line.stride > 0 ? CHUNK / line.stride : 1;
    for (int64_t first = 0; first < line.n; first += step) {
        int64_t part = line.n - first < step ? line.n - first : step;
        int64_t at = line.at + first * line.step;
        dpt_rng_mask(stream, line.ig + first * line.stride, (part - 1) * line.stride + 1, half,
                     mask);
        for (int64_t i = 0; i < part; i++, at += line.step)
            param->signs[at / 64] |= (uint64_t)dpt_rng_mask_bit(mask, i * line.stride) << (at % 64);
    }
}

dpt_status dpt_param_draw_signs(dpt_param *param, dpt_rng stream) {
    int64_t n = dpt_param_numel(param);
    dpt_mem_free(param->signs);
    param->signs = dpt_mem_zalloc((n + 63) / 64, sizeof *param->signs, "signs of an edit");
    if (param->signs == NULL)
        return DPT_ERR_OUTPUT;
    for (int64_t line = 0; line < dpt_param_lines(param); line++)
        param_draw_line(param, stream, dpt_param_get_line(param, line));
    return DPT_OK;
}

static inline float param_bf16(const char *stored, int64_t i) {
    uint16_t code;
    memcpy(&code, stored + 2 * i, sizeof code);
    uint32_t bits = (uint32_t)code << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* What is formed of some elements: W(t), E or both; NULL: not wanted. */
typedef struct param_formed {
    float *w, *e;
} param_formed;

static inline __attribute__((always_inline)) void
param_form_line(int64_t n, const char *restrict post, const char *restrict edit, float t,
                float *restrict w, float *restrict e) {
    for (int64_t i = 0; i < n; i++) {
        float from = param_bf16(post, i), delta = param_bf16(edit, i) - from;
        if (w != NULL)
            w[i] = from + t * delta;
        if (e != NULL)
            e[i] = delta;
    }
}

/* Between two bf16 models, as most are: from and to memory without a stop. */
static void param_form_bf16(int64_t n, const char *post, const char *edit, float t,
                            param_formed out) {
    for (int64_t i = 0; i < n; i += BF16_AT_ONCE) {
        int64_t part = n - i < BF16_AT_ONCE ? n - i : BF16_AT_ONCE;
        const char *from = post + 2 * i, *to = edit + 2 * i;
        __builtin_prefetch((const void *)((uintptr_t)from + 2 * BF16_AHEAD));
        __builtin_prefetch((const void *)((uintptr_t)to + 2 * BF16_AHEAD));
        if (part < BF16_AT_ONCE)
            param_form_line(part, from, to, t, out.w != NULL ? out.w + i : NULL,
                            out.e != NULL ? out.e + i : NULL);
        else if (out.e == NULL)
            param_form_line(BF16_AT_ONCE, from, to, t, out.w + i, NULL);
        else if (out.w == NULL)
            param_form_line(BF16_AT_ONCE, from, to, t, NULL, out.e + i);
        else
            param_form_line(BF16_AT_ONCE, from, to, t, out.w + i, out.e + i);
    }
}

/* Of a chunk of at most CHUNK elements from element `at` of the block on, whatever the types and the direction. */
static void param_form_any(const dpt_param *param, float t, int64_t at, int64_t n,
                           const char *stored_post, const char *stored_edit, param_formed out) {
    float post[CHUNK], own[CHUNK], *e = out.e != NULL ? out.e : own;
    dpt_dtype_to_f32(param->post_type, stored_post, post, n);
    dpt_dtype_to_f32(param->edit_type, stored_edit, e, n);
    for (int64_t i = 0; i < n && !param->direct; i++)
        e[i] -= post[i];
    for (int64_t i = 0; i < n && param->signs != NULL; i++)
        e[i] = dpt_rng_mask_bit(param->signs, at + i) ? -e[i] : e[i];
    for (int64_t i = 0; i < n && out.w != NULL; i++)
        out.w[i] = post[i] + t * e[i];
}

/* W(t) = post + t E and E of n elements from element `at` on. @param[in] first element of the block that the values begin
 * with. */
static void param_form_part(const dpt_param *param, int64_t first, float t, int64_t at, int64_t n,
                            param_formed out) {
    int64_t post_size = dpt_dtype_size(param->post_type);
    int64_t edit_size = dpt_dtype_size(param->edit_type);
    bool bf16 = param->post_type == DPT_BF16 && param->edit_type == DPT_BF16 &&
                param->signs == NULL && !param->direct;
#pragma omp parallel for schedule(static) if (n > PARALLEL_MIN)
    for (int64_t i = 0; i < n; i += CHUNK) {
        int64_t part = n - i < CHUNK ? n - i : CHUNK;
        const char *post = param->post + (at + i) * post_size;
        const char *edit = param->edit + (at + i) * edit_size;
        param_formed to = {out.w != NULL ? out.w + i : NULL, out.e != NULL ? out.e + i : NULL};
        if (bf16)
            param_form_bf16(part, post, edit, t, to);
        else
            param_form_any(param, t, first + at + i, part, post, edit, to);
    }
}

static void param_form(const dpt_param *param, float t, int64_t at, int64_t n, param_formed out) {
    param_form_part(param, 0, t, at, n, out);
}

/* Elements of one of the two models as they stand. */
static void param_copy(dpt_dtype type, const char *stored, int64_t at, int64_t n, float *out) {
    int64_t size = dpt_dtype_size(type);
#pragma omp parallel for schedule(static) if (n > PARALLEL_MIN)
    for (int64_t i = 0; i < n; i += CHUNK)
        dpt_dtype_to_f32(type, stored + (at + i) * size, out + i, n - i < CHUNK ? n - i : CHUNK);
}

static bool param_moves(const dpt_param *param, double t) {
    return param->has_delta && !param->still && t != 0.0;
}

static bool param_is_edit(const dpt_param *param, double t) {
    return param_moves(param, t) && t == 1.0 && param->signs == NULL && !param->direct;
}

static void param_weights_run(const dpt_param *param, double t, int64_t at, int64_t n, float *out) {
    if (param_is_edit(param, t))
        param_copy(param->edit_type, param->edit, at, n, out);
    else if (param_moves(param, t))
        param_form(param, (float)t, at, n, (param_formed){.w = out});
    else
        param_copy(param->post_type, param->post, at, n, out);
}

void dpt_param_weights(const dpt_param *param, double t, int64_t row, int64_t rows, float *out) {
    param_weights_run(param, t, row * param->cols, rows * param->cols, out);
}

bool dpt_param_get_stored(const dpt_param *param, double t, bool terms, dpt_param_stored *out) {
    bool delta = terms && param->has_delta;
    bool moves = param_moves(param, t) || delta;
    bool both = moves && (delta || !param_is_edit(param, t));
    if (moves && (param->edit_type != DPT_BF16 || param->direct || param->signs != NULL))
        return false;
    if ((!moves || both) && param->post_type != DPT_BF16)
        return false;
    const char *first = moves && !both ? param->edit : param->post;
    *out = (dpt_param_stored){.post = (const uint16_t *)(const void *)first,
                              .edit = both ? (const uint16_t *)(const void *)param->edit : NULL,
                              .t = both && !param->still ? (float)t : 0.0F};
    return true;
}

void dpt_param_weights_split(const dpt_param *param, double t, int64_t row, int64_t rows,
                             uint16_t *high, uint16_t *low) {
    int64_t first = row * param->cols, n = rows * param->cols;
#pragma omp parallel for schedule(static) if (n > PARALLEL_MIN)
    for (int64_t i = 0; i < n; i += CHUNK) {
        float w[CHUNK], rest[CHUNK];
        int64_t part = n - i < CHUNK ? n - i : CHUNK;
        param_weights_run(param, t, first + i, part, w);
        dpt_dtype_from_f32(DPT_BF16, w, high + i, part);
        dpt_dtype_to_f32(DPT_BF16, high + i, rest, part);
        for (int64_t j = 0; j < part; j++)
            rest[j] = w[j] - rest[j];
        dpt_dtype_from_f32(DPT_BF16, rest, low + i, part);
    }
}

void dpt_param_delta_bf16(const dpt_param *param, int64_t row, int64_t rows, uint16_t *out) {
    int64_t first = row * param->cols, n = rows * param->cols;
#pragma omp parallel for schedule(static) if (n > PARALLEL_MIN)
    for (int64_t i = 0; i < n; i += CHUNK) {
        float e[CHUNK];
        int64_t part = n - i < CHUNK ? n - i : CHUNK;
        dpt_param_delta_run(param, first + i, part, e);
        dpt_dtype_from_f32(DPT_BF16, e, out + i, part);
    }
}

void dpt_param_weights_delta(const dpt_param *param, double t, int64_t row, int64_t rows, float *w,
                             float *e) {
    int64_t at = row * param->cols, n = rows * param->cols;
    if (param_moves(param, t) && !param_is_edit(param, t)) {
        param_form(param, (float)t, at, n, (param_formed){.w = w, .e = e});
        return;
    }
    dpt_param_weights(param, t, row, rows, w);
    dpt_param_delta(param, row, rows, e);
}

void dpt_param_delta(const dpt_param *param, int64_t row, int64_t rows, float *out) {
    dpt_param_delta_run(param, row * param->cols, rows * param->cols, out);
}

void dpt_param_delta_part(const dpt_param *part, int64_t first, int64_t at, int64_t n, float *out) {
    if (part->has_delta)
        param_form_part(part, first, 1.0F, at, n, (param_formed){.e = out});
    else
        memset(out, 0, (size_t)n * sizeof *out);
}

void dpt_param_delta_run(const dpt_param *param, int64_t at, int64_t n, float *out) {
    dpt_param_delta_part(param, 0, at, n, out);
}
