#include "../stage.h"

#include "deltapath/tensor/role.h"

#include "deltapath/base/mem.h"
#include "deltapath/linalg/quantile.h"

#include <math.h>
#include <string.h>

/* BitDelta of several bits: arXiv:2410.13841 section 5.3 (Fig. 4). The magnitudes are sorted into
 * 2^bits blocks of equal count, block j ending after floor((j + 1) n / 2^bits) entries of falling
 * magnitude (ties in index order); each is replaced by the mean of its block, signs kept. */

enum { MULTIBIT_BITS, MULTIBIT_SCOPE, MULTIBIT_TENSORS };
enum { SCOPE_TENSOR, SCOPE_MODEL };
enum { TENSORS_LINEAR, TENSORS_ALL };

/* What is sorted together: all tensors, or each part of one by itself. */
typedef struct blocks {
    const dpt_parts
        *parts; /* NULL: a unit is a tensor, and all are one group; else a part, and a group */
    int units;
    int most;       /* largest count */
    int groups;     /* of units that are sorted together */
    int *group_of;  /* (units), or -1 */
    int *count;     /* (groups) 2^bits */
    int64_t *numel; /* (groups) */
    dpt_cut *cut;   /* (groups, most - 1) ends of all blocks but the last */
    float *mean;    /* (groups, most) */
    double *first;  /* (units) mean of the largest block */
    double *zeros;  /* (units) entries that are 0 */
} blocks;

static void multibit_destroy(dpt_edit_stage *stage) {
    blocks *b = stage->state;
    if (b == NULL)
        return;
    dpt_mem_free(b->group_of);
    dpt_mem_free(b->count);
    dpt_mem_free(b->numel);
    dpt_mem_free(b->cut);
    dpt_mem_free(b->mean);
    dpt_mem_free(b->first);
    dpt_mem_free(b->zeros);
    dpt_mem_free(b);
}

static bool multibit_covers(const dpt_edit_stage_spec *spec, const dpt_tensor_info *info) {
    if ((int)dpt_edit_value(spec, MULTIBIT_TENSORS) == TENSORS_ALL)
        return dpt_role_is_matrix(info);
    return dpt_role_is_linear(info);
}

/* Entries before the end of block j: floor((j + 1) n / count) without overflow. */
static int64_t multibit_block_end(int64_t n, int count, int j) {
    return n / count * (j + 1) + n % count * (j + 1) / count;
}

static int multibit_block_of(const blocks *b, int group, uint32_t bits, int tensor, int64_t ig) {
    const dpt_cut *cut = b->cut + (int64_t)group * (b->most - 1);
    int low = 0,
        high = b->count[group] - 1; /* the first cut that keeps the entry, or the last block */
    while (low < high) {
        int middle = (low + high) / 2;
        if (dpt_cut_keeps(&cut[middle], bits, tensor, ig))
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static uint32_t multibit_magnitude_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits & UINT32_C(0x7fffffff);
}

/* Sums of the magnitudes of each block, and after them how many entries are 0. */
static void multibit_block_sums(const dpt_edit_stage *stage, const dpt_edit_strip *strip,
                                const float *delta, double *sums) {
    const blocks *b = stage->state;
    int group = b->group_of[strip->part >= 0 ? strip->part : strip->tensor];
    for (int j = 0; j <= b->most; j++)
        sums[j] = 0.0;
    for (int64_t i = 0; i < strip->n; i++) {
        sums[multibit_block_of(b, group, multibit_magnitude_bits(delta[i]), strip->tensor,
                               strip->ig + i * strip->stride)] += fabs((double)delta[i]);
        sums[b->most] += delta[i] == 0.0f;
    }
}

static int multibit_count_of(const dpt_edit_stage_spec *spec, int tensor) {
    return 1 << (int)dpt_edit_value_of(spec, MULTIBIT_BITS, tensor);
}

static int multibit_tensor_of(const blocks *b, int unit) {
    return b->parts != NULL ? b->parts->items[unit].tensor : unit;
}

/* Groups of the units. */
static void multibit_group(const dpt_edit_stage *stage, blocks *b) {
    for (int u = 0; u < b->units; u++) {
        int t = multibit_tensor_of(b, u);
        const dpt_layout *layout = b->parts != NULL ? &b->parts->items[u].layout : NULL;
        b->group_of[u] = stage->covers[t] ? (b->parts == NULL ? 0 : b->groups) : -1;
        if (!stage->covers[t])
            continue;
        b->numel[b->group_of[u]] +=
            (layout != NULL ? layout->rows * layout->cols : stage->catalog->tensors[t].numel) -
            dpt_edit_left_out(stage->input, t);
        b->count[b->group_of[u]] = multibit_count_of(stage->spec, t);
        b->groups = b->group_of[u] + 1;
    }
}

static dpt_status multibit_create(dpt_edit_stage *stage) {
    bool model = (int)dpt_edit_value(stage->spec, MULTIBIT_SCOPE) == SCOPE_MODEL;
    blocks *b = dpt_mem_zalloc(1, sizeof *b, "blocks of magnitudes");
    stage->state = b;
    if (b == NULL)
        return DPT_ERR_OUTPUT;
    b->parts = model ? NULL : stage->input->parts;
    b->units = model ? stage->catalog->count : b->parts->count;
    b->most = 1;
    for (int t = 0; t < stage->catalog->count; t++)
        if (stage->covers[t] && multibit_count_of(stage->spec, t) > b->most)
            b->most = multibit_count_of(stage->spec, t);
    int64_t n = b->units;
    b->group_of = dpt_mem_zalloc(n, sizeof *b->group_of, "blocks of magnitudes");
    b->count = dpt_mem_zalloc(n, sizeof *b->count, "blocks of magnitudes");
    b->numel = dpt_mem_zalloc(n, sizeof *b->numel, "blocks of magnitudes");
    b->first = dpt_mem_zalloc(n, sizeof *b->first, "blocks of magnitudes");
    b->cut = dpt_mem_zalloc(n * b->most, sizeof *b->cut, "blocks of magnitudes");
    b->mean = dpt_mem_zalloc(n * b->most, sizeof *b->mean, "blocks of magnitudes");
    b->zeros = dpt_mem_zalloc(n, sizeof *b->zeros, "blocks of magnitudes");
    if (!b->group_of || !b->count || !b->numel || !b->first || !b->cut || !b->mean || !b->zeros)
        return DPT_ERR_OUTPUT;
    multibit_group(stage, b);
    return DPT_OK;
}

static dpt_status multibit_find_cuts(dpt_edit_work *work, dpt_edit_stage *stage, blocks *b) {
    int64_t count = (int64_t)b->groups * (b->most - 1);
    dpt_quantile_target *targets = dpt_mem_alloc(count, sizeof *targets, "blocks of magnitudes");
    dpt_status st = dpt_agree(stage->input->comm, targets != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    if (st == DPT_OK && count > 0) {
        for (int64_t i = 0; i < count; i++) {
            int group = (int)(i / (b->most - 1)), j = (int)(i % (b->most - 1));
            int last = b->count[group] - 1; /* a group of fewer blocks repeats its end */
            targets[i] = (dpt_quantile_target){
                group, multibit_block_end(b->numel[group], b->count[group], j < last ? j : last)};
        }
        dpt_edit_view view = {.work = work, .upto = stage->index};
        const dpt_quantile_source source = dpt_edit_value_source(&view);
        st = dpt_quantile_select(stage->input->comm, stage->input->shard, b->parts, b->group_of,
                                 count, targets, &source, b->cut);
    }
    dpt_mem_free(targets);
    return st;
}

/* Mean of a block of a group, from the totals of its units. */
static double multibit_mean(const blocks *b, int group, int block, double sum) {
    int64_t n = b->numel[group];
    int64_t begin = block > 0 ? multibit_block_end(n, b->count[group], block - 1) : 0;
    int64_t count = multibit_block_end(n, b->count[group], block) - begin;
    return count > 0 ? sum / (double)count : 0.0;
}

static void multibit_set_means(const dpt_edit_stage *stage, blocks *b, const double *totals) {
    const int64_t stride = (int64_t)b->most + 1;
    double all[1 << 8] = {0.0}; /* of one group that has all units */
    for (int u = 0; b->parts == NULL && u < b->units; u++)
        for (int j = 0; b->group_of[u] == 0 && j < b->count[0]; j++)
            all[j] += totals[u * stride + j];
    for (int u = 0; u < b->units; u++) {
        const double *sums = b->parts != NULL ? totals + u * stride : all;
        int group = b->group_of[u];
        b->zeros[u] = totals[u * stride + b->most] -
                      (double)dpt_edit_left_out(stage->input, multibit_tensor_of(b, u));
        for (int j = 0; group >= 0 && j < b->count[group]; j++)
            b->mean[(int64_t)group * b->most + j] = (float)multibit_mean(b, group, j, sums[j]);
        b->first[u] = group >= 0 ? multibit_mean(b, group, 0, sums[0]) : 0.0;
    }
}

static dpt_status multibit_prepare(dpt_edit_work *work, dpt_edit_stage *stage) {
    double *totals = NULL;
    dpt_status st = dpt_agree(stage->input->comm, multibit_create(stage));
    blocks *b = stage->state;
    if (st == DPT_OK)
        st = multibit_find_cuts(work, stage, b);
    if (st == DPT_OK)
        st = dpt_edit_sums(work, stage,
                           b->parts != NULL ? DPT_EDIT_OVER_PARTS : DPT_EDIT_OVER_TENSORS,
                           b->most + 1, multibit_block_sums, &totals);
    if (st == DPT_OK)
        multibit_set_means(stage, b, totals);
    dpt_mem_free(totals);
    return st;
}

static void multibit_apply(const dpt_edit_stage *stage, dpt_range range, float *delta) {
    const blocks *b = stage->state;
    for (int64_t at = 0; at < range.n;) {
        dpt_part_span span = {.n = range.n, .ways = 1, .part = {range.tensor}};
        if (b->parts != NULL)
            span = dpt_parts_span(b->parts, range.tensor, range.ig + at, range.n - at);
        for (int64_t i = at; i < at + span.n; i++) {
            int group = b->group_of[span.part[(i - at) % span.ways]];
            float size = b->mean[(int64_t)group * b->most +
                                 multibit_block_of(b, group, multibit_magnitude_bits(delta[i]),
                                                   range.tensor, range.ig + i)];
            float signed_size = delta[i] > 0.0f ? size : -size;
            delta[i] = delta[i] == 0.0f ? 0.0f : signed_size;
        }
        at += span.n;
    }
}

static double multibit_scale(const dpt_edit_stage *stage, int tensor) {
    const blocks *b = stage->state;
    return b->parts != NULL ? dpt_edit_part_mean(b->parts, tensor, b->first) : b->first[tensor];
}

static double multibit_zeros(const dpt_edit_stage *stage, int tensor) {
    const blocks *b = stage->state;
    int first = b->parts != NULL ? b->parts->first[tensor] : tensor;
    int last = b->parts != NULL ? b->parts->first[tensor + 1] : tensor + 1;
    double zeros = 0.0;
    for (int u = first; u < last; u++)
        zeros += b->zeros[u];
    return zeros;
}

static double multibit_bytes(const dpt_edit_stage_spec *spec, const dpt_edit_packed *of) {
    double bits = isnan(of->value) ? dpt_edit_value(spec, MULTIBIT_BITS) : of->value;
    bool model = (int)dpt_edit_value(spec, MULTIBIT_SCOPE) == SCOPE_MODEL;
    double groups = model ? 1.0 : (double)of->count;
    return ceil((double)of->info->numel * (1.0 + bits) / 8.0) + 4.0 * groups * exp2(bits);
}

/* One block of a matrix is all of it. */
static void multibit_rewrite(dpt_edit_stage_spec *spec) {
    if (dpt_edit_value(spec, MULTIBIT_BITS) == 0.0 &&
        (int)dpt_edit_value(spec, MULTIBIT_SCOPE) == SCOPE_TENSOR)
        dpt_edit_stage_become(spec, "bitdelta", "tensors", dpt_edit_value(spec, MULTIBIT_TENSORS));
}

static int multibit_cuts(const dpt_edit_stage_spec *spec) {
    double bits = dpt_edit_value(spec, MULTIBIT_BITS); /* not known before it is found */
    return (1 << (bits >= 0.0 ? (int)bits : 0)) - 1;
}

static double multibit_reads(const dpt_edit_stage_spec *spec) {
    return 1.0 + (multibit_cuts(spec) > 0 ? DPT_QUANTILE_READS : 0.0); /* means, cuts */
}

const dpt_edit_method dpt_edit_method_multibit = {
    .name = "multibit",
    .help = "replace magnitudes by the means of 2^bits blocks of equal count, signs kept",
    .nparams = 3,
    .params = {{.name = "bits",
                .kind = DPT_PARAM_INTEGER,
                .required = true,
                .lower = 0.0,
                .upper = 8.0,
                .help = "2^bits magnitudes; 0 is BitDelta"},
               {.name = "scope",
                .kind = DPT_PARAM_CHOICE,
                .choices = "tensor|model",
                .default_value = SCOPE_TENSOR,
                .help = "blocks of each matrix, or of all edited tensors together"},
               {.name = "tensors",
                .kind = DPT_PARAM_CHOICE,
                .choices = "linear|all",
                .default_value = TENSORS_LINEAR,
                .help = "linear weights of attention and MLP only, or every matrix"}},
    .rewrite = multibit_rewrite,
    .covers = multibit_covers,
    .reads = multibit_reads,
    .prepare = multibit_prepare,
    .cuts = multibit_cuts,
    .apply = multibit_apply,
    .bytes = multibit_bytes,
    .scale = multibit_scale,
    .zeros = multibit_zeros,
    .destroy = multibit_destroy};
