/* ranks: 1 2 */
/* Products in bf16 against those in fp32 where they are cut into pieces: a layer and a vocabulary that are wider than the
 * columns, and a batch of more tokens than the rows, that src/model/product_bf16.c takes at a time, neither a
 * multiple of them. A piece at a wrong place, left out or taken twice is far outside the bounds. */
#include "support/test_mpi.h"

#include "model/model_golden.h"

#include "deltapath/linalg/bf16.h"

enum {
    WIDTH = 48,
    HEADS = 4,
    UNITS = 8 * 1024 + 200,
    VOCABULARY = 4300,
    EXPERTS = 2,
    SAMPLES = 2,
    TOKENS = 900
};

#define EDIT 0.1F /* of the weights */

static const int64_t first_of[SAMPLES + 1] = {0, 530, TOKENS};

/* A value is rounded by 2^-9 of itself at most. A gradient has passed five products one after the other on the way forth
 * (values, output, hidden units, MLP, head) and five on the way back, and is a product of two rounded factors itself: twelve
 * roundings, in one direction at the worst. Their root mean square, were they independent, is a sixth of that. */
#define OFF (12.0 * 0x1p-9)

static uint32_t piece_state;

/* Uniform in [-1, 1). */
static float piece_value(void) {
    piece_state = piece_state * 1664525U + 1013904223U;
    return (float)(piece_state >> 8) * 0x1p-23F - 1.0F;
}

static void piece_add(memory_model *m, const char *name, int64_t rows, int64_t cols) {
    int64_t shape[] = {rows, cols};
    assert_int_equal(dpt_catalog_add(&m->catalog, name, DPT_F32, cols > 0 ? 2 : 1, shape), DPT_OK);
}

#define LAYER "model.layers.0."

/* Both experts are used for every token: a choice would follow rounding. */
static void piece_add_mlp(memory_model *m, bool experts) {
    static const char *const names[] = {"gate", "up", "down", "1", "3", "2"};
    if (experts)
        piece_add(m, LAYER "block_sparse_moe.gate.weight", EXPERTS, WIDTH);
    for (int e = 0; e < (experts ? EXPERTS : 1); e++)
        for (int i = 0; i < 3; i++) {
            char name[80];
            if (experts)
                snprintf(name, sizeof name, LAYER "block_sparse_moe.experts.%d.w%s.weight", e,
                         names[3 + i]);
            else
                snprintf(name, sizeof name, LAYER "mlp.%s_proj.weight", names[i]);
            piece_add(m, name, i < 2 ? UNITS : WIDTH, i < 2 ? WIDTH : UNITS);
        }
}

static void piece_catalog(memory_model *m, bool experts) {
    dpt_catalog_init(&m->catalog);
    piece_add(m, "model.embed_tokens.weight", VOCABULARY, WIDTH);
    piece_add(m, "lm_head.weight", VOCABULARY, WIDTH);
    piece_add(m, "model.norm.weight", WIDTH, 0);
    piece_add(m, LAYER "input_layernorm.weight", WIDTH, 0);
    piece_add(m, LAYER "post_attention_layernorm.weight", WIDTH, 0);
    for (int i = 0; i < 4; i++) {
        char name[64];
        snprintf(name, sizeof name, LAYER "self_attn.%c_proj.weight", "qkvo"[i]);
        piece_add(m, name, WIDTH, WIDTH);
    }
    piece_add_mlp(m, experts);
    assert_int_equal(dpt_catalog_sort(&m->catalog), DPT_OK);
    memory_allocate(m);
}

/* Of the values of a tensor: weights keep the size of what they multiply. */
static float piece_scale(const dpt_tensor_info *info) {
    return info->ndim == 2 ? sqrtf(3.0F / (float)info->shape[1]) : 0.1F;
}

/* Uniform weights, of norms around 1, and an edit of a tenth of them. */
static void piece_fill(memory_model *post, memory_model *edited) {
    piece_state = 1;
    for (int k = 0; k < post->catalog.count; k++) {
        const dpt_tensor_info *info = &post->catalog.tensors[k];
        float *w = post->values[k], *edit = edited->values[k], scale = piece_scale(info);
        for (int64_t i = 0; i < info->numel; i++) {
            w[i] = scale * piece_value() + (info->ndim == 2 ? 0.0F : 1.0F);
            edit[i] = w[i] + EDIT * scale * piece_value();
        }
    }
}

static void piece_samples(golden_model *g) {
    g->samples = SAMPLES;
    g->tokens = TOKENS;
    g->token = malloc(TOKENS * sizeof *g->token);
    g->mask = malloc(TOKENS);
    g->offsets = malloc(sizeof first_of);
    memcpy(g->offsets, first_of, sizeof first_of);
    for (int64_t i = 0; i < TOKENS; i++) {
        g->token[i] = (int32_t)(i * 2654435761 % VOCABULARY);
        g->mask[i] = i != first_of[0] && i != first_of[1];
    }
}

static char *piece_config(bool experts) {
    char keys[80] = "";
    if (experts)
        snprintf(keys, sizeof keys, ", \"num_local_experts\": %d, \"num_experts_per_tok\": %d",
                 EXPERTS, EXPERTS);
    char *config = dpt_mem_format(
        "{\"architectures\": [\"%sForCausalLM\"], \"vocab_size\": %d, \"hidden_size\": %d, "
        "\"intermediate_size\": %d, \"num_hidden_layers\": 1, \"num_attention_heads\": %d, "
        "\"num_key_value_heads\": %d, \"max_position_embeddings\": 4096, "
        "\"tie_word_embeddings\": false%s}",
        experts ? "Mixtral" : "Llama", VOCABULARY, WIDTH, UNITS, HEADS, HEADS, keys);
    char *copy = strdup(config); /* which the C library frees */
    dpt_mem_free(config);
    return copy;
}

static void piece_open(model_fixture *f, dpt_dtype dtype, bool experts, int model_size) {
    memory_model post = {.fetches = 0}, edited = {.fetches = 0};
    memset(f, 0, sizeof *f);
    f->g = &f->in.g;
    f->name = dtype == DPT_BF16 ? (experts ? "experts, bf16 files" : "bf16 files")
              : experts         ? "experts, fp32 files"
                                : "fp32 files";
    f->g->config = piece_config(experts);
    piece_catalog(&post, experts);
    piece_catalog(&edited, experts);
    piece_fill(&post, &edited);
    f->g->post = memory_convert(&post, dtype);
    f->g->edited = memory_convert(&edited, dtype);
    memory_free(&post);
    memory_free(&edited);
    piece_samples(f->g);
    f->batch = golden_batch(f->g);
    model_fixture_bind(f, model_size);
}

/* What a pass gives: loss of each sample, terms of all ranks, and the gradient of each tensor. */
typedef struct piece_result {
    double loss[SAMPLES], *terms;
    float **gradient;
} piece_result;

static piece_result piece_run(model_fixture *f, dpt_precision precision) {
    int count = f->g->post.catalog.count;
    int64_t columns = dpt_model_columns(f->model);
    piece_result out = {.terms = calloc((size_t)(SAMPLES * columns), sizeof *out.terms),
                        .gradient = calloc((size_t)count, sizeof *out.gradient)};
    dpt_model_gradient *gradient;
    assert_int_equal(dpt_model_set_precision(f->model, precision), DPT_OK);
    model_fixture_run(f, 0.4, DPT_BACKWARD_TERMS, 1.0, NULL, NULL);
    model_sum_terms(f);
    memcpy(out.terms, f->terms, (size_t)(SAMPLES * columns) * sizeof *out.terms);
    for (int s = 0; s < SAMPLES; s++)
        out.loss[s] = model_sample_loss(f, s);
    assert_int_equal(dpt_model_gradient_create(f->model, &gradient), DPT_OK);
    assert_int_equal(dpt_model_gradient_begin(f->model, gradient), DPT_OK);
    model_fixture_run(f, 0.4, DPT_BACKWARD_GRADIENT, 1.0 / f->mesh.data.size, NULL, gradient);
    assert_int_equal(dpt_model_rest(f->model, DPT_OK), DPT_OK);
    for (int k = 0; k < count; k++) {
        dpt_range all = {.tensor = k, .n = f->g->post.catalog.tensors[k].numel};
        out.gradient[k] = malloc((size_t)all.n * sizeof **out.gradient);
        assert_int_equal(dpt_model_gradient_range(f->model, gradient, all, out.gradient[k]),
                         DPT_OK);
    }
    dpt_model_gradient_destroy(gradient);
    return out;
}

static void piece_free(const model_fixture *f, piece_result *r) {
    for (int k = 0; k < f->g->post.catalog.count; k++)
        free(r->gradient[k]);
    free(r->gradient);
    free(r->terms);
}

/* A term is |gradient| |E| times the cosine of two directions of which rounding knows nothing, so it is off by a share
 * of the gradient's length times the typical cosine, 1 / sqrt(elements). */
static double piece_term_size(const model_fixture *f, const piece_result *exact, int k) {
    const dpt_tensor_info *info = &f->g->post.catalog.tensors[k];
    double off, gradient;
    model_distance(info->numel, exact->gradient[k], exact->gradient[k], &off, &gradient);
    return gradient * EDIT * piece_scale(info) / sqrt(3.0);
}

static void piece_compare(const model_fixture *f, const piece_result *a, const piece_result *b) {
    int64_t columns = dpt_model_columns(f->model);
    for (int s = 0; s < SAMPLES; s++)
        if (!(fabs(a->loss[s] - b->loss[s]) <= OFF * fabs(b->loss[s])))
            fail_msg("%s: loss %d is %.9g, in fp32 %.9g", f->name, s, a->loss[s], b->loss[s]);
    for (int k = 0; k < f->g->post.catalog.count; k++) {
        const dpt_tensor_info *info = &f->g->post.catalog.tensors[k];
        double off, size, term = piece_term_size(f, b, k);
        model_distance(info->numel, a->gradient[k], b->gradient[k], &off, &size);
        if (!(off <= OFF * size))
            fail_msg("%s: gradient of %s is off by %.3g of its length", f->name, info->name,
                     off / size);
        for (int s = 0; s < SAMPLES; s++) {
            double d = a->terms[s * columns + k] - b->terms[s * columns + k];
            if (!(fabs(d) <= OFF * term))
                fail_msg("%s: term of %s in sample %d is off by %.3g of its size", f->name,
                         info->name, s, d / term);
        }
    }
}

static void check_files(dpt_dtype dtype, bool experts) {
    if (dpt_bf16_find_speed() == DPT_BF16_NONE)
        skip();
    for (int size = 1; size <= test_comm.size; size++) {
        if (test_comm.size % size != 0)
            continue;
        model_fixture f;
        piece_open(&f, dtype, experts, size);
        piece_result exact = piece_run(&f, DPT_PRECISION_FP32);
        piece_result rounded = piece_run(&f, DPT_PRECISION_BF16);
        piece_compare(&f, &rounded, &exact);
        piece_free(&f, &exact);
        piece_free(&f, &rounded);
        model_fixture_close(&f);
    }
}

static void test_stored(void **state) {
    (void)state;
    check_files(DPT_BF16, false);
    check_files(DPT_BF16, true);
}

static void test_formed(void **state) {
    (void)state;
    check_files(DPT_F32, false);
    check_files(DPT_F32, true);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_stored),
                                       cmocka_unit_test(test_formed)};
    return test_mpi_main(argc, argv, tests);
}
