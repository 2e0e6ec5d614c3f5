/* ranks: 1 2 3 4 */
/* Loss, gradients and terms of the decoder against transformers, at every mesh of the ranks. */
#include "support/test_mpi.h"
#include "support/fault.h"

#include "model/model_golden.h"

/* Folders of tests/golden with cases of decoders: llama has those of LLaMA, Mistral, Qwen2 and Qwen3. */
static const char *const folders[] = {"llama",   "smollm3",   "phi3",   "olmo2",    "olmo3",
                                      "gemma",   "gemma2",    "gemma3", "gpt_neox", "gpt2",
                                      "mixtral", "qwen3_moe", "gpt_oss"};

static void test_golden(void **state) {
    (void)state;
    golden_names cases;
    golden_list(folders, sizeof folders / sizeof *folders, &cases);
    model_check_all((const char *const *)cases.names, cases.count, false);
    golden_list_free(&cases);
}

static void test_finite_difference(void **state) {
    (void)state;
    golden_names cases;
    golden_list(folders, sizeof folders / sizeof *folders, &cases);
    model_check_slope((const char *const *)cases.names, cases.count, false);
    golden_list_free(&cases);
}

/* W(t) on the fly against a model that was loaded with the values of W(t). */
static void test_interpolation(void **state) {
    (void)state;
    model_fixture f;
    model_fixture_open(&f, "gqa", false, test_comm.size);
    for (int k = 0; k < f.g->post.catalog.count; k++)
        for (int64_t i = 0; i < f.g->post.catalog.tensors[k].numel; i++) {
            float *at = (float *)f.g->post.values[k] + i;
            *at += 0.3F * (((float *)f.g->edited.values[k])[i] - *at);
        }
    double *nll = calloc((size_t)f.g->tokens, sizeof *nll);
    dpt_model *direct;
    assert_int_equal(dpt_model_create(&f.mesh.model, &f.mesh.data, f.g->config,
                                      memory_source(&f.g->post), &direct),
                     DPT_OK);
    assert_int_equal(
        dpt_model_run(direct, &f.batch, 0.0, DPT_BACKWARD_NONE, NULL, nll, NULL, NULL, NULL),
        DPT_OK);
    assert_int_equal(
        dpt_model_run(f.model, &f.batch, 0.3, DPT_BACKWARD_NONE, NULL, f.nll, NULL, NULL, NULL),
        DPT_OK);
    for (int64_t i = 0; i < f.g->tokens; i++)
        model_near(f.nll[i], nll[i], 1.0, "nll", "interpolated");
    dpt_model_destroy(direct);
    free(nll);
    model_fixture_close(&f);
}

/* A packed batch gives what its sequences give alone; buffers are reused for smaller batches. */
static void test_packing(void **state) {
    (void)state;
    model_fixture f;
    model_fixture_open(&f, "mistral_swa", false, test_comm.size);
    uint8_t *correct = calloc((size_t)f.g->tokens, 1), *alone = calloc((size_t)f.g->tokens, 1);
    double *nll = calloc((size_t)f.g->tokens, sizeof *nll);
    assert_int_equal(
        dpt_model_run(f.model, &f.batch, 0.0, DPT_BACKWARD_NONE, NULL, f.nll, correct, NULL, NULL),
        DPT_OK);
    int64_t held = dpt_mem_in_use();
    for (int64_t s = 0; s < f.g->samples; s++) {
        int64_t at = f.g->offsets[s], first[2] = {0, f.g->offsets[s + 1] - at};
        dpt_batch one = {
            .sequences = 1, .first = first, .tokens = f.g->token + at, .mask = f.g->mask + at};
        assert_int_equal(dpt_model_run(f.model, &one, 0.0, DPT_BACKWARD_NONE, NULL, nll + at,
                                       alone + at, NULL, NULL),
                         DPT_OK);
    }
    assert_int_equal(dpt_mem_in_use(), held);
    for (int64_t i = 0; i < f.g->tokens; i++) {
        model_near(nll[i], f.nll[i], 1.0, "nll", "packed");
        assert_int_equal(alone[i], correct[i]);
    }
    free(correct);
    free(alone);
    free(nll);
    model_fixture_close(&f);
}

enum { LAYERS = 2 }; /* of the golden models */

/* Post in bf16, edit in f16 and f32: tensors whose bytes agree leave no term, others do. */
static void test_stored_types(void **state) {
    (void)state;
    golden_model g;
    golden_load("bias", &g);
    dpt_model *model;
    memory_model post = memory_convert(&g.post, DPT_BF16), same = memory_convert(&g.post, DPT_BF16);
    memory_model half = memory_convert(&g.edited, DPT_F16);
    post.together = true; /* else columns would be fetched by other calls than one a layer */
    assert_int_equal(dpt_model_create(&test_comm, NULL, g.config, memory_source(&post), &model),
                     DPT_OK);
    assert_int_equal(post.fetches, LAYERS + 2);
    dpt_batch batch = golden_batch(&g);
    double *weight = golden_weights(&g, 1.0), *nll = calloc((size_t)g.tokens, sizeof *nll);
    int64_t n = g.samples * g.post.catalog.count;
    double *terms = calloc((size_t)n, sizeof *terms);
    dpt_source edit = memory_source(&same);
    assert_int_equal(dpt_model_bind_edit(model, &edit), DPT_OK);
    assert_int_equal(
        dpt_model_run(model, &batch, 0.5, DPT_BACKWARD_TERMS, weight, nll, NULL, terms, NULL),
        DPT_OK);
    for (int64_t i = 0; i < n; i++)
        assert_true(terms[i] == 0.0);
    edit = memory_source(&half);
    assert_int_equal(dpt_model_bind_edit(model, &edit), DPT_OK);
    assert_int_equal(
        dpt_model_run(model, &batch, 1.0, DPT_BACKWARD_TERMS, weight, nll, NULL, terms, NULL),
        DPT_OK);
    for (int64_t s = 0; s < g.samples; s++) { /* f16 has 11 bits: the loss is near that of W_edit */
        double sum = 0.0;
        for (int64_t i = g.offsets[s]; i < g.offsets[s + 1]; i++)
            sum += nll[i];
        assert_true(fabs(sum / (double)golden_scored(&g, s) - g.loss_edit[s]) < 5e-3);
    }
    assert_int_equal(dpt_comm_sum_f64(&test_comm, terms, n), DPT_OK);
    for (int k = 0; k < g.post.catalog.count; k++)
        assert_true(terms[k] != 0.0);
    assert_int_equal(dpt_model_bind_edit(model, NULL), DPT_OK);
    assert_int_equal(
        dpt_model_run(model, &batch, 0.5, DPT_BACKWARD_NONE, NULL, nll, NULL, NULL, NULL),
        DPT_ERR_INTERNAL);
    dpt_error_clear();
    dpt_model_destroy(model);
    memory_free(&post);
    memory_free(&same);
    memory_free(&half);
    free(weight);
    free(nll);
    free(terms);
    golden_free(&g);
}

static void test_bytes(void **state) {
    (void)state;
    model_fixture f;
    model_fixture_open(&f, "bias", false, test_comm.size);
    dpt_model_ranks spread = {.group = test_comm.size, .replicas = 1, .machines = 1};
    int64_t weights, work, before = dpt_mem_in_use();
    assert_int_equal(dpt_model_bytes(f.g->config, &f.g->post.catalog, &spread, true, f.g->tokens,
                                     17, &weights, &work),
                     DPT_OK);
    model_fixture_run(&f, 0.5, DPT_BACKWARD_TERMS, 1.0, NULL, NULL);
    assert_true(dpt_mem_in_use() - before <= work);
    if (test_comm.rank == 0)
        assert_int_equal(dpt_mem_in_use() - before, work);
    int64_t numel = dpt_catalog_elements(&f.g->post.catalog);
    assert_true(weights >= 8 * numel / test_comm.size && weights <= 9 * numel);
    model_fixture_close(&f);
}

/* The bytes that are planned for a gradient are those that one takes, of the rank that takes most. */
static void test_gradient_bytes(void **state) {
    (void)state;
    static const char *const sets[] = {"bias", "gqa", "tied"};
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        model_fixture f;
        dpt_model_gradient *gradient = NULL;
        model_fixture_open(&f, sets[i], false, test_comm.size);
        int64_t planned, adding, before = dpt_mem_in_use();
        dpt_model_ranks spread = {.group = test_comm.size, .replicas = 1, .machines = 1};
        assert_int_equal(
            dpt_model_gradient_bytes(f.g->config, &f.g->post.catalog, &spread, &planned, &adding),
            DPT_OK);
        assert_int_equal(adding, 0);
        assert_int_equal(dpt_model_gradient_create(f.model, &gradient), DPT_OK);
        int64_t taken = dpt_mem_in_use() - before;
        assert_int_equal(dpt_comm_max_i64(&test_comm, &taken, 1), DPT_OK);
        assert_int_equal(taken, planned);
        dpt_model_gradient_destroy(gradient);
        model_fixture_close(&f);
    }
}

/* Give the fixture's models more positions and a wider window, and one sequence that spans several
 * blocks of the attention kernels after a short one. */
static void make_long(golden_model *g) {
    json_t *root = json_loads(g->config, 0, NULL);
    json_object_set_new(root, "max_position_embeddings", json_integer(4096));
    json_object_set_new(root, "sliding_window", json_integer(600));
    free(g->config);
    g->config = json_dumps(root, 0);
    json_decref(root);
    g->samples = 2;
    g->tokens = 777;
    g->offsets[1] = 5;
    g->offsets[2] = g->tokens;
    g->token = realloc(g->token, (size_t)g->tokens * sizeof *g->token);
    g->mask = realloc(g->mask, (size_t)g->tokens);
    for (int64_t i = 0; i < g->tokens; i++) {
        g->token[i] = (int32_t)(i * i % 37 + i % 3);
        g->mask[i] = i % 2 == 0;
    }
}

static void run_terms(const dpt_comm *group, const golden_model *g, double *nll, double *terms) {
    golden_model copy = *g;
    dpt_batch batch = golden_batch(g);
    double *weight = golden_weights(g, 1.0);
    dpt_source edited = memory_source(&copy.edited);
    dpt_model *model;
    assert_int_equal(dpt_model_create(group, NULL, g->config, memory_source(&copy.post), &model),
                     DPT_OK);
    assert_int_equal(dpt_model_bind_edit(model, &edited), DPT_OK);
    assert_int_equal(
        dpt_model_run(model, &batch, 0.5, DPT_BACKWARD_TERMS, weight, nll, NULL, terms, NULL),
        DPT_OK);
    assert_int_equal(dpt_comm_sum_f64(group, terms, g->samples * g->post.catalog.count), DPT_OK);
    dpt_model_destroy(model);
    free(weight);
}

/* Long sequences: one rank alone and all ranks together find the same. */
static void test_long(void **state) {
    (void)state;
    golden_model g;
    golden_load("mistral_swa", &g);
    make_long(&g);
    dpt_mesh mesh;
    assert_int_equal(dpt_mesh_create(&test_comm, 1, &mesh), DPT_OK);
    int count = g.post.catalog.count;
    double *nll[2], *terms[2];
    for (int i = 0; i < 2; i++) {
        nll[i] = calloc((size_t)g.tokens, sizeof(double));
        terms[i] = calloc((size_t)(g.samples * count), sizeof(double));
        run_terms(i == 0 ? &mesh.model : &test_comm, &g, nll[i], terms[i]);
    }
    for (int64_t i = 0; i < g.tokens; i++)
        model_near(nll[1][i], nll[0][i], 1.0, "nll", "long");
    for (int64_t i = 0; i < g.samples * count; i++)
        model_near(terms[1][i], terms[0][i], fmax(fabs(terms[0][i]), 1e-3), "term", "long");
    for (int i = 0; i < 2; i++) {
        free(nll[i]);
        free(terms[i]);
    }
    dpt_mesh_destroy(&mesh);
    golden_free(&g);
}

static void test_bad_configs(void **state) {
    (void)state;
    static const model_bad_key bad[] = {
        {"architectures", "[\"BloomForCausalLM\"]", "architectures BloomForCausalLM"},
        {"model_type", "\"mistral\"", "model_type says mistral"},
        {"hidden_act", "\"relu\"", "hidden_act"},
        {"hidden_act", "7", "hidden_act"},
        {"hidden_size", "-1", "hidden_size"},
        {"hidden_size", "null", "leaves out its family's defaults, write them into it"},
        {"hidden_size", "1e3", "hidden_size"},
        {"hidden_size", "4611686018427387904", "hidden_size"},
        {"vocab_size", "0", "vocab_size"},
        {"num_hidden_layers", "100000000", "num_hidden_layers"},
        {"num_attention_heads", "5", "q_proj.weight has the shape"},
        {"num_key_value_heads", "3", "num_key_value_heads"},
        {"head_dim", "5", "head_dim"},
        {"rms_norm_eps", "0", "rms_norm_eps"},
        {"rms_norm_eps", "\"small\"", "rms_norm_eps"},
        {"tie_word_embeddings", "1", "tie_word_embeddings"},
        {"tie_word_embeddings", "false",
         "lm_head.weight is missing: write `tie_word_embeddings: true`"},
        {"attention_bias", "true", "bias is missing"},
        {"num_hidden_layers", "1", "model.layers.1.input_layernorm.weight is not part"},
        {"rope_scaling", "{\"type\": \"ntk\", \"factor\": 2.0}", "ntk"},
        {"rope_scaling", "{\"rope_type\": \"linear\"}", "factor"},
        {"rope_scaling", "[1]", "rope_scaling"},
        {"rope_parameters", "{\"full_attention\": {\"rope_theta\": 1e4}}", "rope_parameters"},
        {"rope_parameters", "{\"rope_theta\": -1.0}", "rope_theta"},
        {"rope_parameters", "{\"rope_theta\": 1e4}", "not both"},
        {"partial_rotary_factor", "0.5", "partial_rotary_factor"},
        {"quantization_config", "{\"bits\": 4}", "quantization_config"},
        {"num_local_experts", "8", "num_local_experts"},
        {"layer_types", "[\"linear_attention\", \"full_attention\"]", "layer_types"},
        {"layer_types", "[\"sliding_attention\", \"full_attention\"]", "layer_types"},
        {"is_causal", "false", "is_causal"},
        {"use_bidirectional_attention", "true", "use_bidirectional_attention"},
        {"auto_map", "{\"AutoModelForCausalLM\": \"modeling.Own\"}", "auto_map"},
        {"logit_scale", "3.0", "logit_scale"},
        {"scale_emb", "12", "scale_emb"},
        {"qk_norm", "true", "qk_norm"},
        {"rope_interleaved", "true", "rope_interleaved"},
    };
    golden_model g;
    golden_load("llama3_rope_old", &g);
    model_check_bad_keys(&g, bad, sizeof bad / sizeof bad[0]);
    model_expect_refusal("{\"vocab_size\": 40,}", &g.post, "config.json:1:");
    model_expect_refusal("[]", &g.post, "not an object");
    model_expect_refusal("{}", &g.post, "model_type");
    model_expect_refusal(NULL, &g.post, "no config.json");
    golden_free(&g);
}

static void test_two_thetas(void **state) {
    (void)state;
    golden_model g;
    golden_load("gqa", &g);
    json_t *root = json_loads(g.config, 0, NULL);
    json_object_del(root, "rope_scaling");
    json_object_set_new(root, "rope_parameters", json_pack("{s:f}", "rope_theta", 10000.0));
    for (int same = 0; same < 2; same++) {
        char text[256];
        json_object_set_new(root, "rope_theta", json_real(same ? 10000.0 : 500000.0));
        char *config = json_dumps(root, 0);
        if (same)
            assert_int_equal(
                dpt_model_config_compare(config, config, &g.post.catalog, text, sizeof text),
                DPT_OK);
        else
            model_expect_refusal(config, &g.post, "rope_theta 500000.0 is not supported");
        free(config);
    }
    json_decref(root);
    golden_free(&g);
}

/* An empty quantization_config says nothing. */
static void test_empty_quantisation(void **state) {
    (void)state;
    golden_model g;
    golden_load("gqa", &g);
    json_t *root = json_loads(g.config, 0, NULL);
    json_object_set_new(root, "quantization_config", json_object());
    char text[256], *config = json_dumps(root, 0);
    assert_int_equal(dpt_model_config_compare(config, config, &g.post.catalog, text, sizeof text),
                     DPT_OK);
    free(config);
    json_decref(root);
    golden_free(&g);
}

/* Keys that nobody here knows are named, when they are on. */
static void test_unknown_keys(void **state) {
    (void)state;
    static const struct {
        const char *key, *value, *text;
    } cases[] = {
        {"attention_dropout", "0.1", ""},
        {"_name_or_path", "\"x\"", ""},
        {"unsloth_version", "\"2025\"", ""},
        {"softmax_shift", "0.5", "softmax_shift"},
        {"softmax_shift", "null", ""},
        {"softmax_shift", "{}", ""},
        {"softmax_shift", "false", ""},
        {"softmax_shift", "\"soft\"", "softmax_shift"},
        {"gate", "[1]", "gate"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        golden_model g;
        char text[256];
        golden_load("gqa", &g);
        char *config = model_config_with(g.config, cases[i].key, cases[i].value);
        assert_int_equal(dpt_model_config_unknown(config, text, sizeof text), DPT_OK);
        assert_string_equal(text, cases[i].text);
        assert_int_equal(dpt_model_config_unknown(config, text, 5), DPT_OK);
        assert_true(strlen(text) < 5);
        free(config);
        golden_free(&g);
    }
    char text[16];
    assert_int_equal(dpt_model_config_unknown("{", text, sizeof text), DPT_ERR_INPUT);
    assert_true(text[0] == '\0');
    dpt_error_clear();
}

/* What a model computes differently with the configuration of its partner, and nothing else. */
static void test_compare(void **state) {
    (void)state;
    static const struct {
        const char *golden, *key, *value, *text;
    } cases[] = {
        {"gqa", "transformers_version", "\"0\"", ""},
        {"gqa", "max_position_embeddings", "8192", ""},
        {"gqa", "rms_norm_eps", "0.25", "rms_norm_eps ("},
        {"gqa", "rope_parameters", "{\"rope_theta\": 77.0}", "rope_theta ("},
        {"gqa", "is_causal", "true", ""},
        {"gqa", "auto_map", "{\"AutoTokenizer\": [\"own.Tokenizer\", null]}", ""},
        {"gqa", "rope_parameters", "{\"rope_type\": \"linear\", \"factor\": 2.0}",
         "factor of the rotary scaling (0 and 2)"},
        {"mistral_swa", "sliding_window", "null", "attention window of layer 0 ("},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        golden_model g;
        char text[256];
        golden_load(cases[i].golden, &g);
        json_t *root = json_loads(g.config, 0, NULL);
        if (strcmp(cases[i].key, "rope_parameters") == 0)
            json_object_del(root, "rope_scaling");
        json_object_set_new(root, cases[i].key, json_loads(cases[i].value, JSON_DECODE_ANY, NULL));
        char *config = json_dumps(root, 0);
        assert_int_equal(
            dpt_model_config_compare(g.config, config, &g.post.catalog, text, sizeof text), DPT_OK);
        if (strstr(text, cases[i].text) == NULL || (cases[i].text[0] == '\0' && text[0] != '\0'))
            fail_msg("%s: \"%s\"", cases[i].key, text);
        /* A text that is too short is cut. */
        assert_int_equal(dpt_model_config_compare(g.config, config, &g.post.catalog, text, 5),
                         DPT_OK);
        assert_true(strlen(text) < 5);
        assert_int_equal(dpt_model_config_compare(g.config, "{", &g.post.catalog, text, 5),
                         DPT_ERR_INPUT);
        assert_true(text[0] == '\0');
        dpt_error_clear();
        free(config);
        json_decref(root);
        golden_free(&g);
    }
}

static void test_bad_tensors(void **state) {
    (void)state;
    golden_model g;
    golden_load("untied", &g);
    dpt_tensor_info *up =
        &g.post.catalog
             .tensors[dpt_catalog_find(&g.post.catalog, "model.layers.1.mlp.up_proj.weight")];
    dpt_tensor_info kept = *up;
    up->shape[0]++;
    model_expect_refusal(g.config, &g.post,
                         "up_proj.weight has the shape [21, 24] in place of [20, 24]");
    *up = kept;
    up->dtype = DPT_I32;
    model_expect_refusal(g.config, &g.post, "up_proj.weight has the type I32");
    *up = kept;
    up->name = "model.layers.1.mlp.up_proj.weighs"; /* keeps the order */
    model_expect_refusal(g.config, &g.post, "up_proj.weight is missing (2 tensors");
    *up = kept;
    float *value = g.post.values[up - g.post.catalog.tensors];
    float first = value[27];
    value[27] = NAN;
    dpt_model *model;
    assert_int_equal(dpt_model_create(&test_comm, NULL, g.config, memory_source(&g.post), &model),
                     DPT_ERR_INPUT);
    test_error_says("up_proj.weight: element 27");
    value[27] = first;
    assert_int_equal(dpt_model_create(&test_comm, NULL, g.config, memory_source(&g.post), &model),
                     DPT_OK);
    ((float *)g.edited.values[0])[5] = INFINITY;
    dpt_source edited = memory_source(&g.edited);
    assert_int_equal(dpt_model_bind_edit(model, &edited), DPT_ERR_INPUT);
    dpt_error_clear();
    g.edited.catalog.tensors[3].shape[0]++;
    assert_int_equal(dpt_model_bind_edit(model, &edited), DPT_ERR_INPUT);
    test_error_says("other tensors");
    dpt_model_destroy(model);
    golden_free(&g);
}

static void test_bad_batches(void **state) {
    (void)state;
    model_fixture f;
    model_fixture_open(&f, "untied", false, test_comm.size);
    int32_t kept = f.g->token[3];
    static const int32_t wrong[] = {40, -1, INT32_MAX};
    for (int i = 0; i < 3; i++) {
        f.g->token[3] = wrong[i];
        assert_int_equal(
            dpt_model_run(f.model, &f.batch, 0.0, DPT_BACKWARD_NONE, NULL, f.nll, NULL, NULL, NULL),
            DPT_ERR_INPUT);
        test_error_says("outside the vocabulary of 40");
    }
    f.g->token[3] = kept;
    dpt_mem_set_budget(dpt_mem_in_use() + 1000); /* no room for the work */
    assert_int_equal(
        dpt_model_run(f.model, &f.batch, 0.0, DPT_BACKWARD_NONE, NULL, f.nll, NULL, NULL, NULL),
        DPT_ERR_OUTPUT);
    dpt_mem_set_budget(0);
    dpt_error_clear();
    assert_true(model_mean_loss(&f, 0.0) > 0.0);
    model_fixture_close(&f);
}

/* A fault on the first or last rank ends in the same status everywhere and the model still works. */
static void test_faults(void **state) {
    (void)state;
    model_fixture f;
    model_fixture_open(&f, "tied", false, test_comm.size);
    for (int i = 0; i < 2; i++) {
        dpt_model *model;
        fault_set("model.load", i);
        assert_int_equal(dpt_model_create(&f.mesh.model, &f.mesh.data, f.g->config,
                                          memory_source(&f.g->post), &model),
                         DPT_ERR_OUTPUT);
        assert_null(model);
        fault_set("model.run", i);
        assert_int_equal(
            dpt_model_run(f.model, &f.batch, 0.0, DPT_BACKWARD_NONE, NULL, f.nll, NULL, NULL, NULL),
            DPT_ERR_OUTPUT);
        fault_clear();
        dpt_error_clear();
    }
    assert_true(model_mean_loss(&f, 0.0) > 0.0);
    model_fixture_close(&f);
}

/* Replicas that load each a share: a rank that fails joins every fetch, and all of them fail with it. */
static void test_failing_replica(void **state) {
    (void)state;
    model_fixture f;
    model_fixture_open(&f, "odd", false, 1);
    f.g->post.together = f.g->edited.together = true;
    for (int last = 0; last < 2; last++) {
        bool mine = test_comm.rank == (last ? test_comm.size - 1 : 0);
        dpt_model *model;
        fault_set("model.load", last);
        dpt_status st = dpt_model_create(&f.mesh.model, &f.mesh.data, f.g->config,
                                         memory_source(&f.g->post), &model);
        fault_clear();
        assert_int_equal(st, DPT_ERR_OUTPUT);
        assert_null(model);
        dpt_error_clear();
        memory_model bad = memory_convert(&f.g->edited, DPT_F32);
        bad.together = true;
        for (int k = 0; k < bad.catalog.count && mine; k++)
            for (int64_t i = 0; i < bad.catalog.tensors[k].numel; i++)
                ((float *)bad.values[k])[i] = NAN;
        dpt_source edited = memory_source(&bad);
        assert_int_equal(dpt_model_bind_edit(f.model, &edited), DPT_ERR_INPUT);
        test_error_says("is not a finite number");
        memory_free(&bad);
    }
    dpt_source edited = memory_source(&f.g->edited);
    assert_int_equal(dpt_model_bind_edit(f.model, &edited), DPT_OK);
    model_check_losses(&f);
    model_fixture_close(&f);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_interpolation),
        cmocka_unit_test(test_finite_difference),
        cmocka_unit_test(test_packing),
        cmocka_unit_test(test_stored_types),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_gradient_bytes),
        cmocka_unit_test(test_long),
        cmocka_unit_test(test_bad_configs),
        cmocka_unit_test(test_two_thetas),
        cmocka_unit_test(test_empty_quantisation),
        cmocka_unit_test(test_unknown_keys),
        cmocka_unit_test(test_compare),
        cmocka_unit_test(test_bad_tensors),
        cmocka_unit_test(test_bad_batches),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_failing_replica),
    };
    return test_mpi_main(argc, argv, tests);
}
