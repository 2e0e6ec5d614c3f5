#include "decoder.h"

#include "deltapath/base/mem.h"
#include "deltapath/tensor/shard.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

static void find_part(const dpt_decoder_config *c, int rank, int size, dpt_decoder_part *part) {
    dpt_shard_split(c->heads, size, rank, &part->head_begin, &part->head_end);
    dpt_shard_split(c->intermediate, size, rank, &part->unit_begin, &part->unit_end);
    dpt_shard_split(c->vocabulary, size, rank, &part->row_begin, &part->row_end);
    part->rows_most = (c->vocabulary + size - 1) / size;
    /* A boundary inside a group of query heads leaves its key-value head on both sides. Each side
     * has the part of dk and dv that its own queries give, and the parts add up over the ranks. */
    int64_t group = c->heads / c->kv_heads;
    if (part->head_end > part->head_begin) {
        part->kv_begin = part->head_begin / group;
        part->kv_end = (part->head_end - 1) / group + 1;
    }
    part->q = (part->head_end - part->head_begin) * c->head_dim;
    part->kv = (part->kv_end - part->kv_begin) * c->head_dim;
    part->qkv = part->q + 2 * part->kv;
    part->f = part->unit_end - part->unit_begin;
    part->v = part->row_end - part->row_begin;
}

typedef struct claim {
    dpt_decoder_layer_tensor tensor;
    const char *name;
    bool present;
    dpt_param_part part;
} claim;

static void claim_layer(dpt_model *model, const dpt_decoder *d, int64_t layer) {
    const dpt_decoder_config *c = &d->config;
    const dpt_decoder_part *p = &d->part;
    int64_t hd = c->head_dim, heads = c->heads * hd, kv_heads = c->kv_heads * hd;
    int64_t q0 = p->head_begin * hd, q1 = p->head_end * hd;
    int64_t k0 = p->kv_begin * hd, k1 = p->kv_end * hd;
    int64_t f = c->intermediate, f0 = p->unit_begin, f1 = p->unit_end;
    dpt_param_part norm = dpt_param_part_vector(c->hidden);
    norm.counted = d->first_rank; /* every rank scales by it, one rank counts it */
    /* A bias behind an all-reduce is added by the first rank alone. */
    dpt_param_part once =
        dpt_param_part_rows(dpt_param_part_vector(c->hidden), 0, d->first_rank ? c->hidden : 0);
    const claim claims[] = {
        {DPT_DECODER_NORM1, "input_layernorm.weight", true, norm},
        {DPT_DECODER_Q, "self_attn.q_proj.weight", true,
         dpt_param_part_rows(dpt_param_part_matrix(heads, c->hidden), q0, q1)},
        {DPT_DECODER_K, "self_attn.k_proj.weight", true,
         dpt_param_part_rows(dpt_param_part_matrix(kv_heads, c->hidden), k0, k1)},
        {DPT_DECODER_V, "self_attn.v_proj.weight", true,
         dpt_param_part_rows(dpt_param_part_matrix(kv_heads, c->hidden), k0, k1)},
        {DPT_DECODER_Q_BIAS, "self_attn.q_proj.bias", c->qkv_bias,
         dpt_param_part_rows(dpt_param_part_vector(heads), q0, q1)},
        {DPT_DECODER_K_BIAS, "self_attn.k_proj.bias", c->qkv_bias,
         dpt_param_part_rows(dpt_param_part_vector(kv_heads), k0, k1)},
        {DPT_DECODER_V_BIAS, "self_attn.v_proj.bias", c->qkv_bias,
         dpt_param_part_rows(dpt_param_part_vector(kv_heads), k0, k1)},
        {DPT_DECODER_O, "self_attn.o_proj.weight", true,
         dpt_param_part_cols(dpt_param_part_matrix(c->hidden, heads), q0, q1)},
        {DPT_DECODER_O_BIAS, "self_attn.o_proj.bias", c->o_bias, once},
        {DPT_DECODER_NORM2, "post_attention_layernorm.weight", true, norm},
        {DPT_DECODER_GATE, "mlp.gate_proj.weight", true,
         dpt_param_part_rows(dpt_param_part_matrix(f, c->hidden), f0, f1)},
        {DPT_DECODER_UP, "mlp.up_proj.weight", true,
         dpt_param_part_rows(dpt_param_part_matrix(f, c->hidden), f0, f1)},
        {DPT_DECODER_GATE_BIAS, "mlp.gate_proj.bias", c->mlp_bias,
         dpt_param_part_rows(dpt_param_part_vector(f), f0, f1)},
        {DPT_DECODER_UP_BIAS, "mlp.up_proj.bias", c->mlp_bias,
         dpt_param_part_rows(dpt_param_part_vector(f), f0, f1)},
        {DPT_DECODER_DOWN, "mlp.down_proj.weight", true,
         dpt_param_part_cols(dpt_param_part_matrix(c->hidden, f), f0, f1)},
        {DPT_DECODER_DOWN_BIAS, "mlp.down_proj.bias", c->mlp_bias, once},
    };
    for (size_t i = 0; i < sizeof claims / sizeof claims[0]; i++) {
        char name[128];
        snprintf(name, sizeof name, "model.layers.%" PRId64 ".%s", layer, claims[i].name);
        if (claims[i].present)
            dpt_params_claim(&model->params, dpt_decoder_index(layer, claims[i].tensor), name,
                             &claims[i].part);
    }
}

/* Old checkpoints carry the rotary frequencies, and some a copy of a tied head; neither is used. */
static bool ignore_buffers(const char *name) {
    const char *end = strrchr(name, '.');
    return end != NULL && strcmp(end, ".inv_freq") == 0;
}

static bool ignore_buffers_and_head(const char *name) {
    return ignore_buffers(name) || strcmp(name, "lm_head.weight") == 0;
}

static dpt_status claim_all(dpt_model *model, const dpt_decoder *d) {
    const dpt_decoder_config *c = &d->config;
    int64_t count = DPT_DECODER_LAYERS_AT + c->layers * DPT_DECODER_LAYER_TENSORS;
    dpt_status st = dpt_params_create(&model->catalog, (int)count, &model->params);
    if (st != DPT_OK)
        return st;
    dpt_param_part table = dpt_param_part_rows(dpt_param_part_matrix(c->vocabulary, c->hidden),
                                               d->part.row_begin, d->part.row_end);
    dpt_param_part norm = dpt_param_part_vector(c->hidden);
    norm.counted = d->first_rank;
    dpt_params_claim(&model->params, DPT_DECODER_EMBED, "model.embed_tokens.weight", &table);
    dpt_params_claim(&model->params, DPT_DECODER_FINAL_NORM, "model.norm.weight", &norm);
    if (!c->tied)
        dpt_params_claim(&model->params, DPT_DECODER_HEAD, "lm_head.weight", &table);
    for (int64_t layer = 0; layer < c->layers; layer++)
        claim_layer(model, d, layer);
    return dpt_params_check(&model->params, c->tied ? ignore_buffers_and_head : ignore_buffers);
}

static void close_decoder(void *state) {
    dpt_decoder *d = state;
    dpt_decoder_work_release(&d->work);
    dpt_decoder_config_destroy(&d->config);
    dpt_mem_free(d->kv_of);
    dpt_mem_free(d->inv_freq);
    dpt_mem_free(d);
}

static dpt_status make_tables(dpt_decoder *d) {
    const dpt_decoder_config *c = &d->config;
    int64_t heads = d->part.head_end - d->part.head_begin;
    d->kv_of = dpt_mem_alloc(heads, sizeof *d->kv_of, "key-value heads");
    d->inv_freq = dpt_mem_alloc(c->head_dim / 2, sizeof *d->inv_freq, "rotary frequencies");
    if (d->kv_of == NULL || d->inv_freq == NULL)
        return DPT_ERR_OUTPUT;
    int64_t group = c->heads / c->kv_heads;
    for (int64_t j = 0; j < heads; j++)
        d->kv_of[j] = (int32_t)((d->part.head_begin + j) / group - d->part.kv_begin);
    dpt_nn_rope_inv_freq(&c->rope, d->inv_freq);
    return DPT_OK;
}

static dpt_status open_decoder(dpt_model *model, const json_t *config, int rank, int size) {
    dpt_decoder *d = dpt_mem_zalloc(1, sizeof *d, "decoder");
    if (d == NULL)
        return DPT_ERR_OUTPUT;
    dpt_status st = dpt_decoder_config_read(model->driver->family, config, &d->config);
    d->first_rank = rank == 0;
    if (st == DPT_OK) {
        find_part(&d->config, rank, size, &d->part);
        st = make_tables(d);
    }
    if (st == DPT_OK)
        st = claim_all(model, d);
    if (st == DPT_OK)
        model->state = d;
    else
        close_decoder(d);
    return st;
}

static dpt_status compare(const void *family, const json_t *a, const json_t *b,
                          const dpt_catalog *catalog, char *text, size_t size) {
    (void)catalog;
    dpt_decoder_config one, other = {.window = NULL};
    dpt_status st = dpt_decoder_config_read(family, a, &one);
    if (st == DPT_OK)
        st = dpt_decoder_config_read(family, b, &other);
    if (st == DPT_OK)
        dpt_decoder_config_compare(&one, &other, text, size);
    dpt_decoder_config_destroy(&one);
    dpt_decoder_config_destroy(&other);
    return st;
}

static const dpt_decoder *decoder_of(const dpt_model *model) {
    return model->state;
}

static int64_t work_bytes(const dpt_model *model, int64_t tokens, int64_t longest) {
    return dpt_decoder_work_bytes(decoder_of(model), tokens, longest, true);
}

static int64_t vocabulary(const dpt_model *model) {
    return decoder_of(model)->config.vocabulary;
}

static int64_t max_positions(const dpt_model *model) {
    return decoder_of(model)->config.max_positions;
}

static dpt_status check_batch(const dpt_decoder_config *c, const dpt_batch *batch,
                              int64_t *longest) {
    *longest = 0;
    if (batch->sequences < 0 || batch->first[0] != 0 ||
        batch->first[batch->sequences] > INT_MAX / 2)
        return dpt_error(DPT_ERR_INTERNAL,
                         "model: a batch does not start at token 0 or is too long");
    for (int64_t s = 0; s < batch->sequences; s++) {
        int64_t length = batch->first[s + 1] - batch->first[s];
        if (length < 0)
            return dpt_error(DPT_ERR_INTERNAL, "model: the sequences of a batch overlap");
        if (length > c->max_positions)
            return dpt_error(DPT_ERR_INPUT,
                             "model: a sequence of %" PRId64 " tokens is longer than the %" PRId64
                             " positions of the model: shorten it",
                             length, c->max_positions);
        *longest = length > *longest ? length : *longest;
    }
    for (int64_t i = 0; i < batch->first[batch->sequences]; i++)
        if (batch->tokens[i] < 0 || batch->tokens[i] >= c->vocabulary)
            return dpt_error(DPT_ERR_INPUT,
                             "model: token %d at position %" PRId64
                             " of a batch is outside the vocabulary of %" PRId64
                             ": use the model's own tokenizer",
                             (int)batch->tokens[i], i, c->vocabulary);
    return DPT_OK;
}

static dpt_status prepare(dpt_model *model, const dpt_model_call *call) {
    dpt_decoder *d = model->state;
    int64_t longest;
    dpt_status st = check_batch(&d->config, call->batch, &longest);
    if (st != DPT_OK)
        return st;
    return dpt_decoder_work_reserve(d, call->batch->first[call->batch->sequences], longest,
                                    call->mode != DPT_BACKWARD_NONE);
}

static dpt_status run(dpt_model *model, const dpt_model_call *call) {
    dpt_decoder *d = model->state;
    const dpt_decoder_work *work = &d->work;
    dpt_decoder_pass pass = {.model = model,
                             .d = d,
                             .work = work,
                             .call = call,
                             .leave = {.model = model,
                                       .call = call,
                                       .term = work->term,
                                       .e = work->e,
                                       .products = work->products},
                             .tokens = call->batch->first[call->batch->sequences],
                             .status = DPT_OK};
    if (pass.tokens == 0)
        return DPT_OK;
    dpt_decoder_forward(&pass);
    dpt_decoder_head(&pass);
    if (call->mode != DPT_BACKWARD_NONE)
        dpt_decoder_backward(&pass);
    return pass.status;
}

#define DECODER(ARCHITECTURE, TYPE, FAMILY)                                                        \
    {                                                                                              \
        .architecture = (ARCHITECTURE), .model_type = (TYPE), .family = (FAMILY),                  \
        .open = open_decoder, .close = close_decoder, .compare = compare,                          \
        .knows = dpt_decoder_config_knows, .work_bytes = work_bytes, .vocabulary = vocabulary,     \
        .max_positions = max_positions, .prepare = prepare, .run = run                             \
    }

const dpt_model_driver dpt_model_llama = DECODER("LlamaForCausalLM", "llama", &dpt_decoder_llama);
const dpt_model_driver dpt_model_mistral =
    DECODER("MistralForCausalLM", "mistral", &dpt_decoder_mistral);
const dpt_model_driver dpt_model_qwen2 = DECODER("Qwen2ForCausalLM", "qwen2", &dpt_decoder_qwen2);
