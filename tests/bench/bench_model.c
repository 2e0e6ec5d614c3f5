/* Forward and backward pass (terms) of a LLaMA-like stack against sgemm, within one run. Weights and
 * edit are bf16; W(t) at t = 0.4 is formed on the fly.
 *
 * Usage: bench_model [HIDDEN [TOKENS [LAYERS]]]   (2048 512 3)
 */
#include <cblas.h>
#include <mpi.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "deltapath/base/mem.h"
#include "deltapath/comm/comm.h"
#include "deltapath/model/model.h"

enum { HEAD_DIM = 128, VOCABULARY = 8192, PEAK_SIDE = 2048, REPEATS = 4 };

typedef struct sizes {
    int64_t hidden, tokens, layers, inner, heads, kv_heads;
} sizes;

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

static dpt_status add(dpt_catalog *catalog, const char *name, int64_t rows, int64_t cols) {
    int64_t shape[2] = {rows, cols};
    return dpt_catalog_add(catalog, name, DPT_BF16, cols > 0 ? 2 : 1, shape);
}

static dpt_status make_catalog(const sizes *s, dpt_catalog *catalog) {
    const struct {
        const char *name;
        int64_t rows, cols;
    } parts[] = {
        {"input_layernorm", s->hidden, 0},
        {"post_attention_layernorm", s->hidden, 0},
        {"self_attn.q_proj", s->heads * HEAD_DIM, s->hidden},
        {"self_attn.k_proj", s->kv_heads * HEAD_DIM, s->hidden},
        {"self_attn.v_proj", s->kv_heads * HEAD_DIM, s->hidden},
        {"self_attn.o_proj", s->hidden, s->heads * HEAD_DIM},
        {"mlp.gate_proj", s->inner, s->hidden},
        {"mlp.up_proj", s->inner, s->hidden},
        {"mlp.down_proj", s->hidden, s->inner},
    };
    dpt_catalog_init(catalog);
    dpt_status st = add(catalog, "model.embed_tokens.weight", VOCABULARY, s->hidden);
    if (st == DPT_OK)
        st = add(catalog, "lm_head.weight", VOCABULARY, s->hidden);
    if (st == DPT_OK)
        st = add(catalog, "model.norm.weight", s->hidden, 0);
    for (int64_t l = 0; l < s->layers; l++)
        for (size_t i = 0; st == DPT_OK && i < sizeof parts / sizeof parts[0]; i++) {
            char name[128];
            snprintf(name, sizeof name, "model.layers.%d.%s.weight", (int)l, parts[i].name);
            st = add(catalog, name, parts[i].rows, parts[i].cols);
        }
    return st == DPT_OK ? dpt_catalog_sort(catalog) : st;
}

/* Floating-point operations of the products of one call. A backward pass recomputes a layer up to
 * the input of down_proj, forms the gradient of each input, and one product per weight for the
 * terms. Causal attention counts the lower triangle; its backward pass has five products. */
static double count_flops(const sizes *s, double scored) {
    double q = (double)(s->heads * HEAD_DIM), kv = (double)(s->kv_heads * HEAD_DIM);
    double C = (double)s->hidden, F = (double)s->inner, T = (double)s->tokens;
    double weights = C * (q + 2.0 * kv) + q * C + 3.0 * C * F;
    double linear = 2.0 * T * (4.0 * weights - C * F);
    double attention = T * T * q * (2.0 + 2.0 + 5.0);
    double head = 3.0 * 2.0 * scored * C * VOCABULARY;
    return (double)s->layers * (linear + attention) + head;
}

/* Rate [GF/s] of one square product on this rank. */
static double sgemm_rate(float *a) {
    int64_t n = PEAK_SIDE;
    double t = omp_get_wtime();
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)n, (int)n, 1.0F, a, (int)n,
                a + n * n, (int)n, 0.0F, a + 2 * n * n, (int)n);
    return 2.0 * (double)(n * n * n) / (omp_get_wtime() - t) * 1e-9;
}

static char *make_config(const sizes *s) {
    return dpt_mem_format(
        "{\"architectures\": [\"LlamaForCausalLM\"], \"vocab_size\": %d, \"hidden_size\": %d, "
        "\"intermediate_size\": %d, \"num_hidden_layers\": %d, \"num_attention_heads\": %d, "
        "\"num_key_value_heads\": %d, \"head_dim\": %d, \"max_position_embeddings\": 1048576}",
        VOCABULARY, (int)s->hidden, (int)s->inner, (int)s->layers, (int)s->heads, (int)s->kv_heads,
        HEAD_DIM);
}

typedef struct timing {
    double forward, both; /* [s] best of the repeats, of the slowest rank */
    double peak;          /* [GF/s] best of all ranks together, measured between the repeats */
} timing;

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
    for (int i = 0; st == DPT_OK && i < 2 * (REPEATS + 1); i++) {
        bool forward = i % 2 == 1;
        MPI_Barrier(world->mpi);
        double t = omp_get_wtime();
        st = dpt_model_run(model, &batch, 0.4, forward ? DPT_BACKWARD_NONE : DPT_BACKWARD_TERMS,
                           weight, nll, NULL, terms, NULL);
        t = omp_get_wtime() - t;
        (void)dpt_comm_max_f64(world, &t, 1);
        double *best = forward ? &out->forward : &out->both;
        *best = t < *best ? t : *best;
        double rate = sgemm_rate(square);
        (void)dpt_comm_sum_f64(world, &rate, 1);
        out->peak = rate > out->peak ? rate : out->peak;
    }
    free(square);
    free(tokens);
    free(mask);
    free(weight);
    free(nll);
    free(terms);
    return st;
}

static dpt_status bench(const dpt_comm *world, const sizes *s) {
    dpt_catalog catalog;
    dpt_model *model = NULL;
    timing times;
    char *config = make_config(s);
    dpt_status st = make_catalog(s, &catalog);
    dpt_source source = {.ctx = &catalog, .catalog = &catalog, .fetch = fetch};
    if (st == DPT_OK)
        st = dpt_model_create(world, config, source, &model);
    seed = 12345;
    if (st == DPT_OK)
        st = dpt_model_bind_edit(model, &source);
    if (st == DPT_OK)
        st = time_model(world, model, s, &times);
    if (st == DPT_OK && world->rank == 0) {
        double rate = count_flops(s, (double)(s->tokens / 2)) / times.both * 1e-9;
        printf("model %d x %d tokens, %d layers, %d ranks x %d threads: forward %.3f s, forward + "
               "backward %.3f s\n",
               (int)s->hidden, (int)s->tokens, (int)s->layers, world->size, omp_get_max_threads(),
               times.forward, times.both);
        printf("forward + backward %.1f GF/s, sgemm %.1f GF/s: ratio %.2f (target 0.60)\n", rate,
               times.peak, rate / times.peak);
    }
    dpt_model_destroy(model);
    dpt_catalog_destroy(&catalog);
    dpt_mem_free(config);
    return st;
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    sizes s = {.hidden = argc > 1 ? atoi(argv[1]) : 2048,
               .tokens = argc > 2 ? atoi(argv[2]) : 512,
               .layers = argc > 3 ? atoi(argv[3]) : 3};
    s.inner = s.hidden * 11 / 4;
    s.heads = s.hidden / HEAD_DIM;
    s.kv_heads = s.heads / 4 > 0 ? s.heads / 4 : 1;
    dpt_comm world;
    dpt_status st = dpt_comm_create(MPI_COMM_WORLD, &world);
    if (st == DPT_OK)
        st = bench(&world, &s);
    if (st != DPT_OK)
        fprintf(stderr, "bench_model: %s\n", dpt_error_message());
    dpt_comm_destroy(&world);
    MPI_Finalize();
    return st;
}
