/* ranks: 1 2 3 4 7 */
/* Loss, gradients and terms of the image models against transformers, at every mesh of the ranks. At 7
 * ranks some have no head. */
#include "support/test_mpi.h"
#include "support/fault.h"

#include "model/model_golden.h"

/* Folders of tests/golden with cases of image towers: vit has those of ViT and CLIP. */
static const char *const folders[] = {"vit", "dinov2", "siglip"};

static void test_golden(void **state) {
    (void)state;
    golden_names cases;
    golden_list(folders, sizeof folders / sizeof *folders, &cases);
    model_check_all((const char *const *)cases.names, cases.count, true);
    golden_list_free(&cases);
}

static void test_finite_difference(void **state) {
    (void)state;
    golden_names cases;
    golden_list(folders, sizeof folders / sizeof *folders, &cases);
    model_check_slope((const char *const *)cases.names, cases.count, true);
    golden_list_free(&cases);
}

/* A batch gives what its images give alone; buffers are reused for smaller batches. */
static void test_batches(void **state) {
    (void)state;
    model_fixture f;
    model_fixture_open(&f, "clip", true, test_comm.size);
    model_mean_loss(&f, 0.0);
    int64_t held = dpt_mem_in_use();
    for (int64_t s = 0; s < f.g->samples; s++) {
        double nll;
        dpt_batch one = {
            .sequences = 1, .images = f.in.images + s * 3 * 9 * 9, .labels = f.in.labels + s};
        assert_int_equal(
            dpt_model_run(f.model, &one, 0.0, DPT_BACKWARD_NONE, NULL, &nll, NULL, NULL, NULL),
            DPT_OK);
        model_near(nll, f.nll[s], 1.0, "nll", "alone");
    }
    assert_int_equal(dpt_mem_in_use(), held);
    dpt_batch none = f.batch;
    none.sequences = 0;
    assert_int_equal(
        dpt_model_run(f.model, &none, 0.0, DPT_BACKWARD_NONE, NULL, f.nll, NULL, NULL, NULL),
        DPT_OK);
    model_fixture_close(&f);
}

static void test_bytes_and_shape(void **state) {
    (void)state;
    model_fixture f;
    model_fixture_open(&f, "vit", true, test_comm.size);
    dpt_model_image image, planned;
    bool is_image;
    assert_true(dpt_model_get_image(f.model, &image));
    assert_int_equal(image.classes, 7);
    assert_int_equal(image.channels, 3);
    assert_int_equal(image.height, 12);
    assert_int_equal(image.positions, 10);
    assert_int_equal(dpt_model_config_image(f.g->config, &f.g->post.catalog, &is_image, &planned),
                     DPT_OK);
    assert_true(is_image && planned.positions == 10 && planned.classes == 7);
    dpt_model_ranks spread = {.group = test_comm.size, .replicas = 1, .machines = 1};
    int64_t weights, work, before = dpt_mem_in_use();
    assert_int_equal(dpt_model_bytes(f.g->config, &f.g->post.catalog, &spread, true,
                                     f.g->samples * image.positions, image.positions, &weights,
                                     &work),
                     DPT_OK);
    model_fixture_run(&f, 0.5, DPT_BACKWARD_TERMS, 1.0, NULL, NULL);
    assert_true(dpt_mem_in_use() - before <= work);
    if (test_comm.rank == 0)
        assert_int_equal(dpt_mem_in_use() - before, work);
    model_fixture_close(&f);
}

static void test_bad_configs(void **state) {
    (void)state;
    static const model_bad_key bad[] = {
        {"architectures", "[\"CLIPModel\"]", "architectures CLIPModel"},
        {"model_type", "\"vit\"", "model_type says vit"},
        {"hidden_act", "\"relu\"", "hidden_act"},
        {"hidden_size", "null", "hidden_size is missing"},
        {"hidden_size", "21", "hidden_size"},
        {"hidden_size", "4611686018427387904", "hidden_size"},
        {"num_attention_heads", "0", "num_attention_heads"},
        {"num_hidden_layers", "1", "layers.1.layer_norm1.bias is not part"},
        {"num_hidden_layers", "3", "layers.2.layer_norm1.weight is missing"},
        {"image_size", "12", "position_embedding.weight has the shape [10, 20] in place of [17"},
        {"image_size", "[9, 9]", "image_size"},
        {"patch_size", "10", "patch_size"},
        {"patch_size", "4",
         "patch_embedding.weight has the shape [20, 3, 3, 3] in place of [20, 3, 4"},
        {"num_channels", "1", "patch_embedding.weight has the shape"},
        {"projection_dim", "11", "visual_projection.weight has the shape"},
        {"layer_norm_eps", "-1.0", "layer_norm_eps"},
        {"quantization_config", "{\"bits\": 4}", "this key taken out"},
    };
    golden_image in;
    golden_image_load("clip", &in);
    model_check_bad_keys(&in.g, bad, sizeof bad / sizeof bad[0]);
    int head = dpt_catalog_find(&in.g.post.catalog, "text_embeds.weight");
    dpt_tensor_info kept = in.g.post.catalog.tensors[head];
    in.g.post.catalog.tensors[head].name = "text_embeds.weighs";
    model_expect_refusal(in.g.config, &in.g.post, "text_embeds.weight is missing");
    in.g.post.catalog.tensors[head] = kept;
    golden_image_free(&in);
}

static void test_bad_dinov2_configs(void **state) {
    (void)state;
    static const model_bad_key bad[] = {
        {"image_size", "[6, 6]", "image_size"},
        {"image_size", "9", "position_embeddings has the shape [1, 5, 8] in place of [1, 10, 8]"},
        {"num_register_tokens", "2", "register_tokens has the shape [1, 3, 8] in place of [1, 2"},
        {"num_register_tokens", "0", "num_register_tokens"},
        {"mlp_ratio", "3", "mlp.fc1.weight has the shape [8, 8] in place of [24, 8]"},
        {"mlp_ratio", "0", "mlp_ratio"},
        {"use_swiglu_ffn", "true", "mlp.weights_in.weight is missing"},
        {"qkv_bias", "false", "attention.attention.key.bias is not part"},
        {"model_type", "\"dinov2\"", "model_type says dinov2"},
    };
    golden_image in;
    golden_image_load("dinov2/registers", &in);
    model_check_bad_keys(&in.g, bad, sizeof bad / sizeof bad[0]);
    golden_image_free(&in);
}

static void test_bad_siglip_configs(void **state) {
    (void)state;
    static const model_bad_key bad[] = {
        {"vision_config", "null", "vision_config is missing"},
        {"vision_config", "{\"hidden_size\": 9, \"num_attention_heads\": 2}",
         "config.json: vision_config: hidden_size 9"},
        {"vision_config", "{\"image_size\": [6, 6]}", "vision_config: image_size"},
        {"vision_config", "{\"hidden_act\": \"relu\"}", "vision_config: hidden_act"},
        {"vision_config", "{}", "encoder.layers.2.layer_norm1.weight is missing"},
        {"quantization_config", "{\"bits\": 4}", "this key taken out"},
    };
    golden_image in;
    golden_image_load("siglip/classes", &in);
    model_check_bad_keys(&in.g, bad, sizeof bad / sizeof bad[0]);
    golden_image_free(&in);
    static const model_bad_key tower[] = {
        {"vision_use_head", "false", "vision_use_head false is not supported"},
        {"intermediate_size", "8", "fc1.weight has the shape [7, 8] in place of [8, 8]"},
        {"architectures", "[\"SiglipModel\"]", "architectures SiglipModel"},
    };
    golden_image_load("siglip/attention", &in);
    model_check_bad_keys(&in.g, tower, sizeof tower / sizeof tower[0]);
    int head = dpt_catalog_find(&in.g.post.catalog, "text_embeds.weight");
    dpt_tensor_info kept = in.g.post.catalog.tensors[head];
    in.g.post.catalog.tensors[head].shape[1] = 9;
    model_expect_refusal(in.g.config, &in.g.post, "text_embeds.weight has the shape");
    in.g.post.catalog.tensors[head] = kept;
    golden_image_free(&in);
}

/* Keys that nobody here knows are named, when they are on, also of a tower inside; those of transformers are known. */
static void test_unknown_keys(void **state) {
    (void)state;
    static const char *const models[] = {
        "clip", "vit", "dinov2/mlp", "dinov2/registers", "siglip/classes", "siglip/attention"};
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        golden_image in;
        char text[256];
        golden_image_load(models[i], &in);
        assert_int_equal(dpt_model_config_unknown(in.g.config, text, sizeof text), DPT_OK);
        assert_string_equal(text, "");
        json_t *root = json_loads(in.g.config, 0, NULL);
        json_t *tower = json_object_get(root, "vision_config");
        json_object_set_new(root, "rope_theta", json_real(100.0));
        json_object_set_new(root, "use_gate", json_false());
        json_object_set_new(tower != NULL ? tower : root, "soft_shift", json_string("on"));
        char *config = json_dumps(root, JSON_SORT_KEYS);
        assert_int_equal(dpt_model_config_unknown(config, text, sizeof text), DPT_OK);
        assert_string_equal(text, "rope_theta, soft_shift");
        json_object_set_new(root, "auto_map",
                            json_pack("{s:s}", "AutoModelForImageClassification", "own.Model"));
        free(config);
        config = json_dumps(root, 0);
        model_expect_refusal(config, &in.g.post, "auto_map");
        free(config);
        json_decref(root);
        golden_image_free(&in);
    }
}

static void test_compare(void **state) {
    (void)state;
    golden_image clip, vit;
    char text[256];
    golden_image_load("clip", &clip);
    golden_image_load("vit", &vit);
    json_t *root = json_loads(clip.g.config, 0, NULL);
    json_object_set_new(root, "hidden_act", json_string("gelu"));
    json_object_set_new(root, "layer_norm_eps", json_real(0.25));
    char *config = json_dumps(root, 0);
    const dpt_catalog *catalog = &clip.g.post.catalog;
    assert_int_equal(dpt_model_config_compare(clip.g.config, config, catalog, text, sizeof text),
                     DPT_OK);
    assert_non_null(strstr(text, "layer_norm_eps ("));
    assert_non_null(strstr(text, "hidden_act (quick_gelu and gelu)"));
    assert_int_equal(
        dpt_model_config_compare(clip.g.config, vit.g.config, catalog, text, sizeof text), DPT_OK);
    assert_non_null(strstr(text, "architectures (CLIPVisionModelWithProjection and "));
    free(config);
    json_decref(root);
    golden_image_free(&vit);
    golden_image_free(&clip);
}

/* The head of text embeddings is a constant: an edit of it is refused, not half obeyed. */
static void test_bad_calls(void **state) {
    (void)state;
    model_fixture f;
    model_fixture_open(&f, "clip", true, test_comm.size);
    int head = dpt_catalog_find(&f.g->edited.catalog, "text_embeds.weight");
    ((float *)f.g->edited.values[head])[3] += 1.0F;
    dpt_source edited = memory_source(&f.g->edited);
    assert_int_equal(dpt_model_bind_edit(f.model, &edited), DPT_OK);
    assert_int_equal(
        dpt_model_run(f.model, &f.batch, 0.5, DPT_BACKWARD_NONE, NULL, f.nll, NULL, NULL, NULL),
        DPT_ERR_INPUT);
    if (test_comm.rank == 0)
        test_error_says("text_embeds.weight");
    assert_int_equal(dpt_model_bind_edit(f.model, NULL), DPT_OK);
    static const int32_t wrong[] = {6, -1, INT32_MAX};
    int32_t kept = f.in.labels[2];
    for (int i = 0; i < 3; i++) {
        f.in.labels[2] = wrong[i];
        assert_int_equal(
            dpt_model_run(f.model, &f.batch, 0.0, DPT_BACKWARD_NONE, NULL, f.nll, NULL, NULL, NULL),
            DPT_ERR_INPUT);
        test_error_says("outside the 6 classes");
    }
    f.in.labels[2] = kept;
    int64_t first[2] = {0, 1};
    int32_t token = 0;
    dpt_batch tokens = {.sequences = 1, .first = first, .tokens = &token};
    assert_int_equal(
        dpt_model_run(f.model, &tokens, 0.0, DPT_BACKWARD_NONE, NULL, f.nll, NULL, NULL, NULL),
        DPT_ERR_INTERNAL);
    dpt_error_clear();
    for (int i = 0; i < 2; i++) {
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

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_finite_difference),
        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_bytes_and_shape),
        cmocka_unit_test(test_bad_configs),
        cmocka_unit_test(test_compare),
        cmocka_unit_test(test_unknown_keys),
        cmocka_unit_test(test_bad_calls),
        cmocka_unit_test(test_bad_dinov2_configs),
        cmocka_unit_test(test_bad_siglip_configs),
    };
    return test_mpi_main(argc, argv, tests);
}
