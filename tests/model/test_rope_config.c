/* ranks: 1 */
/* Rotary settings that configurations of several families give, against what transformers makes of them. */
#include "nn/nn_test.h"

#include "../src/model/arch/decoder_rope.h"
#include "deltapath/base/mem.h"
#include "golden/rope_config_golden.h"

#include <stdio.h>
#include <string.h>

static const dpt_rope_params scaling_of_gpt_oss = {.kind = DPT_ROPE_YARN,
                                                   .factor = 32.0,
                                                   .beta_fast = 32.0,
                                                   .beta_slow = 1.0,
                                                   .original_max_position = 4096};

/* The kinds of keys that families have. */
static const struct {
    const char *family;
    dpt_rope_traits traits;
} families[] = {
    {"llama", {.theta = 0.0}},
    {"smollm3", {.theta = 2000000.0, .no_rope_interval = 4}},
    {"phi3", {.partial_key = "partial_rotary_factor", .longrope_positions = 4096}},
    {"gpt_neox", {.theta_key = "rotary_emb_base", .partial_key = "rotary_pct", .partial = 0.25}},
    {"gemma3",
     {.theta = 1000000.0,
      .by_type = true,
      .sliding_theta = 10000.0,
      .sliding_theta_key = "rope_local_base_freq"}},
    {"olmo3", {.theta = 500000.0, .by_type = true, .sliding_theta = 500000.0}},
    {"gpt_oss", {.theta = 150000.0, .scaling = &scaling_of_gpt_oss}},
};

/* Read a text as the configuration of a family; the caller destroys out. */
static dpt_status config_read(const char *family, const char *text,
                              const enum golden_kind kinds[GOLDEN_LAYERS], dpt_arch *out) {
    int f = 0;
    while (strcmp(families[f].family, family) != 0)
        f++;
    *out = (dpt_arch){.layers = GOLDEN_LAYERS,
                      .head_dim = GOLDEN_HEAD_DIM,
                      .max_positions = GOLDEN_POSITIONS,
                      .window = dpt_mem_zalloc(GOLDEN_LAYERS, sizeof *out->window, "windows")};
    for (int l = 0; l < GOLDEN_LAYERS; l++)
        out->window[l] = kinds[l] == GOLDEN_SLIDING ? 16 : 0;
    json_t *root = json_loads(text, 0, NULL);
    assert_non_null(root);
    dpt_config in = {.object = root, .where = "config.json", .status = DPT_OK};
    dpt_decoder_read_rope(&in, &families[f].traits, out);
    json_decref(root);
    return in.status;
}

static void layers_turn_as_in_transformers(void **state) {
    (void)state;
    for (int64_t i = 0; i < NN_COUNT(golden_configs); i++) {
        dpt_arch arch;
        const char *config = golden_configs[i].config;
        if (config_read(golden_configs[i].family, config, golden_configs[i].kinds, &arch) != DPT_OK)
            fail_msg("%s: %s", config, dpt_error_message());
        for (int64_t l = 0; l < GOLDEN_LAYERS; l++) {
            int got = arch.rope_of != NULL ? arch.rope_of[l] : 0;
            enum golden_kind kind = golden_configs[i].kinds[l];
            bool own = golden_configs[i].settings[1].half > 0; /* settings by kind of layer */
            int want = kind == GOLDEN_NONE ? -1 : kind == GOLDEN_SLIDING && own ? 1 : 0;
            if (got != want)
                fail_msg("%s: layer %d has the setting %d", config, (int)l, got);
        }
        for (int s = 0; s < 2; s++) {
            const dpt_rope_params *rope = &arch.rope[s];
            int64_t half = golden_configs[i].settings[s].half;
            assert_int_equal(dpt_nn_rope_half(rope), half);
            if (half > 0)
                assert_true(fabs(dpt_nn_rope_scale(rope) - golden_configs[i].settings[s].scale) <
                            1e-14);
            for (int n = 0; n < 2; n++) {
                float freq[GOLDEN_HEAD_DIM / 2];
                const float *want = golden_configs[i].settings[s].freq[n];
                dpt_nn_rope_inv_freq(rope, golden_lengths[n], freq);
                for (int64_t h = 0; h < half; h++)
                    if (!(fabsf(freq[h] - want[h]) <= 4.8e-7f * want[h]))
                        fail_msg("%s: frequency %d of setting %d", config, (int)h, s);
            }
        }
        dpt_arch_destroy(&arch);
    }
}

static const enum golden_kind sliding_first[GOLDEN_LAYERS] = {GOLDEN_SLIDING};

static void other_keys_are_refused(void **state) {
    (void)state;
#define LISTS "'short_factor': [1, 1, 1, 1], 'long_factor': [1, 1, 1, 1]"
    static const struct {
        const char *family, *config, *says;
    } cases[] = {
        {"llama", "{'partial_rotary_factor': 0.5}", "partial_rotary_factor 0.5"},
        {"llama", "{'rope_scaling': {'partial_rotary_factor': 0.5}}", "partial_rotary_factor 0.5"},
        {"llama", "{'no_rope_layers': [1, 1, 1, 0]}", "no_rope_layers"},
        {"llama", "{'no_rope_layer_interval': 4}", "no_rope_layer_interval"},
        {"llama", "{'rope_local_base_freq': 10000}", "rope_local_base_freq"},
        {"llama", "{'rotary_pct': 0.25}", "rotary_pct"},
        {"llama", "{'rotary_emb_base': 500}", "rotary_emb_base"},
        {"llama", "{'rope_interleaved': true}", "rope_interleaved"},
        {"llama", "{'rope_parameters': {'full_attention': {}}}", "one rotary setting"},
        {"llama", "{'rope_scaling': {'rope_type': 'mrope'}}", "rope_type \"mrope\""},
        {"llama", "{'rope_scaling': {'rope_type': 'dynamic'}}", "factor is missing"},
        {"llama", "{'rope_scaling': {'rope_type': 'yarn'}}", "factor is missing"},
        {"llama", "{'rope_scaling': {'rope_type': 'yarn', 'factor': 2, 'beta_slow': -1}}",
         "beta_slow must be"},
        {"llama", "{'rope_scaling': {'rope_type': 'yarn', 'factor': 2, 'attention_factor': 0}}",
         "attention_factor must be"},
        {"llama",
         "{'original_max_position_embeddings': 9, 'rope_scaling': {'rope_type': 'yarn', 'factor': "
         "2}}",
         "original_max_position_embeddings 9 is not supported: gradients need that of "
         "rope_scaling"},
        {"llama", "{'rope_scaling': {'rope_type': 'longrope', 'short_factor': [1, 1, 1, 1]}}",
         "long_factor"},
        {"llama",
         "{'rope_scaling': {'rope_type': 'longrope', 'long_factor': [1, 1, 1, 1], 'short_factor': "
         "[1, 0, 1, 1]}}",
         "a list of 4 numbers above 0"},
        {"llama",
         "{'rope_scaling': {'rope_type': 'longrope', 'long_factor': [1, 1, 1, 1], 'short_factor': "
         "[1, 1, 1]}}",
         "a list of 4 numbers above 0"},
        {"smollm3", "{'no_rope_layers': [1, 1, 1]}", "no_rope_layers"},
        {"smollm3", "{'no_rope_layers': [1, 1, 1, 2]}", "no_rope_layers"},
        {"smollm3", "{'no_rope_layers': 3}", "no_rope_layers"},
        {"smollm3", "{'no_rope_layer_interval': 0}", "no_rope_layer_interval"},
        {"phi3", "{'rope_scaling': {'type': 'linear', 'factor': 2}}", "\"longrope\""},
        {"phi3", "{'partial_rotary_factor': 1.5}", "partial_rotary_factor 1.5"},
        {"phi3", "{'partial_rotary_factor': 0.5, 'rope_parameters': {'partial_rotary_factor': 1}}",
         "that of rope_parameters"},
        {"phi3",
         "{'original_max_position_embeddings': 64, 'rope_scaling': {'type': 'su', "
         "'original_max_position_embeddings': 65, " LISTS "}}",
         "original_max_position_embeddings 65"},
        {"phi3", "{'rope_scaling': {'type': 'su', " LISTS "}, 'partial_rotary_factor': 0.5}",
         "a list of 2 numbers"},
        {"gpt_neox", "{'rope_theta': 500}",
         "rope_theta 500 is not supported: gradients need that "
         "of rotary_emb_base"},
        {"gpt_neox", "{'rotary_pct': 0.5, 'partial_rotary_factor': 0.25}",
         "partial_rotary_factor 0.25"},
        {"gpt_neox", "{'rope_scaling': {'type': 'dynamic', 'factor': 2}}", "width above 2"},
        {"gpt_neox", "{'rotary_pct': 0.65, 'rope_scaling': {'type': 'yarn', 'factor': 2}}",
         "an even width"},
        {"gemma3", "{'rope_parameters': {'rope_type': 'linear', 'factor': 8.0}}",
         "full_attention and sliding_attention in it"},
        {"gemma3",
         "{'rope_parameters': {'sliding_attention': {'rope_theta': 5}}, "
         "'rope_local_base_freq': 6}",
         "rope_local_base_freq 6 is not supported: gradients need that of "
         "rope_parameters.sliding_attention"},
        {"gemma3", "{'rope_parameters': {'sliding_attention': {'rope_type': 'linear'}}}",
         "rope_parameters.sliding_attention: factor is missing"},
        {"gemma3", "{'rope_scaling': {'rope_type': 'yarn', 'factor': 2, 'truncate': false}}",
         "truncate false"},
        {"olmo3", "{'rope_theta': 10000}", "rope_theta 10000"},
    };
#undef LISTS
    for (int64_t i = 0; i < NN_COUNT(cases); i++) {
        char text[512];
        dpt_arch arch;
        snprintf(text, sizeof text, "%s", cases[i].config);
        for (char *c = text; *c != '\0'; c++)
            *c = *c == '\'' ? '"' : *c;
        dpt_error_clear();
        if (config_read(cases[i].family, text, sliding_first, &arch) != DPT_ERR_INPUT ||
            strstr(dpt_error_message(), cases[i].says) == NULL)
            fail_msg("%s: \"%s\"", cases[i].config, dpt_error_message());
        dpt_arch_destroy(&arch);
    }
    dpt_error_clear();
}

/* Every two configurations of a family that turn otherwise differ, and those that turn alike do not. */
static void comparison_names_what_differs(void **state) {
    (void)state;
    static const struct {
        const char *family, *a, *b, *says;
    } cases[] = {
        {"llama", "{\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2}}", "{}",
         "factor of the rotary scaling (2 and 0), original_max_position_embeddings (1024 and 0), "
         "rope_type (dynamic and default)"},
        {"llama", "{\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2}}",
         "{\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2, \"beta_fast\": 16}}",
         "beta_fast (32 and 16)"},
        {"llama", "{\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2}}",
         "{\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2, \"truncate\": false}}",
         "truncate (1 and 0)"},
        {"llama", "{\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2}}",
         "{\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2, \"attention_factor\": 1.5}}",
         "attention_factor (1.06931472 and 1.5)"},
        {"phi3",
         "{\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1, 1, 1, 1], "
         "\"long_factor\": [1, 2, 3, 4]}}",
         "{\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1, 1, 1, 1], "
         "\"long_factor\": [1, 2, 5, 4]}}",
         "long_factor 2 (3 and 5)"},
        {"phi3", "{}", "{\"partial_rotary_factor\": 0.5}", "rotated width of a head (8 and 4)"},
        {"smollm3", "{}", "{\"no_rope_layers\": [1, 0, 1, 0]}",
         "rotary setting of layer 1 (0 and -1)"},
        {"gemma3", "{}", "{\"rope_local_base_freq\": 20}",
         "rope_theta of layers with a window (10000 and 20)"},
    };
    for (int64_t i = 0; i < NN_COUNT(cases); i++) {
        dpt_arch a, b;
        char text[256] = "";
        assert_int_equal(config_read(cases[i].family, cases[i].a, sliding_first, &a), DPT_OK);
        assert_int_equal(config_read(cases[i].family, cases[i].b, sliding_first, &b), DPT_OK);
        dpt_decoder_compare_rope(&a, &b, text, sizeof text);
        assert_string_equal(text, cases[i].says);
        text[0] = '\0';
        dpt_decoder_compare_rope(&b, &b, text, sizeof text);
        assert_string_equal(text, "");
        dpt_arch_destroy(&a);
        dpt_arch_destroy(&b);
    }
}

static void scaling_extends_the_context(void **state) {
    (void)state;
    static const struct {
        const char *config;
        int64_t positions;
    } cases[] = {
        {"{\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2.5}}", GOLDEN_POSITIONS * 5 / 2},
        {"{\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 0.5}}", GOLDEN_POSITIONS},
        {"{\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 1e12}}", 1 << 30},
        {"{\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.5}}", GOLDEN_POSITIONS * 5 / 2},
        {"{\"rope_scaling\": {\"type\": \"linear\", \"factor\": 0.5}}", GOLDEN_POSITIONS},
        {"{\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4}}", GOLDEN_POSITIONS * 4},
        {"{\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4, "
         "\"original_max_position_embeddings\": 512}}",
         GOLDEN_POSITIONS * 2},
        {"{\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2, "
         "\"original_max_position_embeddings\": 256}}",
         GOLDEN_POSITIONS},
        {"{\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, "
         "\"high_freq_factor\": 4, \"original_max_position_embeddings\": 512}}",
         GOLDEN_POSITIONS},
    };
    for (int64_t i = 0; i < NN_COUNT(cases); i++) {
        dpt_arch arch;
        assert_int_equal(config_read("llama", cases[i].config, sliding_first, &arch), DPT_OK);
        assert_int_equal(arch.max_positions, cases[i].positions);
        dpt_arch_destroy(&arch);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers_turn_as_in_transformers),
        cmocka_unit_test(other_keys_are_refused),
        cmocka_unit_test(comparison_names_what_differs),
        cmocka_unit_test(scaling_extends_the_context),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
