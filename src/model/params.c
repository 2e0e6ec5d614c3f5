#include "params.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"

#include <string.h>

enum { CHUNK = 1 << 13 }; /* elements formed at a time: three fp32 chunks stay in the L2 cache */

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
    for (int i = 0; i < params->count; i++)
        dpt_mem_free(params->items[i].post);
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
    param->post_type = info->dtype;
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

int64_t dpt_params_bytes(const dpt_params *params) {
    int64_t bytes = 0;
    for (int i = 0; i < params->count; i++)
        bytes += dpt_param_numel(&params->items[i]) * dpt_dtype_size(params->items[i].post_type);
    return bytes;
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
    int64_t first = row * param->cols;
    int64_t n = rows * param->cols;
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
    dpt_param_delta_run(param, row * param->cols, rows * param->cols, out);
}

void dpt_param_delta_run(const dpt_param *param, int64_t at, int64_t n, float *out) {
    if (!param->has_delta) {
        memset(out, 0, (size_t)n * sizeof *out);
        return;
    }
#pragma omp parallel for schedule(static) if (n > 8 * CHUNK)
    for (int64_t i = 0; i < n; i += CHUNK)
        param_form_chunk(param, false, 1.0F, at + i, n - i < CHUNK ? n - i : CHUNK, out + i);
}
