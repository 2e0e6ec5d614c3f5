/* Forward and backward pass (terms) of a stack of each family against sgemm, within one run: each pass against the
 * products right before and after it, for the clock of a machine changes from second to second. Weights and
 * edit are bf16; W(t) at t = 0.4 is formed on the fly. Experts are a quarter as wide as an MLP, eight, of which a
 * token uses two.
 *
 * Usage: bench_model [HIDDEN [TOKENS [LAYERS [MODEL_TYPE]]]]   (2048 512 3 llama; all: one line a family)
 */
#include <cblas.h>
#include <mpi.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../src/model/arch/arch.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/comm.h"
#include "deltapath/model/model.h"

enum { HEAD_DIM = 128, VOCABULARY = 8192, PEAK_SIDE = 2048, PEAK_PRODUCTS = 4, REPEATS = 5 };

enum { EXPERTS = 8, EXPERTS_USED = 2, NAME_MAX_BYTES = 160 };

typedef struct sizes {
    int64_t hidden, tokens, layers;
} sizes;

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
        for (int64_t e = 0; e < block->rows * block->cols; e++) {
            uint32_t h = (uint32_t)(block->ig + e / block->cols * block->stride + e % block->cols) +
                         seed + (uint32_t)block->tensor * 7919U;
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
    int64_t rows = 0, cols = arch->length[row->cols], shape[3];
    int ndim = 0;
    for (int other = 0; other < DPT_SLOTS; other++) {
        bool same = arch->row[other] != NULL && strcmp(arch->row[other]->name, row->name) == 0;
        if (same && other < (int)slot)
            return DPT_OK; /* it is there already */
        rows += same ? arch->length[arch->row[other]->rows] : 0;
    }
    if (row->expert && row->part != 0)
        shape[ndim++] = arch->experts.count;
    shape[ndim++] = is_transposed(arch, row) ? cols : rows;
    if (row->cols != DPT_AXIS_NONE)
        shape[ndim++] = is_transposed(arch, row) ? rows : cols;
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

/* Elements of a matrix that a token is multiplied by. */
static double weights_of(const dpt_arch *arch, dpt_slot slot) {
    const dpt_row *row = arch->row[slot];
    if (row == NULL || row->cols == DPT_AXIS_NONE)
        return 0.0;
    double used = row->expert ? (double)arch->experts.used : 1.0;
    return used * (double)arch->length[row->rows] * (double)arch->length[row->cols];
}

/* Floating-point operations of the products of one call. A backward pass recomputes a layer up to
 * the input of down_proj (a norm after it needs its output, and parallel branches not that of the attention), forms
 * the gradient of each input, and one product per weight for the terms. Causal attention counts the lower triangle;
 * its backward pass has five products. */
static double count_flops(const dpt_arch *arch, double T, double scored) {
    double weights = 0.0, spared = 0.0;
    for (int slot = DPT_SLOTS_LAYER; slot < DPT_SLOTS_HEAD; slot++)
        weights += weights_of(arch, (dpt_slot)slot);
    if (arch->row[DPT_SLOT_OUT_NORM2] == NULL)
        spared += weights_of(arch, DPT_SLOT_DOWN);
    if (arch->parallel)
        spared += weights_of(arch, DPT_SLOT_O);
    double linear = 2.0 * T * (4.0 * weights - spared);
    double attention = T * T * (double)arch->length[DPT_AXIS_HEADS] * (2.0 + 2.0 + 5.0);
    double head = 3.0 * 2.0 * scored * (double)arch->length[DPT_AXIS_WIDTH] * VOCABULARY;
    return (double)arch->layers * (linear + attention) + head;
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

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static char *make_config(const sizes *s, const dpt_family *family) {
    int hidden = (int)s->hidden, layers = (int)s->layers, heads = hidden / HEAD_DIM;
    int inner = hidden * 11 / 4, kv_heads = heads / 4 > 0 ? heads / 4 : 1;
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
    double forward, both;   /* [s] best of the repeats, of the slowest rank */
    double pass[REPEATS];   /* [s] each forward + backward, */
    double square[REPEATS]; /* [GF/s] and what all ranks together reached in products around it */
} timing;

/* One call on all ranks. @param[out] seconds of the slowest. */
static dpt_status time_pass(const dpt_comm *world, dpt_model *model, const dpt_batch *batch,
                            dpt_model_backward mode, const double *weight, double *nll,
                            double *terms, double *seconds) {
    MPI_Barrier(world->mpi);
    double t = omp_get_wtime();
    dpt_status st = dpt_model_run(model, batch, 0.4, mode, weight, nll, NULL, terms, NULL);
    *seconds = omp_get_wtime() - t;
    (void)dpt_comm_max_f64(world, seconds, 1);
    return st;
}

static dpt_status time_model(const dpt_comm *world, dpt_model *model, const sizes *s, timing *out) {
    int64_t first[2] = {0, s->tokens};
    int32_t *tokens = malloc((size_t)s->tokens * sizeof *tokens);
    uint8_t *mask = malloc((size_t)s->tokens);
    double *weight = malloc((size_t)s->tokens * sizeof *weight);
    double *nll = malloc((size_t)s->tokens * sizeof *nll);
    double *terms = malloc((size_t)dpt_model_columns(model) * sizeof *terms);
    dpt_status st = DPT_OK;
    float *square = malloc(sizeof *square * 3 * PEAK_SIDE * PEAK_SIDE);
    *out = (timing){.forward = 1e30, .both = 1e30};
    for (int64_t i = 0; i < 3 * PEAK_SIDE * PEAK_SIDE; i++)
        square[i] = (float)(i % 17) * 0.1F;
    for (int64_t i = 0; i < s->tokens; i++) {
        tokens[i] = (int32_t)(i * 2654435761 % VOCABULARY);
        mask[i] = i >= s->tokens / 2;
        weight[i] = 1.0;
    }
    dpt_batch batch = {.sequences = 1, .first = first, .tokens = tokens, .mask = mask};
    (void)sgemm_rate(world, square);
    for (int i = -1; st == DPT_OK && i < REPEATS; i++) { /* the first makes the buffers */
        double forward = 0.0, both = 0.0, before = sgemm_rate(world, square);
        st = time_pass(world, model, &batch, DPT_BACKWARD_TERMS, weight, nll, terms, &both);
        double after = sgemm_rate(world, square);
        if (st == DPT_OK)
            st = time_pass(world, model, &batch, DPT_BACKWARD_NONE, weight, nll, terms, &forward);
        if (i < 0)
            continue;
        out->forward = forward < out->forward ? forward : out->forward;
        out->both = both < out->both ? both : out->both;
        out->pass[i] = both;
        out->square[i] = (before + after) / 2.0;
    }
    free(square);
    free(tokens);
    free(mask);
    free(weight);
    free(nll);
    free(terms);
    return st;
}

static dpt_status describe(const sizes *s, const dpt_family *family, char **config,
                           dpt_arch *arch) {
    static const dpt_catalog none = {.count = 0};
    *config = make_config(s, family);
    if (*config == NULL)
        return DPT_ERR_OUTPUT;
    json_t *root = json_loads(*config, 0, NULL);
    dpt_status st = dpt_arch_read(root, &none, arch);
    json_decref(root);
    return st;
}

static dpt_status bench(const dpt_comm *world, const sizes *s, const dpt_family *family) {
    dpt_catalog catalog;
    dpt_model *model = NULL;
    dpt_arch arch;
    timing times;
    char *config = NULL;
    dpt_status st = describe(s, family, &config, &arch);
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
        st = time_model(world, model, s, &times);
    if (st == DPT_OK && world->rank == 0) {
        double flops = count_flops(&arch, (double)s->tokens, (double)(s->tokens / 2)) * 1e-9;
        double ratio[REPEATS];
        for (int i = 0; i < REPEATS; i++)
            ratio[i] = flops / times.pass[i] / times.square[i];
        qsort(ratio, REPEATS, sizeof *ratio, compare_doubles);
        printf("%-11s %d x %d tokens, %d layers, %d ranks x %d threads: forward %.3f s, forward + "
               "backward %.3f s, %.1f GF/s: of sgemm %.2f, %.2f to %.2f (target 0.85)\n",
               family->model_type, (int)s->hidden, (int)s->tokens, (int)s->layers, world->size,
               omp_get_max_threads(), times.forward, times.both, flops / times.both,
               ratio[REPEATS / 2], ratio[0], ratio[REPEATS - 1]);
        fflush(stdout);
    }
    dpt_model_destroy(model);
    dpt_catalog_destroy(&catalog);
    dpt_arch_destroy(&arch);
    dpt_mem_free(config);
    return st;
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    sizes s = {.hidden = argc > 1 ? atoi(argv[1]) : 2048,
               .tokens = argc > 2 ? atoi(argv[2]) : 512,
               .layers = argc > 3 ? atoi(argv[3]) : 3};
    const char *wanted = argc > 4 ? argv[4] : "llama";
    dpt_comm world;
    dpt_status st = dpt_comm_create(MPI_COMM_WORLD, &world);
    for (size_t f = 0; f < sizeof all_families / sizeof all_families[0] && st == DPT_OK; f++) {
        bool decoder = all_families[f]->knows != NULL; /* image models have no list of keys */
        if (decoder &&
            (strcmp(wanted, "all") == 0 || strcmp(wanted, all_families[f]->model_type) == 0))
            st = bench(&world, &s, all_families[f]);
    }
    if (st != DPT_OK)
        fprintf(stderr, "bench_model: %s\n", dpt_error_message());
    dpt_comm_destroy(&world);
    MPI_Finalize();
    return st;
}
