/* Forward and backward pass (terms) of a stack of each family against sgemm, within one run: each pass against the
 * products right before and after it, for the clock of a machine changes from second to second. Weights and
 * edit are bf16; W(t) at t = 0.4 is formed on the fly. Experts are a quarter as wide as an MLP, eight, of which a
 * token uses two. "Its shapes" is what sgemm makes of the products of the pass, with weights in fp32 that lie there:
 * as many rows as there are tokens, or as an expert gets when the tokens are shared evenly. An image has at least so
 * many patches, in a square.
 *
 * Usage: bench_model [HIDDEN [TOKENS [LAYERS [MODEL_TYPE [SEQUENCES [PRECISION]]]]]]
 * (2048 512 3 llama 1 fp32; all: one line a family; experts: those that have some;
 * images). A batch is SEQUENCES of TOKENS each.
 * With PRECISION bf16 the passes in bf16 stand against the same in fp32, turn by turn.
 */
#include "bench_print.h"

#include <cblas.h>
#include <math.h>
#include <mpi.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../src/model/arch/arch.h"
#include "../src/model/arch/image.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/comm.h"
#include "deltapath/model/model.h"

enum { HEAD_DIM = 128, VOCABULARY = 8192, PEAK_SIDE = 2048, PEAK_PRODUCTS = 4, REPEATS = 5 };

enum { STORED_SIDES = sizeof((dpt_row *)NULL)->stored / sizeof(dpt_axis) };

#define CLASS_TEXTS "text_embeds.weight" /* the same in both models */

enum { PATCH = 16, CHANNELS = 3, CLASSES = 1000 };

enum { EXPERTS = 8, EXPERTS_USED = 2, NAME_MAX_BYTES = 160 };

typedef struct sizes {
    int64_t hidden, tokens, layers, sequences; /* tokens of each sequence */
} sizes;

static int64_t batch_tokens(const sizes *s) {
    return s->tokens * s->sequences;
}

static bool is_of_images(const dpt_family *family) {
    return family->knows == dpt_image_knows;
}

static int patches_across(const sizes *s) {
    return (int)ceil(sqrt((double)s->tokens));
}

static const dpt_family *const all_families[] = {
#define FAMILY_ADDRESS(NAME) &dpt_family_##NAME,
    DPT_FAMILIES(FAMILY_ADDRESS)
#undef FAMILY_ADDRESS
};

static uint32_t seed; /* of the values: another one for the edit */

/* Values of about +-0.03 as bf16, the same for the same element. */
static dpt_status fetch(void *ctx, int64_t count, const dpt_block *wants, void *const *outs) {
    const dpt_catalog *catalog = ctx;
    for (int64_t i = 0; i < count; i++) {
        const dpt_block *block = &wants[i];
        uint16_t *out = outs[i];
        bool norm = catalog->tensors[block->tensor].ndim == 1;
        bool fixed = strcmp(catalog->tensors[block->tensor].name, CLASS_TEXTS) == 0;
        for (int64_t e = 0; e < block->rows * block->cols; e++) {
            uint32_t h = (uint32_t)(block->ig + e / block->cols * block->stride + e % block->cols) +
                         (fixed ? 0 : seed) + (uint32_t)block->tensor * 7919U;
            h = (h ^ (h >> 15)) * 0x2c1b3c6dU;
            h = (h ^ (h >> 12)) * 0x297a2d39U;
            out[e] = (uint16_t)(norm ? 0x3f80U : 0x3c00U | (h & 0x80ffU)); /* 1, or about 0.01 */
        }
    }
    return DPT_OK;
}

/* Conv1D of GPT-2 and the experts of gpt-oss are stored as (inputs, outputs). */
static bool is_transposed(const dpt_arch *arch, const dpt_row *row) {
    return row->cols != DPT_AXIS_NONE && row->part != 0 &&
           (arch->family == &dpt_family_gpt2 ||
            (arch->family == &dpt_family_gpt_oss && row->expert));
}

/* A tensor of a row and of those that share it, or of one expert. */
static dpt_status add(dpt_catalog *catalog, const dpt_arch *arch, dpt_slot slot, int64_t layer,
                      int64_t expert) {
    const dpt_row *row = arch->row[slot];
    char name[NAME_MAX_BYTES];
    int64_t rows = 0, cols = arch->length[row->cols], shape[STORED_SIDES];
    int ndim = 0;
    for (int other = 0; other < DPT_SLOTS; other++) {
        bool same = arch->row[other] != NULL && strcmp(arch->row[other]->name, row->name) == 0;
        if (same && other < (int)slot)
            return DPT_OK; /* it is there already */
        rows += same ? arch->length[arch->row[other]->rows] : 0;
    }
    if (row->expert && row->part != 0)
        shape[ndim++] = arch->experts.count;
    for (int d = 0; d < STORED_SIDES && row->stored[d] != DPT_AXIS_NONE; d++)
        shape[ndim++] = arch->length[row->stored[d]];
    if (ndim == 0 || row->expert) {
        shape[ndim++] = is_transposed(arch, row) ? cols : rows;
        if (row->cols != DPT_AXIS_NONE)
            shape[ndim++] = is_transposed(arch, row) ? rows : cols;
    }
    dpt_arch_name(arch, row, layer, expert, name, sizeof name);
    return dpt_catalog_add(catalog, name, DPT_BF16, ndim, shape);
}

static dpt_status make_catalog(const dpt_arch *arch, dpt_catalog *catalog) {
    dpt_catalog_init(catalog);
    dpt_status st = DPT_OK;
    for (int64_t layer = -1; layer < arch->layers; layer++)
        for (int slot = 0; slot < DPT_SLOTS; slot++) {
            const dpt_row *row = arch->row[slot];
            if (row == NULL || dpt_slot_is_of_layer(slot) != (layer >= 0))
                continue;
            int64_t copies = row->part == 0 ? dpt_arch_copies(arch, row) : 1;
            for (int64_t e = 0; e < copies && st == DPT_OK; e++)
                st = add(catalog, arch, (dpt_slot)slot, layer, e);
        }
    return st == DPT_OK ? dpt_catalog_sort(catalog) : st;
}

/* The products of one matrix in one call, in all layers. */
typedef struct products {
    int64_t rows, n, k;    /* x (rows, k), W (n, k) */
    int64_t copies;        /* of W, each with so many rows: experts */
    int64_t forward, back; /* y = x W^T, and E in the place of W; dx = dy W */
} products;

/* A backward pass recomputes a layer (dpt_arch_recomputes), forms the gradient of each input, and one product per weight for the terms. */
static products products_of(const dpt_arch *arch, dpt_slot slot, const sizes *s) {
    const dpt_row *row = arch->row[slot];
    if (row == NULL || row->cols == DPT_AXIS_NONE)
        return (products){.rows = 0};
    int64_t copies = row->expert ? arch->experts.count : 1;
    int64_t used = row->expert ? arch->experts.used : 1;
    return (products){.rows = batch_tokens(s) * used / copies,
                      .n = arch->length[row->rows],
                      .k = arch->length[row->cols],
                      .copies = copies,
                      .forward = s->layers * (dpt_arch_recomputes(arch, slot) ? 3 : 2),
                      .back = s->layers};
}

/* Of the output head, for the tokens that are scored. */
static products products_of_head(const dpt_arch *arch, int64_t scored) {
    return (products){.rows = scored,
                      .n = VOCABULARY,
                      .k = arch->length[DPT_AXIS_WIDTH],
                      .copies = 1,
                      .forward = 2,
                      .back = 1};
}

static double flops_of(products p) {
    return 2.0 * (double)(p.forward + p.back) * (double)(p.copies * p.rows) * (double)(p.n * p.k);
}

/* Of the attention that makes one row of an image, whose backward pass reads what the forward pass left. */
static products products_of_pool(const dpt_arch *arch, dpt_slot slot, const sizes *s) {
    const dpt_row *row = arch->row[slot];
    return row == NULL ? (products){.rows = 0}
                       : (products){.rows = batch_tokens(s),
                                    .n = arch->length[row->rows],
                                    .k = arch->length[row->cols],
                                    .copies = 1,
                                    .forward = 2,
                                    .back = 1};
}

/* Of a slot of a layer, of the keys and values that make one row of an image, or of the head, for which the second
 * half of each sequence is scored. Those of the patches and of single rows of an image are not counted. */
static products products_at(const dpt_arch *arch, int slot, const sizes *s) {
    if (slot < DPT_SLOTS_HEAD)
        return products_of(arch, (dpt_slot)slot, s);
    if (slot == DPT_SLOT_POOL_K || slot == DPT_SLOT_POOL_V)
        return products_of_pool(arch, (dpt_slot)slot, s);
    return slot == DPT_SLOT_HEAD && arch->side == 0
               ? products_of_head(arch, s->sequences * (s->tokens / 2))
               : (products){.rows = 0};
}

/* Floating-point operations of the products of one call. Causal attention counts the lower triangle, that of images
 * all of it; its backward pass has five products. */
static double count_flops(const dpt_arch *arch, const sizes *s) {
    double linear = 0.0, T = (double)s->tokens;
    for (int slot = DPT_SLOTS_LAYER; slot < DPT_SLOTS; slot++)
        linear += flops_of(products_at(arch, slot, s));
    double scores = T * T * (double)(s->sequences * s->layers * arch->length[DPT_AXIS_HEADS]);
    if (arch->side > 0)
        scores *= 2.0;
    return linear + scores * (2.0 + 2.0 + 5.0);
}

/* Rate [GF/s] of square products on all ranks together. */
static double sgemm_rate(const dpt_comm *world, float *a) {
    int64_t n = PEAK_SIDE;
    double t = omp_get_wtime();
    for (int k = 0; k < PEAK_PRODUCTS; k++)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)n, (int)n, 1.0F, a,
                    (int)n, a + n * n, (int)n, 0.0F, a + 2 * n * n, (int)n);
    double rate = 2.0 * PEAK_PRODUCTS * (double)(n * n * n) / (omp_get_wtime() - t) * 1e-9;
    (void)dpt_comm_sum_f64(world, &rate, 1);
    return rate;
}

static int64_t maximum(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* Floats of the weights and of the activations on one side that the products of any one matrix need. */
static void count_floats(const dpt_arch *arch, const sizes *s, int64_t *weights, int64_t *rows) {
    *weights = *rows = 0;
    for (int slot = DPT_SLOTS_LAYER; slot < DPT_SLOTS; slot++) {
        products p = products_at(arch, slot, s);
        *weights = maximum(*weights, p.copies * p.n * p.k);
        *rows = maximum(*rows, p.rows * maximum(p.n, p.k));
    }
}

static void multiply(products p, const float *x, const float *w, float *y) {
    for (int64_t i = 0; i < p.copies * p.forward; i++)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)p.rows, (int)p.n, (int)p.k, 1.0F,
                    x, (int)p.k, w + i % p.copies * p.n * p.k, (int)p.k, 0.0F, y, (int)p.n);
    for (int64_t i = 0; i < p.copies * p.back; i++)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)p.rows, (int)p.k, (int)p.n,
                    1.0F, y, (int)p.n, w + i % p.copies * p.n * p.k, (int)p.k, 0.0F, (float *)x,
                    (int)p.k);
}

/* Rate [GF/s] of the products of the layers and the head on all ranks together, each rank all of them. */
static double shapes_rate(const dpt_comm *world, const dpt_arch *arch, const sizes *s, float *a) {
    int64_t weights, rows;
    double flops = 0.0;
    count_floats(arch, s, &weights, &rows);
    double t = omp_get_wtime();
    for (int slot = DPT_SLOTS_LAYER; slot < DPT_SLOTS; slot++) {
        products p = products_at(arch, slot, s);
        flops += flops_of(p);
        if (p.rows > 0)
            multiply(p, a + weights, a, a + weights + rows);
    }
    double rate = flops / (omp_get_wtime() - t) * 1e-9;
    (void)dpt_comm_sum_f64(world, &rate, 1);
    return rate;
}

/* A tower has its keys in an object of their own. */
static char *make_image_config(const sizes *s, const dpt_family *family) {
    char keys[512];
    int hidden = (int)s->hidden;
    snprintf(keys, sizeof keys,
             "\"hidden_size\": %d, \"intermediate_size\": %d, \"num_hidden_layers\": %d, "
             "\"num_attention_heads\": %d, \"image_size\": %d, \"patch_size\": %d",
             hidden, 4 * hidden, (int)s->layers, hidden / HEAD_DIM, patches_across(s) * PATCH,
             PATCH);
    bool inner = strcmp(family->model_type, "siglip") == 0;
    return dpt_mem_format("{\"architectures\": [\"%s\"], %s%s%s}", family->architecture,
                          inner ? "\"vision_config\": {" : "", keys, inner ? "}" : "");
}

static char *make_config(const sizes *s, const dpt_family *family) {
    int hidden = (int)s->hidden, layers = (int)s->layers, heads = hidden / HEAD_DIM;
    int inner = hidden * 11 / 4, kv_heads = heads / 4 > 0 ? heads / 4 : 1;
    if (is_of_images(family))
        return make_image_config(s, family);
    if (family == &dpt_family_gpt2)
        return dpt_mem_format(
            "{\"architectures\": [\"%s\"], \"vocab_size\": %d, \"n_embd\": %d, \"n_layer\": %d, "
            "\"n_head\": %d, \"n_positions\": 65536}",
            family->architecture, VOCABULARY, hidden, layers, heads);
    bool moe = family == &dpt_family_mixtral || family == &dpt_family_gpt_oss;
    bool neox = family == &dpt_family_gpt_neox;
    return dpt_mem_format(
        "{\"architectures\": [\"%s\"], \"vocab_size\": %d, \"hidden_size\": %d, "
        "\"intermediate_size\": %d, \"moe_intermediate_size\": %d, \"num_hidden_layers\": %d, "
        "\"num_attention_heads\": %d, \"num_key_value_heads\": %d, \"head_dim\": %d, "
        "\"%s\": %d, \"num_experts_per_tok\": %d, \"max_position_embeddings\": 1048576, "
        "\"original_max_position_embeddings\": %d, \"norm_topk_prob\": true}",
        family->architecture, VOCABULARY, hidden,
        neox  ? 4 * hidden
        : moe ? inner / 4
              : inner,
        inner / 4, layers, heads, neox ? heads : kv_heads, HEAD_DIM,
        family == &dpt_family_qwen3_moe ? "num_experts" : "num_local_experts",
        moe || family == &dpt_family_qwen3_moe ? EXPERTS : 0, EXPERTS_USED, 1048576);
}

typedef struct timing {
    double forward[REPEATS], both[REPEATS]; /* [s] of the slowest rank */
    double
        square[REPEATS]; /* [GF/s] what all ranks together reached in square products around it */
    double shapes[REPEATS]; /* [GF/s] and in products of its own shapes */
} timing;

/* A batch of random tokens, the second half of each sequence scored, and what a call fills. */
typedef struct work {
    dpt_batch batch;
    int64_t *first;
    int32_t *tokens;
    uint8_t *mask;
    int32_t *labels;
    double *weight, *nll, *terms;
    float *images, *numbers; /* numbers: for products */
} work;

static work make_work(const dpt_model *model, const dpt_arch *arch, const sizes *s) {
    int64_t T = batch_tokens(s), weights, rows, square = 3 * PEAK_SIDE * PEAK_SIDE;
    count_floats(arch, s, &weights, &rows);
    int64_t floats = maximum(weights + 2 * rows, square);
    int64_t pixels = s->sequences * CHANNELS * arch->side * arch->side;
    work w = {.first = malloc((size_t)(s->sequences + 1) * sizeof *w.first),
              .tokens = malloc((size_t)T * sizeof *w.tokens),
              .mask = malloc((size_t)T),
              .labels = calloc((size_t)s->sequences, sizeof *w.labels),
              .images = pixels > 0 ? malloc((size_t)pixels * sizeof *w.images) : NULL,
              .weight = malloc((size_t)T * sizeof *w.weight),
              .nll = malloc((size_t)T * sizeof *w.nll),
              .terms = malloc((size_t)(s->sequences * dpt_model_columns(model)) * sizeof *w.terms),
              .numbers = malloc((size_t)floats * sizeof *w.numbers)};
    for (int64_t i = 0; i < floats; i++)
        w.numbers[i] = (float)(i % 17) * 0.1F;
    for (int64_t i = 0; i <= s->sequences; i++)
        w.first[i] = i * s->tokens;
    for (int64_t i = 0; i < T; i++) {
        w.tokens[i] = (int32_t)(i * 2654435761 % VOCABULARY);
        w.mask[i] = i % s->tokens >= s->tokens / 2;
        w.weight[i] = 1.0;
    }
    for (int64_t i = 0; i < pixels; i++)
        w.images[i] = (float)(i * 2654435761 % 1021) / 1021.0F - 0.5F;
    w.batch = (dpt_batch){.sequences = s->sequences,
                          .first = w.first,
                          .tokens = w.tokens,
                          .mask = w.mask,
                          .images = w.images,
                          .labels = w.labels};
    return w;
}

static void free_work(work *w) {
    free(w->first);
    free(w->tokens);
    free(w->mask);
    free(w->labels);
    free(w->images);
    free(w->weight);
    free(w->nll);
    free(w->terms);
    free(w->numbers);
}

/* Seconds of the passes in each precision, turn by turn. */
typedef struct precisions {
    double forward[2][REPEATS], both[2][REPEATS];
} precisions;

/* One call on all ranks. @param[out] seconds of the slowest. */
static dpt_status time_pass(const dpt_comm *world, dpt_model *model, const work *w,
                            dpt_model_backward mode, double *seconds) {
    MPI_Barrier(world->mpi);
    double t = omp_get_wtime();
    dpt_status st =
        dpt_model_run(model, &w->batch, 0.4, mode, w->weight, w->nll, NULL, w->terms, NULL);
    *seconds = omp_get_wtime() - t;
    (void)dpt_comm_max_f64(world, seconds, 1);
    return st;
}

static dpt_status time_model(const dpt_comm *world, dpt_model *model, const dpt_arch *arch,
                             const sizes *s, timing *out) {
    work w = make_work(model, arch, s);
    dpt_status st = DPT_OK;
    (void)sgemm_rate(world, w.numbers);
    for (int i = -1; st == DPT_OK && i < REPEATS; i++) { /* the first makes the buffers */
        double forward = 0.0, both = 0.0, before = sgemm_rate(world, w.numbers);
        st = time_pass(world, model, &w, DPT_BACKWARD_TERMS, &both);
        double after = sgemm_rate(world, w.numbers);
        double shapes = shapes_rate(world, arch, s, w.numbers);
        if (st == DPT_OK)
            st = time_pass(world, model, &w, DPT_BACKWARD_NONE, &forward);
        if (i < 0)
            continue;
        out->forward[i] = forward;
        out->both[i] = both;
        out->square[i] = (before + after) / 2.0;
        out->shapes[i] = shapes;
    }
    free_work(&w);
    return st;
}

static dpt_status time_precisions(const dpt_comm *world, dpt_model *model, const dpt_arch *arch,
                                  const sizes *s, precisions *out) {
    work w = make_work(model, arch, s);
    dpt_status st = DPT_OK;
    for (int i = -1; i < REPEATS; i++) /* the first makes the buffers */
        for (int p = 0; p < 2 && st == DPT_OK; p++) {
            double both = 0.0, forward = 0.0;
            st = dpt_model_set_precision(model, (dpt_precision)p);
            if (st == DPT_OK)
                st = time_pass(world, model, &w, DPT_BACKWARD_TERMS, &both);
            if (st == DPT_OK)
                st = time_pass(world, model, &w, DPT_BACKWARD_NONE, &forward);
            out->both[p][i < 0 ? 0 : i] = both;
            out->forward[p][i < 0 ? 0 : i] = forward;
        }
    free_work(&w);
    return st;
}

static dpt_status describe(const sizes *s, const dpt_family *family, char **config,
                           dpt_arch *arch) {
    dpt_catalog classes; /* of an image model, which its head counts */
    int64_t head[] = {CLASSES, s->hidden};
    dpt_catalog_init(&classes);
    *config = make_config(s, family);
    if (*config == NULL)
        return DPT_ERR_OUTPUT;
    json_t *root = json_loads(*config, 0, NULL);
    dpt_status st = dpt_catalog_add(&classes, "classifier.weight", DPT_BF16, 2, head);
    if (st == DPT_OK)
        st = dpt_catalog_add(&classes, CLASS_TEXTS, DPT_BF16, 2, head);
    if (st == DPT_OK)
        st = dpt_arch_read(root, &classes, arch);
    json_decref(root);
    dpt_catalog_destroy(&classes);
    return st;
}

/* The median of what each pass reached of the rate next to it; what was reached, with its spread. */
static void say_rate(const char *name, double flops, const timing *times, const double *rate) {
    double ratio[REPEATS], limit[REPEATS], both[REPEATS];
    for (int i = 0; i < REPEATS; i++) {
        ratio[i] = flops / times->both[i] / rate[i];
        limit[i] = rate[i];
        both[i] = times->both[i];
    }
    bench_say((bench_result){.name = name,
                             .unit = "GF/s",
                             .figure = bench_over(both, REPEATS, flops),
                             .limit = bench_of(limit, REPEATS).median,
                             .ratio = bench_of(ratio, REPEATS).median,
                             .seconds = bench_of(both, REPEATS).median});
    bench_figure spread = bench_of(ratio, REPEATS);
    if (bench_rank == 0)
        printf("%34s ratios %.2f to %.2f\n", "", spread.low, spread.high);
}

static const char *name_of(const sizes *s, const dpt_family *family, const char *what) {
    static char name[NAME_MAX_BYTES];
    snprintf(name, sizeof name, "%s %d, %d layers, %d x %d tokens: %s", family->model_type,
             (int)s->hidden, (int)s->layers, (int)s->sequences, (int)s->tokens, what);
    return name;
}

/* flops: [1e9] of a pass; models: bytes of both, which a pass reads once at least. */
static void say_pass(const sizes *s, const dpt_family *family, double flops, double models,
                     timing *times) {
    bench_say((bench_result){.name = name_of(s, family, "forward"),
                             .unit = "s",
                             .figure = bench_of(times->forward, REPEATS)});
    say_rate(name_of(s, family, "pass of sgemm"), flops, times, times->square);
    say_rate(name_of(s, family, "pass of its shapes"), flops, times, times->shapes);
    double intensity = 1e9 * flops / models;
    bench_say((bench_result){.name = name_of(s, family, "intensity"),
                             .unit = "flop/B",
                             .figure = {intensity, intensity, intensity}});
}

/* Of the passes in bf16, against those in fp32 next to them. */
static void say_precision(const char *name, double seconds[2][REPEATS]) {
    double ratio[REPEATS];
    for (int i = 0; i < REPEATS; i++)
        ratio[i] = seconds[1][i] / seconds[0][i];
    bench_say((bench_result){.name = name,
                             .unit = "s",
                             .figure = bench_of(seconds[1], REPEATS),
                             .limit = bench_of(seconds[0], REPEATS).median,
                             .ratio = bench_of(ratio, REPEATS).median});
}

static void say_precisions(const sizes *s, const dpt_family *family, precisions *times) {
    say_precision(name_of(s, family, "forward, bf16 of fp32"), times->forward);
    say_precision(name_of(s, family, "pass, bf16 of fp32"), times->both);
}

/* Whether a family is one that was asked for. */
static bool is_wanted(const dpt_family *family, const char *wanted) {
    bool experts = family == &dpt_family_mixtral || family == &dpt_family_qwen3_moe ||
                   family == &dpt_family_gpt_oss;
    return strcmp(wanted, "all") == 0 || (strcmp(wanted, "experts") == 0 && experts) ||
           (strcmp(wanted, "images") == 0 && is_of_images(family)) ||
           strcmp(wanted, family->model_type) == 0;
}

static dpt_status bench(const dpt_comm *world, const sizes *s, bool bf16,
                        const dpt_family *family) {
    dpt_catalog catalog;
    dpt_model *model = NULL;
    dpt_arch arch;
    timing times;
    precisions both;
    char *config = NULL;
    sizes of = *s; /* with all tokens of an image */
    dpt_status st = describe(s, family, &config, &arch);
    of.tokens = st == DPT_OK && arch.side > 0 ? arch.image_tokens : s->tokens;
    if (st != DPT_OK) {
        dpt_mem_free(config);
        return st;
    }
    st = make_catalog(&arch, &catalog);
    dpt_source source = {.ctx = &catalog, .catalog = &catalog, .fetch = fetch};
    seed = 0;
    if (st == DPT_OK)
        st = dpt_model_create(world, NULL, config, source, &model);
    seed = 12345;
    if (st == DPT_OK)
        st = dpt_model_bind_edit(model, &source);
    if (st == DPT_OK)
        st = bf16 ? time_precisions(world, model, &arch, &of, &both)
                  : time_model(world, model, &arch, &of, &times);
    if (st == DPT_OK && bf16)
        say_precisions(&of, family, &both);
    else if (st == DPT_OK)
        say_pass(&of, family, count_flops(&arch, &of) * 1e-9,
                 2.0 * (double)dpt_catalog_bytes(&catalog), &times);
    dpt_model_destroy(model);
    dpt_catalog_destroy(&catalog);
    dpt_arch_destroy(&arch);
    dpt_mem_free(config);
    return st;
}

int main(int argc, char **argv) {
    dpt_comm world;
    MPI_Init(&argc, &argv);
    dpt_status st = dpt_comm_create(MPI_COMM_WORLD, &world);
    bench_begin(&argc, argv, "bench_model", world.rank, world.size);
    sizes s = {.hidden = argc > 1 ? atoi(argv[1]) : 2048,
               .tokens = argc > 2 ? atoi(argv[2]) : 512,
               .layers = argc > 3 ? atoi(argv[3]) : 3,
               .sequences = argc > 5 ? atoi(argv[5]) : 1};
    const char *wanted = argc > 4 ? argv[4] : "llama";
    bool bf16 = argc > 6 && strcmp(argv[6], "bf16") == 0;
    if (st == DPT_OK && world.rank == 0)
        printf("%d layers, %d ranks x %d threads\n", (int)s.layers, world.size,
               omp_get_max_threads());
    for (size_t f = 0; f < sizeof all_families / sizeof all_families[0] && st == DPT_OK; f++)
        if (is_wanted(all_families[f], wanted))
            st = bench(&world, &s, bf16, all_families[f]);
    if (st != DPT_OK)
        fprintf(stderr, "bench_model: %s\n", dpt_error_message());
    bench_end();
    dpt_comm_destroy(&world);
    MPI_Finalize();
    return st;
}
