/* ranks: 1 */
/* Configurations of every family: the plain one is read, and one that is wrong in a key is refused by the name of
 * the key and with what to do, before any weight is there to be read. */
#include "nn/nn_test.h"

#include "../src/model/arch/arch.h"
#include "../src/model/arch/decoder.h"
#include "deltapath/model/model.h"
#include "deltapath/tensor/catalog.h"

#include <stdio.h>
#include <string.h>

#define DECODER                                                                                    \
    "'vocab_size': 16, 'hidden_size': 16, 'intermediate_size': 24, 'num_hidden_layers': 2, "       \
    "'num_attention_heads': 4, 'num_key_value_heads': 2, 'max_position_embeddings': 32, "          \
    "'head_dim': 4"

/* What a configuration of a family has besides its names. */
static const struct {
    const dpt_family *family;
    const char *keys;
} families[] = {
    {&dpt_family_llama, DECODER},
    {&dpt_family_mistral, DECODER},
    {&dpt_family_qwen2, DECODER},
    {&dpt_family_qwen3, DECODER},
    {&dpt_family_smollm3, DECODER},
    {&dpt_family_phi3, DECODER ", 'original_max_position_embeddings': 32"},
    {&dpt_family_olmo2, DECODER},
    {&dpt_family_olmo3, DECODER},
    {&dpt_family_gemma, DECODER},
    {&dpt_family_gemma2, DECODER},
    {&dpt_family_gemma3, DECODER},
    {&dpt_family_gpt_neox, DECODER ", 'rotary_pct': 0.5"},
    {&dpt_family_gpt2, "'vocab_size': 16, 'n_embd': 16, 'n_layer': 2, 'n_head': 4"},
    {&dpt_family_mixtral, DECODER ", 'num_local_experts': 4"},
    {&dpt_family_qwen3_moe, DECODER ", 'num_experts': 4, 'num_experts_per_tok': 2, "
                                    "'moe_intermediate_size': 8"},
    {&dpt_family_gpt_oss, DECODER ", 'num_local_experts': 4"},
};

#define COUNT(A) (int)(sizeof(A) / sizeof(A)[0])

/* Families that a case is of, by their model_type; all decoders but GPT-2, whose keys have other names. */
#define ALL                                                                                        \
    "llama mistral qwen2 qwen3 smollm3 phi3 olmo2 olmo3 gemma gemma2 gemma3_text gpt_neox " MOE
#define MOE "mixtral qwen3_moe gpt_oss"
/* Those whose windows may differ from layer to layer, those that have one, and those with biases to switch on. */
#define PERIOD  "olmo3 gemma2 gemma3_text gpt_oss"
#define WINDOWS PERIOD " mistral mixtral phi3"

static const struct {
    const char *families, *patch, *says;
} cases[] = {
    {ALL, "{'num_attention_heads': 4, 'num_key_value_heads': 3}", "num_key_value_heads 3"},
    {ALL, "{'num_attention_heads': 0}", "num_attention_heads must be"},
    {ALL, "{'num_key_value_heads': 8}", "num_key_value_heads 8"},
    {ALL, "{'num_key_value_heads': 0}", "num_key_value_heads must be"},
    {ALL, "{'head_dim': 5}", "head_dim 5"},
    {ALL, "{'head_dim': 0}", "head_dim must be"},
    {"llama mistral qwen2 smollm3 phi3 olmo2 olmo3 gpt_neox mixtral qwen3_moe",
     "{'head_dim': null, 'num_attention_heads': 6}", "hidden_size 16"},
    {"llama phi3 gpt_neox mixtral", "{'head_dim': null, 'hidden_size': 12}", "hidden_size 12"},
    {"llama mistral qwen2 qwen3 smollm3 phi3 olmo2 olmo3 gemma gemma2 gpt_neox mixtral qwen3_moe "
     "gpt_oss",
     "{'hidden_size': null}", "hidden_size is missing"},
    {ALL, "{'vocab_size': 'many'}", "vocab_size must be"},
    {ALL, "{'intermediate_size': 2.5}", "intermediate_size must be"},
    {ALL, "{'num_hidden_layers': 0}", "num_hidden_layers must be"},
    {ALL, "{'num_hidden_layers': 99999999}", "num_hidden_layers must be"},
    {ALL, "{'max_position_embeddings': -1}", "max_position_embeddings must be"},
    {ALL, "{'tie_word_embeddings': 1}", "tie_word_embeddings must be"},
    {ALL, "{'is_causal': false}", "is_causal false"},
    {ALL, "{'rope_scaling': {'rope_type': 'mrope'}}", "rope_type \"mrope\""},
    {ALL, "{'rope_scaling': 4}", "rope_scaling 4"},
    {ALL, "{'rope_scaling': {'rope_type': 3}}", "rope_type must be"},
    {ALL, "{'rope_theta': 0.5}", "rope_theta "},
    {ALL, "{'auto_map': {'AutoModelForCausalLM': 'x.Y'}}", "auto_map"},
    {ALL, "{'quantization_config': {'bits': 4}}", "this key taken out"},
    {ALL, "{'layer_types': ['full_attention']}", "a list with one entry a layer"},
    {ALL, "{'layer_types': 'full_attention'}", "a list with one entry a layer"},
    {ALL, "{'layer_types': ['full_attention', 'linear_attention']}", "layer_types ["},
    {ALL, "{'layer_types': ['full_attention', 3]}", "layer_types ["},
    {ALL, "{'attention_bias': 'no'}", "attention_bias must be"},
    {"mistral phi3 " MOE, "{'mlp_bias': true}", "mlp_bias true"},
    {"mistral mixtral", "{'attention_bias': true}", "attention_bias true"},
    {"llama qwen3 olmo2 mixtral gpt_oss", "{'rms_norm_eps': -1}", "rms_norm_eps must be"},
    {"llama qwen3 smollm3 mixtral", "{'hidden_act': 'relu6'}", "hidden_act \"relu6\""},
    {"gemma2 gemma3_text", "{'hidden_activation': 'relu6'}", "hidden_activation \"relu6\""},
    {"llama qwen3 gemma2 gpt_oss", "{'partial_rotary_factor': 0.5}", "partial_rotary_factor 0.5"},
    {WINDOWS, "{'sliding_window': 0}", "sliding_window must be"},
    {WINDOWS, "{'sliding_window': -4}", "sliding_window must be"},
    {"qwen2 qwen3 smollm3 qwen3_moe", "{'use_sliding_window': true, 'sliding_window': 0}",
     "sliding_window must be"},
    {PERIOD, "{'sliding_window': null, 'layer_types': ['full_attention', 'sliding_attention']}",
     "sliding_window where a layer slides"},
    {"gemma3_text", "{'sliding_window_pattern': 0}", "sliding_window_pattern must be"},
    {"gemma2 gemma3_text", "{'query_pre_attn_scalar': 0}", "query_pre_attn_scalar must be"},
    {"gemma2 gemma3_text", "{'final_logit_softcapping': -3}", "final_logit_softcapping must be"},
    {"gemma2 gemma3_text", "{'attn_logit_softcapping': 'no'}", "attn_logit_softcapping must be"},
    {"llama mistral qwen3 olmo2 phi3", "{'final_logit_softcapping': 30}",
     "final_logit_softcapping 30"},
    {"llama mistral qwen3 gemma2 phi3", "{'num_experts': 4}", "num_experts 4"},
    {"smollm3", "{'no_rope_layers': [1]}", "no_rope_layers"},
    {"smollm3", "{'no_rope_layer_interval': 0}", "no_rope_layer_interval must be"},
    {"phi3", "{'partial_rotary_factor': 1.5}", "partial_rotary_factor 1.5"},
    {"phi3", "{'rope_scaling': {'type': 'longrope', 'short_factor': [1], 'long_factor': [1, 1]}}",
     "a list of 2 numbers"},
    {"gpt_neox", "{'rotary_pct': 0}", "rotary_pct must be"},
    {"gpt_neox", "{'use_parallel_residual': 2}", "use_parallel_residual must be"},
    {"gpt_neox", "{'layer_norm_eps': 0}", "layer_norm_eps must be"},
    {MOE, "{'num_experts_per_tok': 5}", "num_experts_per_tok 5"},
    {MOE, "{'num_experts_per_tok': 0}", "num_experts_per_tok must be"},
    {"mixtral gpt_oss", "{'num_local_experts': 0}", "num_local_experts must be"},
    {"mixtral gpt_oss", "{'num_local_experts': null}", "num_experts is missing"},
    {"qwen3_moe", "{'num_experts': 0}", "num_experts must be"},
    {"qwen3_moe", "{'moe_intermediate_size': null}", "moe_intermediate_size is missing"},
    {"qwen3_moe", "{'decoder_sparse_step': 2}", "decoder_sparse_step 2"},
    {"qwen3_moe", "{'mlp_only_layers': [1]}", "mlp_only_layers [1]"},
    {"qwen3_moe", "{'mlp_only_layers': 1}", "mlp_only_layers 1"},
    {"qwen3_moe", "{'norm_topk_prob': 1}", "norm_topk_prob must be"},
    {"gpt_oss", "{'swiglu_limit': 0}", "swiglu_limit must be"},
    {"gpt_oss", "{'swiglu_alpha': 1.5}", "swiglu_alpha 1.5"},
    {"gpt2", "{'n_head': 3}", "n_embd 16"},
    {"gpt2", "{'n_layer': 0}", "n_layer must be"},
    {"gpt2", "{'n_embd': null}", "n_embd is missing"},
    {"gpt2", "{'n_inner': 0}", "n_inner must be"},
    {"gpt2", "{'activation_function': 'relu6'}", "activation_function \"relu6\""},
    {"gpt2", "{'add_cross_attention': true}", "add_cross_attention true"},
    {"gpt2", "{'layer_norm_epsilon': 2}", "layer_norm_epsilon must be"},
    {"gpt2", "{'scale_attn_weights': 0}", "scale_attn_weights must be"},
};

/* JSON with ' for ", as which C has it more readably. */
static json_t *families_json(const char *text) {
    char copy[2048];
    snprintf(copy, sizeof copy, "%s", text);
    for (char *c = strchr(copy, '\''); c != NULL; c = strchr(c, '\''))
        *c = '"';
    json_t *root = json_loads(copy, 0, NULL);
    if (root == NULL)
        fail_msg("no JSON: %s", copy);
    return root;
}

static dpt_status families_read(int f, const char *patch, dpt_arch *out) {
    static const dpt_catalog no_tensors = {.count = 0};
    char text[2048];
    snprintf(text, sizeof text, "{'architectures': ['%s'], 'model_type': '%s', %s}",
             families[f].family->architecture, families[f].family->model_type, families[f].keys);
    json_t *root = families_json(text), *keys = families_json(patch);
    assert_int_equal(json_object_update(root, keys), 0);
    json_decref(keys);
    dpt_status st = dpt_arch_read(root, &no_tensors, out);
    json_decref(root);
    return st;
}

static bool families_has(const char *list, const char *word) {
    size_t n = strlen(word);
    for (const char *at = list; at != NULL; at = strchr(at, ' ')) {
        at += *at == ' ';
        if (strncmp(at, word, n) == 0 && (at[n] == ' ' || at[n] == '\0'))
            return true;
    }
    return false;
}

static void plain_configurations_are_read(void **state) {
    (void)state;
#define FAMILY_KNOWS(NAME) +(dpt_family_##NAME.knows == dpt_decoder_knows)
    const int decoders = 0 DPT_FAMILIES(FAMILY_KNOWS); /* image models have another list of keys */
#undef FAMILY_KNOWS
    for (int f = 0; f < COUNT(families); f++) {
        dpt_arch arch;
        if (families_read(f, "{}", &arch) != DPT_OK)
            fail_msg("%s: %s", families[f].family->model_type, dpt_error_message());
        assert_int_equal(arch.layers, 2);
        assert_int_equal(arch.head_dim, 4);
        dpt_arch_destroy(&arch);
    }
    assert_int_equal(COUNT(families), decoders); /* a new one stands here too */
}

static void wrong_configurations_are_refused(void **state) {
    (void)state;
    int refused = 0, wrong = 0;
    for (int c = 0; c < COUNT(cases); c++) {
        int of = 0;
        for (int f = 0; f < COUNT(families); f++) {
            dpt_arch arch;
            const char *type = families[f].family->model_type;
            if (!families_has(cases[c].families, type))
                continue;
            of++;
            dpt_error_clear();
            dpt_status st = families_read(f, cases[c].patch, &arch);
            const char *says = st == DPT_OK ? "is read" : dpt_error_message();
            bool remedy = strstr(says, "gradients need") != NULL || strstr(says, ": copy") != NULL;
            if (st == DPT_ERR_INPUT && strstr(says, cases[c].says) != NULL && remedy &&
                strchr(says, '\n') == NULL)
                refused++;
            else
                wrong += printf("# %s %s: %s\n", type, cases[c].patch, says) > 0;
            if (st == DPT_OK)
                dpt_arch_destroy(&arch);
        }
        assert_true(of > 0);
    }
    assert_int_equal(wrong, 0);
    assert_true(refused > 0);
}

/* Of one family a pattern is a key; others have a fixed one, and transformers does not read it there. */
static void windows_follow_the_family(void **state) {
    (void)state;
    for (int f = 0; f < COUNT(families); f++) {
        dpt_arch arch;
        const char *type = families[f].family->model_type;
        if (!families_has(PERIOD, type))
            continue;
        assert_int_equal(
            families_read(f, "{'sliding_window': 7, 'sliding_window_pattern': 1}", &arch), DPT_OK);
        assert_int_equal(arch.window[0], strcmp(type, "gemma3_text") == 0 ? 0 : 7);
        dpt_arch_destroy(&arch);
    }
}

static int families_index(const char *type) {
    for (int f = 0; f < COUNT(families); f++)
        if (strcmp(families[f].family->model_type, type) == 0)
            return f;
    return -1;
}

/* Every option that changes what is computed from the same tensors. */
static void options_that_differ_are_named(void **state) {
    (void)state;
    static const struct {
        const char *family, *patch, *says;
    } options[] = {
        {"gemma2", "{'query_pre_attn_scalar': 4}", "scale of the attention (0.0625 and 0.5)"},
        {"gemma2", "{'attn_logit_softcapping': null}", "attn_logit_softcapping (50 and 0)"},
        {"gemma2", "{'final_logit_softcapping': 7}", "final_logit_softcapping (30 and 7)"},
        {"gpt2", "{'scale_attn_weights': false}", "scale of the attention (0.5 and 1)"},
        {"gpt2", "{'scale_attn_by_inverse_layer_idx': true}",
         "scale_attn_by_inverse_layer_idx (0 and 1)"},
        {"gpt_neox", "{'use_parallel_residual': false}", "use_parallel_residual (1 and 0)"},
        {"mixtral", "{'num_experts_per_tok': 1}", "num_experts_per_tok (2 and 1)"},
        {"qwen3_moe", "{'num_experts_per_tok': 3}", "num_experts_per_tok (2 and 3)"},
        {"qwen3_moe", "{'norm_topk_prob': true}", "norm_topk_prob (0 and 1)"},
        {"gpt_oss", "{'swiglu_limit': 5}", "swiglu_limit (7 and 5)"},
        {"gpt_oss", "{'swiglu_limit': 7}", ""},
        {"llama", "{}", ""},
    };
    for (int i = 0; i < COUNT(options); i++) {
        dpt_arch plain, other;
        char text[256] = "";
        int f = families_index(options[i].family);
        assert_int_equal(families_read(f, "{}", &plain), DPT_OK);
        assert_int_equal(families_read(f, options[i].patch, &other), DPT_OK);
        dpt_arch_compare(&plain, &other, text, sizeof text);
        assert_string_equal(text, options[i].says);
        dpt_arch_destroy(&plain);
        dpt_arch_destroy(&other);
    }
}

/* The tie by key or by the default of the family, of whatever names; of a wrapper its own key before that inside. */
static void heads_are_tied_as_the_family_says(void **state) {
    (void)state;
    static const struct {
        const char *config, *head, *embedding;
        bool tied;
    } heads[] = {
        {"{'model_type': 'llama', " DECODER "}", "lm_head.weight", "model.embed_tokens.weight",
         false},
        {"{'model_type': 'gemma', " DECODER "}", "lm_head.weight", "model.embed_tokens.weight",
         true},
        {"{'model_type': 'gemma2', " DECODER ", 'tie_word_embeddings': false}", "lm_head.weight",
         "model.embed_tokens.weight", false},
        {"{'model_type': 'gpt2', 'vocab_size': 16, 'n_embd': 16, 'n_layer': 2, 'n_head': 4}",
         "lm_head.weight", "transformer.wte.weight", true},
        {"{'model_type': 'gpt_neox', " DECODER ", 'tie_word_embeddings': true}", "embed_out.weight",
         "gpt_neox.embed_in.weight", true},
        {"{'model_type': 'unheard_of', 'tie_word_embeddings': true}", "lm_head.weight",
         "model.embed_tokens.weight", true},
        {"{'architectures': ['Gemma3ForConditionalGeneration'], 'tie_word_embeddings': false, "
         "'text_config': {'model_type': 'gemma3_text', 'tie_word_embeddings': true, " DECODER "}}",
         "lm_head.weight", "language_model.model.embed_tokens.weight", false},
        {"{'architectures': ['Gemma3ForConditionalGeneration'], 'tie_word_embeddings': true, "
         "'text_config': {'model_type': 'gemma3_text', 'tie_word_embeddings': false, " DECODER "}}",
         "language_model.lm_head.weight", "language_model.model.embed_tokens.weight", true},
        {"{'architectures': ['LlavaForConditionalGeneration'], 'model_type': 'llava', "
         "'tie_word_embeddings': false, "
         "'text_config': {'model_type': 'llama', 'tie_word_embeddings': true, " DECODER "}}",
         "language_model.lm_head.weight", "language_model.model.embed_tokens.weight", true},
    };
    for (int c = 0; c < COUNT(heads); c++) {
        dpt_catalog catalog;
        dpt_tied_head found;
        dpt_catalog_init(&catalog);
        const dpt_tensor_info info = {.dtype = DPT_F32, .ndim = 1, .shape = {16}};
        assert_int_equal(
            dpt_catalog_add(&catalog, heads[c].embedding, info.dtype, info.ndim, info.shape),
            DPT_OK);
        assert_int_equal(
            dpt_catalog_add(&catalog, heads[c].head, info.dtype, info.ndim, info.shape), DPT_OK);
        assert_int_equal(dpt_catalog_sort(&catalog), DPT_OK);
        json_t *config = families_json(heads[c].config);
        char *text = json_dumps(config, 0);
        assert_int_equal(dpt_model_config_head(text, &catalog, &found), DPT_OK);
        if (found.tied != heads[c].tied)
            fail_msg("tied %d: %s", found.tied, text);
        assert_int_equal(found.head, dpt_catalog_find(&catalog, heads[c].head));
        assert_int_equal(found.embedding, dpt_catalog_find(&catalog, heads[c].embedding));
        free(text);
        json_decref(config);
        dpt_catalog_destroy(&catalog);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_configurations_are_read),
        cmocka_unit_test(wrong_configurations_are_refused),
        cmocka_unit_test(windows_follow_the_family),
        cmocka_unit_test(options_that_differ_are_named),
        cmocka_unit_test(heads_are_tied_as_the_family_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
