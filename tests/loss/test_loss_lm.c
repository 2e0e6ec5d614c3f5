/* ranks: 1 2 3 4 */
/* The language-model loss against transformers at every mesh and several batch sizes. */
#include "support/test_mpi.h"
#include "support/fault.h"
#include "support/golden_model.h"

#include "deltapath/comm/mesh.h"
#include "deltapath/loss/loss.h"
#include "deltapath/tensor/shard.h"

#include <math.h>

static const double tolerance = 1e-4;

typedef struct fixture {
    golden_model g;
    dpt_mesh mesh;
    dpt_model *model;
    dpt_loss *loss;
    double *losses, *terms, *sample_terms;
} fixture;

static dpt_lm_data golden_data(const golden_model *g) {
    return (dpt_lm_data){
        .samples = g->samples, .offsets = g->offsets, .tokens = g->token, .loss_mask = g->mask};
}

static void fixture_open(fixture *f, const char *name, int model_size, int64_t batch_tokens) {
    memset(f, 0, sizeof *f);
    golden_load(name, &f->g);
    assert_int_equal(dpt_mesh_create(&test_comm, model_size, &f->mesh), DPT_OK);
    assert_int_equal(
        dpt_model_create(&f->mesh.model, f->g.config, memory_source(&f->g.post), &f->model),
        DPT_OK);
    dpt_source edited = memory_source(&f->g.edited);
    assert_int_equal(dpt_model_bind_edit(f->model, &edited), DPT_OK);
    dpt_lm_data data = golden_data(&f->g);
    assert_int_equal(dpt_loss_lm_create(&data, dpt_model_vocabulary(f->model),
                                        dpt_model_max_positions(f->model), &f->mesh, batch_tokens,
                                        &f->loss),
                     DPT_OK);
    assert_int_equal(dpt_loss_samples(f->loss), f->g.samples);
    f->losses = calloc((size_t)f->g.samples, sizeof *f->losses);
    f->sample_terms = calloc((size_t)f->g.samples, sizeof *f->sample_terms);
    f->terms = calloc((size_t)f->g.post.catalog.count, sizeof *f->terms);
}

static void fixture_close(fixture *f) {
    free(f->losses);
    free(f->terms);
    free(f->sample_terms);
    dpt_loss_destroy(f->loss);
    dpt_model_destroy(f->model);
    dpt_mesh_destroy(&f->mesh);
    golden_free(&f->g);
}

static void assert_near(double ours, double golden, double scale, const char *what) {
    if (!(fabs(ours - golden) <= tolerance * scale))
        fail_msg("%s: %.9g in place of %.9g (scale %.3g)", what, ours, golden, scale);
}

static void check_terms(fixture *f) {
    int count = f->g.post.catalog.count;
    for (int64_t s = 0; s < f->g.samples; s++) {
        double sum = 0.0, size = 0.0;
        for (int k = 0; k < count; k++) {
            sum += f->g.terms[s * count + k];
            size += fabs(f->g.terms[s * count + k]);
        }
        assert_near(f->losses[s], f->g.loss[s], f->g.loss[s], "loss");
        assert_near(f->sample_terms[s], sum, size, "sample term");
    }
    for (int k = 0; k < count; k++) {
        double sum = 0.0, size = 0.0;
        for (int64_t s = 0; s < f->g.samples; s++) {
            sum += f->g.terms[s * count + k] / (double)f->g.samples;
            size = fmax(size, fabs(f->g.terms[s * count + k]));
        }
        assert_near(f->terms[k], sum, size, f->g.post.catalog.tensors[k].name);
    }
}

static void check_gradient(fixture *f) {
    dpt_model_gradient *gradient;
    assert_int_equal(dpt_model_gradient_create(f->model, &gradient), DPT_OK);
    assert_int_equal(dpt_loss_evaluate(f->loss, &f->mesh, f->model, 0.0, DPT_BACKWARD_GRADIENT,
                                       f->losses, NULL, NULL, NULL, gradient),
                     DPT_OK);
    assert_int_equal(dpt_model_gradient_sum(gradient, &f->mesh.data), DPT_OK);
    for (int k = 0; k < f->g.grad.catalog.count; k++) {
        const dpt_tensor_info *info = &f->g.grad.catalog.tensors[k];
        float *ours = malloc((size_t)info->numel * sizeof *ours);
        const float *golden = f->g.grad.values[k];
        assert_int_equal(dpt_model_gradient_gather(f->model, gradient, k, ours), DPT_OK);
        double off = 0.0, size = 0.0;
        for (int64_t i = 0; i < info->numel; i++) {
            off += ((double)ours[i] - golden[i]) * ((double)ours[i] - golden[i]);
            size += (double)golden[i] * golden[i];
        }
        assert_near(sqrt(off), 0.0, sqrt(size), info->name);
        free(ours);
    }
    dpt_model_gradient_destroy(gradient);
}

static void test_golden(void **state) {
    (void)state;
    static const int64_t batches[] = {1, 25, 1000};
    static const char *const cases[] = {"gqa", "tied", "qwen2", "mistral_swa"};
    for (int c = 0; c < 4; c++) {
        for (int size = 1; size <= test_comm.size; size++) {
            if (test_comm.size % size != 0)
                continue;
            for (int b = 0; b < 3; b++) {
                fixture f;
                fixture_open(&f, cases[c], size, batches[b]);
                assert_int_equal(dpt_loss_evaluate(f.loss, &f.mesh, f.model, 1.0, DPT_BACKWARD_NONE,
                                                   f.losses, NULL, NULL, NULL, NULL),
                                 DPT_OK);
                for (int64_t s = 0; s < f.g.samples; s++)
                    assert_near(f.losses[s], f.g.loss_edit[s], f.g.loss_edit[s], "edited loss");
                assert_int_equal(dpt_loss_evaluate(f.loss, &f.mesh, f.model, 0.0,
                                                   DPT_BACKWARD_TERMS, f.losses, NULL, f.terms,
                                                   f.sample_terms, NULL),
                                 DPT_OK);
                check_terms(&f);
                check_gradient(&f);
                fixture_close(&f);
            }
        }
    }
}

/* Set every scored token of sample 1 and the last of sample 2 to the model's own choice: sample 1 is
 * then an exact match, and the others are what the token hits say. */
static void test_exact_match(void **state) {
    (void)state;
    fixture f;
    fixture_open(&f, "untied", test_comm.size, 1000);
    uint8_t correct[4];
    int64_t last = f.g.offsets[2] - 1;
    int hits = 0;
    for (int32_t token = 0; token < 40; token++) {
        f.g.token[last] = token;
        assert_int_equal(dpt_loss_evaluate(f.loss, &f.mesh, f.model, 0.0, DPT_BACKWARD_NONE,
                                           f.losses, correct, NULL, NULL, NULL),
                         DPT_OK);
        hits += correct[1];
        assert_int_equal(correct[3], 0);
        assert_true(!correct[1] || f.losses[1] < log(40.0));
    }
    assert_int_equal(hits, 1); /* one token is the arg max */
    fixture_close(&f);
}

static void expect_refusal(const fixture *f, const dpt_lm_data *data, int64_t positions,
                           const char *named) {
    dpt_loss *loss;
    assert_int_equal(dpt_loss_lm_create(data, 40, positions, &f->mesh, 100, &loss), DPT_ERR_INPUT);
    assert_null(loss);
    if (strstr(dpt_error_message(), named) == NULL)
        fail_msg("no \"%s\" in: %s", named, dpt_error_message());
    dpt_error_clear();
}

static void test_bad_data(void **state) {
    (void)state;
    fixture f;
    fixture_open(&f, "untied", 1, 100);
    dpt_lm_data data = golden_data(&f.g), bad = data;
    bad.samples = 0;
    expect_refusal(&f, &bad, 128, "no samples");
    expect_refusal(&f, &data, 16, "sample 2 has 17 tokens but the model takes 16");
    f.g.token[10] = 40;
    expect_refusal(&f, &data, 128, "sample 1: token 40 at position 1");
    f.g.token[10] = -1;
    expect_refusal(&f, &data, 128, "token -1");
    f.g.token[10] = 0;
    f.g.mask[13] = 0;
    f.g.mask[9] = 1; /* the first token of sample 1 cannot be scored */
    expect_refusal(&f, &data, 128, "sample 1 has no scored token");
    f.g.mask[13] = 1;
    int64_t kept = f.g.offsets[2];
    f.g.offsets[2] = f.g.offsets[1];
    expect_refusal(&f, &data, 128, "offsets do not rise at sample 1");
    f.g.offsets[2] = kept;
    f.g.offsets[0] = 1;
    expect_refusal(&f, &data, 128, "first offset");
    f.g.offsets[0] = 0;
    fixture_close(&f);
}

static void test_faults(void **state) {
    (void)state;
    static const char *const points[] = {"loss.evaluate", "model.run"};
    for (int size = 1; size <= test_comm.size; size++) {
        if (test_comm.size % size != 0)
            continue;
        fixture f;
        fixture_open(&f, "untied", size, 10);
        for (int i = 0; i < 4; i++) {
            fault_set(points[i / 2], i % 2);
            dpt_status st = dpt_loss_evaluate(f.loss, &f.mesh, f.model, 0.0, DPT_BACKWARD_NONE,
                                              f.losses, NULL, NULL, NULL, NULL);
            fault_clear();
            assert_int_equal(st, DPT_ERR_OUTPUT);
            assert_non_null(strstr(dpt_error_message(), "injected fault"));
            dpt_error_clear();
        }
        assert_int_equal(dpt_loss_evaluate(f.loss, &f.mesh, f.model, 0.0, DPT_BACKWARD_NONE,
                                           f.losses, NULL, NULL, NULL, NULL),
                         DPT_OK);
        fixture_close(&f);
    }
}

typedef struct heard {
    int calls;
    double share;
} heard;

static void hear(void *ctx, double share) {
    heard *h = ctx;
    assert_true(share > h->share && share <= 1.0);
    h->share = share;
    h->calls++;
}

/* Batches of one sample: a word behind each, and none from a replica without samples. */
static void test_progress(void **state) {
    (void)state;
    fixture f;
    fixture_open(&f, "gqa", 1, 1);
    for (int again = 0; again < 2; again++) {
        heard h = {.calls = 0};
        int64_t begin, end;
        dpt_shard_split(f.g.samples, test_comm.size, test_comm.rank, &begin, &end);
        dpt_loss_set_progress(f.loss, again ? NULL : hear, &h);
        assert_int_equal(dpt_loss_evaluate(f.loss, &f.mesh, f.model, 0.0, DPT_BACKWARD_NONE,
                                           f.losses, NULL, NULL, NULL, NULL),
                         DPT_OK);
        assert_int_equal(h.calls, again ? 0 : end - begin);
        assert_true(h.calls == 0 || h.share == 1.0);
    }
    fixture_close(&f);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_progress),    cmocka_unit_test(test_golden),
        cmocka_unit_test(test_exact_match), cmocka_unit_test(test_bad_data),
        cmocka_unit_test(test_faults),
    };
    return test_mpi_main(argc, argv, tests);
}
