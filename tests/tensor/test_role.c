/* ranks: 1 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "deltapath/tensor/role.h"

enum { LINEAR = 1, VOCABULARY = 2 };

typedef struct role_case {
    const char *name;
    int ndim;
    int layer;
    const char *kind;
    unsigned is; /* LINEAR, VOCABULARY */
    int expert;  /* 1 more than its number; 0: none */
} role_case;

static void check(const role_case *cases, size_t count) {
    for (size_t i = 0; i < count; i++) {
        char name[128];
        snprintf(name, sizeof name, "%s", cases[i].name);
        dpt_tensor_info info = {
            .name = name, .ndim = cases[i].ndim, .shape = {2, 3, 4, 5}, .numel = 1};
        dpt_role role = dpt_role_of(name);
        unsigned is = (dpt_role_is_linear(&info) ? LINEAR : 0) |
                      (dpt_role_has_vocabulary(name) ? VOCABULARY : 0);
        bool right = role.layer == cases[i].layer &&
                     strcmp(dpt_role_name(role.kind), cases[i].kind) == 0 && is == cases[i].is &&
                     dpt_role_expert(name) == cases[i].expert - 1;
        if (!right)
            fail_msg("%s: layer %d, %s, %u, expert %d", name, role.layer, dpt_role_name(role.kind),
                     is, dpt_role_expert(name));
    }
}

#define CHECK(...)                                                                                 \
    do {                                                                                           \
        const role_case cases[] = {__VA_ARGS__};                                                   \
        check(cases, sizeof cases / sizeof *cases);                                                \
    } while (0)

/* Names as published, and as transformers 5.24 gives them where it renames. */
static void decoders(void **state) {
    (void)state;
    CHECK({"model.embed_tokens.weight", 2, -1, "embed", VOCABULARY, 0},
          {"model.layers.31.self_attn.q_proj.weight", 2, 31, "q", LINEAR, 0},
          {"model.layers.3.self_attn.k_proj.bias", 1, 3, "k", 0, 0},
          {"model.layers.3.self_attn.v_proj.weight", 2, 3, "v", LINEAR, 0},
          {"model.layers.3.self_attn.o_proj.weight", 2, 3, "o", LINEAR, 0},
          {"model.layers.3.self_attn.q_norm.weight", 1, 3, "norm", 0, 0},
          {"model.layers.3.self_attn.k_norm.weight", 1, 3, "norm", 0, 0},
          {"model.layers.0.mlp.gate_proj.weight", 2, 0, "gate", LINEAR, 0},
          {"model.layers.0.mlp.up_proj.weight", 2, 0, "up", LINEAR, 0},
          {"model.layers.0.mlp.down_proj.weight", 2, 0, "down", LINEAR, 0},
          {"model.layers.0.input_layernorm.weight", 1, 0, "norm", 0, 0},
          {"model.layers.0.post_attention_layernorm.weight", 1, 0, "norm", 0, 0},
          {"model.layers.0.pre_feedforward_layernorm.weight", 1, 0, "norm", 0, 0},
          {"model.layers.0.post_feedforward_layernorm.weight", 1, 0, "norm", 0, 0},
          {"model.norm.weight", 1, -1, "norm", 0, 0},
          {"lm_head.weight", 2, -1, "head", VOCABULARY, 0},
          {"base_model.model.model.layers.7.mlp.up_proj.weight", 2, 7, "up", LINEAR, 0},
          {"language_model.model.layers.7.mlp.up_proj.weight", 2, 7, "up", LINEAR, 0},
          {"model.layers.9.self_attn.qkv_proj.weight", 2, 9, "qkv", LINEAR, 0},
          {"model.layers.9.mlp.gate_up_proj.weight", 2, 9, "gate_up", LINEAR, 0});
}

static void gpt(void **state) {
    (void)state;
    CHECK(
        {"gpt_neox.embed_in.weight", 2, -1, "embed", VOCABULARY, 0},
        {"gpt_neox.layers.5.input_layernorm.bias", 1, 5, "norm", 0, 0},
        {"gpt_neox.layers.5.attention.query_key_value.weight", 2, 5, "qkv", LINEAR, 0},
        {"gpt_neox.layers.5.attention.query_key_value.bias", 1, 5, "qkv", 0, 0},
        {"gpt_neox.layers.5.attention.dense.weight", 2, 5, "o", LINEAR, 0},
        {"gpt_neox.layers.5.attention.dense.bias", 1, 5, "o", 0, 0},
        {"gpt_neox.layers.5.attention.rotary_emb.inv_freq", 1, 5, "other", 0, 0},
        {"gpt_neox.layers.5.mlp.dense_h_to_4h.weight", 2, 5, "up", LINEAR, 0},
        {"gpt_neox.layers.5.mlp.dense_4h_to_h.weight", 2, 5, "down", LINEAR, 0},
        {"gpt_neox.final_layer_norm.weight", 1, -1, "norm", 0, 0},
        {"embed_out.weight", 2, -1, "head", VOCABULARY, 0},
        {"transformer.wte.weight", 2, -1, "embed", VOCABULARY, 0},
        {"wpe.weight", 2, -1, "embed", 0, 0}, {"transformer.h.11.ln_1.weight", 1, 11, "norm", 0, 0},
        {"h.11.attn.bias", 4, 11, "other", 0, 0},
        {"h.11.attn.c_attn.weight", 2, 11, "qkv", LINEAR, 0},
        {"h.11.attn.c_attn.bias", 1, 11, "qkv", 0, 0},
        {"h.11.attn.c_proj.weight", 2, 11, "o", LINEAR, 0}, {"h.11.ln_2.bias", 1, 11, "norm", 0, 0},
        {"h.11.mlp.c_fc.weight", 2, 11, "up", LINEAR, 0},
        {"h.11.mlp.c_proj.weight", 2, 11, "down", LINEAR, 0}, {"ln_f.weight", 1, -1, "norm", 0, 0});
}

static void experts(void **state) {
    (void)state;
    CHECK({"model.layers.2.block_sparse_moe.gate.weight", 2, 2, "router", 0, 0},
          {"model.layers.2.block_sparse_moe.experts.7.w1.weight", 2, 2, "gate", LINEAR, 8},
          {"model.layers.2.block_sparse_moe.experts.7.w2.weight", 2, 2, "down", LINEAR, 8},
          {"model.layers.2.block_sparse_moe.experts.0.w3.weight", 2, 2, "up", LINEAR, 1},
          {"model.layers.2.mlp.gate.weight", 2, 2, "router", 0, 0},
          {"model.layers.2.mlp.gate.e_score_correction_bias", 1, 2, "router", 0, 0},
          {"model.layers.2.mlp.experts.127.gate_proj.weight", 2, 2, "gate", LINEAR, 128},
          {"model.layers.2.mlp.experts.127.up_proj.weight", 2, 2, "up", LINEAR, 128},
          {"model.layers.2.mlp.experts.127.down_proj.weight", 2, 2, "down", LINEAR, 128},
          {"model.layers.2.mlp.experts.gate_up_proj", 3, 2, "gate_up", LINEAR, 0},
          {"model.layers.2.mlp.experts.down_proj", 3, 2, "down", LINEAR, 0},
          {"model.layers.2.mlp.shared_expert.up_proj.weight", 2, 2, "up", LINEAR, 0},
          {"model.layers.2.mlp.shared_expert_gate.weight", 2, 2, "router", 0, 0},
          {"model.layers.2.mlp.shared_experts.down_proj.weight", 2, 2, "down", LINEAR, 0},
          {"model.layers.2.mlp.router.weight", 2, 2, "router", 0, 0},
          {"model.layers.2.mlp.router.bias", 1, 2, "router", 0, 0},
          {"model.layers.2.mlp.experts.gate_up_proj_bias", 2, 2, "gate_up", 0, 0},
          {"model.layers.2.mlp.experts.down_proj_bias", 2, 2, "down", 0, 0},
          {"model.layers.2.self_attn.sinks", 1, 2, "other", 0, 0});
}

static void images(void **state) {
    (void)state;
    CHECK({"vit.embeddings.cls_token", 3, -1, "embed", 0, 0},
          {"vit.embeddings.patch_embeddings.projection.weight", 4, -1, "embed", 0, 0},
          {"vit.encoder.layer.11.attention.attention.query.weight", 2, 11, "q", LINEAR, 0},
          {"vit.encoder.layer.11.attention.output.dense.bias", 1, 11, "o", 0, 0},
          {"vit.encoder.layer.11.attention.output.dense.weight", 2, 11, "o", LINEAR, 0},
          {"vit.encoder.layer.11.intermediate.dense.weight", 2, 11, "up", LINEAR, 0},
          {"vit.encoder.layer.11.output.dense.weight", 2, 11, "down", LINEAR, 0},
          {"vit.encoder.layer.11.layernorm_before.weight", 1, 11, "norm", 0, 0},
          {"vit.layernorm.weight", 1, -1, "norm", 0, 0},
          {"vit.pooler.dense.weight", 2, -1, "head", LINEAR, 0},
          {"classifier.weight", 2, -1, "head", 0, 0},
          {"vision_model.embeddings.class_embedding", 1, -1, "embed", 0, 0},
          {"vision_model.pre_layrnorm.weight", 1, -1, "norm", 0, 0},
          {"vision_model.encoder.layers.5.self_attn.out_proj.weight", 2, 5, "o", LINEAR, 0},
          {"vision_model.encoder.layers.5.mlp.fc1.weight", 2, 5, "up", LINEAR, 0},
          {"vision_model.encoder.layers.5.mlp.fc2.weight", 2, 5, "down", LINEAR, 0},
          {"vision_model.encoder.layers.5.layer_norm2.bias", 1, 5, "norm", 0, 0},
          {"visual_projection.weight", 2, -1, "head", LINEAR, 0},
          {"text_model.embeddings.token_embedding.weight", 2, -1, "embed", VOCABULARY, 0},
          {"text_model.embeddings.position_embedding.weight", 2, -1, "embed", 0, 0},
          {"logit_scale", 0, -1, "other", 0, 0},
          {"vision_model.post_layernorm.weight", 1, -1, "norm", 0, 0},
          {"vision_model.head.probe", 3, -1, "head", 0, 0},
          {"vision_model.head.attention.in_proj_weight", 2, -1, "head", LINEAR, 0},
          {"vision_model.head.attention.in_proj_bias", 1, -1, "head", 0, 0},
          {"vision_model.head.layernorm.weight", 1, -1, "head", 0, 0},
          {"vision_model.head.mlp.fc1.weight", 2, -1, "head", LINEAR, 0},
          {"dinov2.embeddings.mask_token", 2, -1, "embed", 0, 0},
          {"dinov2_with_registers.embeddings.register_tokens", 3, -1, "embed", 0, 0},
          {"dinov2.encoder.layer.4.norm1.weight", 1, 4, "norm", 0, 0},
          {"dinov2.encoder.layer.4.attention.attention.key.bias", 1, 4, "k", 0, 0},
          {"dinov2.encoder.layer.4.attention.q_proj.weight", 2, 4, "q", LINEAR, 0},
          {"dinov2.encoder.layer.4.layer_scale1.lambda1", 1, 4, "other", 0, 0},
          {"dinov2.encoder.layer.4.mlp.weights_in.weight", 2, 4, "gate_up", LINEAR, 0},
          {"dinov2.encoder.layer.4.mlp.weights_out.weight", 2, 4, "down", LINEAR, 0});
}

static void odd_names(void **state) {
    (void)state;
    CHECK({"model.layers.99999999999.mlp.up_proj.weight", 2, -1, "up", LINEAR, 0},
          {"model.layers.1.mlp.experts.x.up_proj", 3, 1, "up", LINEAR, 0},
          {"model.layers.1.linear_attn.conv1d.weight", 3, 1, "other", 0, 0},
          {"", 1, -1, "other", 0, 0}, {"...", 1, -1, "other", 0, 0});
    assert_string_equal(dpt_role_name(DPT_ROLE_COUNT), "other");
}

static void buffers(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int ndim;
        int64_t shape[4], numel;
        bool buffer;
    } cases[] = {{"gpt_neox.layers.3.attention.bias", 4, {1, 1, 8, 8}, 64, true},
                 {"gpt_neox.layers.3.attention.masked_bias", 0, {0}, 1, true},
                 {"layers.3.attention.rotary_emb.inv_freq", 1, {8}, 8, true},
                 {"model.layers.3.self_attn.rotary_emb.inv_freq", 1, {8}, 8, true},
                 {"transformer.h.0.attn.bias", 4, {1, 1, 8, 8}, 64, true},
                 {"h.0.attn.masked_bias", 0, {0}, 1, true},
                 {"vision_model.embeddings.position_ids", 2, {1, 8}, 8, true},
                 {"layers.3.attention.bias", 1, {8}, 8, false},
                 {"layers.3.attention.bias", 4, {1, 2, 8, 8}, 128, false},
                 {"layers.3.attention.dense.bias", 4, {1, 1, 8, 8}, 64, false},
                 {"layers.3.attention.masked_bias", 1, {8}, 8, false},
                 {"inv_freq", 1, {8}, 8, false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s", cases[i].name);
        dpt_tensor_info info = {.name = name, .ndim = cases[i].ndim, .numel = cases[i].numel};
        memcpy(info.shape, cases[i].shape, sizeof cases[i].shape);
        if (dpt_role_is_buffer(&info) != cases[i].buffer ||
            (strcmp(dpt_role_module(&info), "buffer") == 0) != cases[i].buffer)
            fail_msg("%s of %d sides", name, cases[i].ndim);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decoders), cmocka_unit_test(gpt),       cmocka_unit_test(experts),
        cmocka_unit_test(images),   cmocka_unit_test(odd_names), cmocka_unit_test(buffers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
