/* ranks: 1 2 3 4 */
/* The DPO loss against golden files made with transformers, at every mesh and several batch sizes;
 * tools/reference/check_dpo_golden.py compares those with the authors' code. */
#include "support/test_mpi.h"

#include "loss/loss_golden.h"

enum { SAMPLES = 5 };

typedef struct dpo_case {
    golden_model g; /* token, mask and offsets hold the sides of each sample in turn */
    memory_model reference;
    double beta;
    double *policy_logp, *reference_logp; /* (samples, 2) */
    uint8_t *correct;
    dpt_dpo_data data;
} dpo_case;

static void interleave(hid_t file, golden_model *g) {
    static const char *const sides[2] = {"chosen", "rejected"};
    int32_t *tokens[2];
    uint8_t *mask[2];
    int64_t *offsets[2];
    char name[64];
    for (int side = 0; side < 2; side++) {
        snprintf(name, sizeof name, "%s/tokens", sides[side]);
        tokens[side] = golden_dataset(file, name, H5T_NATIVE_INT32, 4);
        snprintf(name, sizeof name, "%s/loss_mask", sides[side]);
        mask[side] = golden_dataset(file, name, H5T_NATIVE_UINT8, 1);
        snprintf(name, sizeof name, "%s/offsets", sides[side]);
        offsets[side] = golden_dataset(file, name, H5T_NATIVE_INT64, 8);
    }
    g->tokens = offsets[0][SAMPLES] + offsets[1][SAMPLES];
    g->token = calloc((size_t)g->tokens, 4);
    g->mask = calloc((size_t)g->tokens, 1);
    g->offsets = calloc(2 * SAMPLES + 1, 8);
    for (int s = 0; s < 2 * SAMPLES; s++) {
        int64_t at = offsets[s % 2][s / 2], n = offsets[s % 2][s / 2 + 1] - at;
        memcpy(g->token + g->offsets[s], tokens[s % 2] + at, (size_t)n * 4);
        memcpy(g->mask + g->offsets[s], mask[s % 2] + at, (size_t)n);
        g->offsets[s + 1] = g->offsets[s] + n;
    }
    for (int side = 0; side < 2; side++) {
        free(tokens[side]);
        free(mask[side]);
        free(offsets[side]);
    }
}

static void case_load(const char *name, dpo_case *c) {
    golden_model *g = &c->g;
    memset(c, 0, sizeof *c);
    hid_t file = golden_open("dpo", name, g);
    golden_group(file, "reference", &c->reference);
    g->loss = golden_dataset(file, "loss", H5T_NATIVE_DOUBLE, 8);
    g->loss_edit = golden_dataset(file, "loss_edit", H5T_NATIVE_DOUBLE, 8);
    c->policy_logp = golden_dataset(file, "policy_logp", H5T_NATIVE_DOUBLE, 8);
    c->reference_logp = golden_dataset(file, "reference_logp", H5T_NATIVE_DOUBLE, 8);
    c->correct = golden_dataset(file, "correct", H5T_NATIVE_UINT8, 1);
    hid_t attr = H5Aopen(file, "beta", H5P_DEFAULT);
    assert_true(H5Aread(attr, H5T_NATIVE_DOUBLE, &c->beta) >= 0);
    H5Aclose(attr);
    g->samples = SAMPLES;
    interleave(file, g);
    golden_terms(file, g);
    H5Fclose(file);
    c->data = (dpt_dpo_data){.pairs = {.samples = 2 * SAMPLES,
                                       .offsets = g->offsets,
                                       .tokens = g->token,
                                       .loss_mask = g->mask},
                             .beta = c->beta};
}

static void case_free(dpo_case *c) {
    golden_free(&c->g);
    memory_free(&c->reference);
    free(c->policy_logp);
    free(c->reference_logp);
    free(c->correct);
}

static dpt_loss *make_loss(const loss_fixture *f, const dpo_case *c, int64_t batch_tokens) {
    dpt_loss *loss;
    assert_int_equal(dpt_loss_dpo_create(&c->data, dpt_model_vocabulary(f->model),
                                         dpt_model_max_positions(f->model), &f->mesh, batch_tokens,
                                         &loss),
                     DPT_OK);
    assert_int_equal(dpt_loss_samples(loss), SAMPLES);
    return loss;
}

/* The reference's log-probabilities by a model of its own, as a study takes them. */
static void set_reference(loss_fixture *f, dpo_case *c) {
    dpt_model *reference;
    double logp[2 * SAMPLES];
    assert_int_equal(dpt_model_create(&f->mesh.model, &f->mesh.data, c->g.config,
                                      memory_source(&c->reference), &reference),
                     DPT_OK);
    assert_int_equal(dpt_loss_dpo_measure(f->loss, &f->mesh, reference, logp), DPT_OK);
    for (int i = 0; i < 2 * SAMPLES; i++)
        loss_near(logp[i], c->reference_logp[i], fabs(c->reference_logp[i]), "reference");
    assert_int_equal(dpt_loss_dpo_set_reference(f->loss, logp), DPT_OK);
    dpt_model_destroy(reference);
    assert_int_equal(dpt_loss_dpo_measure(f->loss, &f->mesh, f->model, logp), DPT_OK);
    for (int i = 0; i < 2 * SAMPLES; i++)
        loss_near(logp[i], c->policy_logp[i], fabs(c->policy_logp[i]), "policy");
}

static void test_golden(void **state) {
    (void)state;
    static const int64_t batches[] = {1, 40, 1000};
    static const char *const cases[] = {"llama", "qwen2_tied"};
    for (int c = 0; c < 2; c++)
        for (int size = 1; size <= test_comm.size; size++)
            for (int b = 0; b < 3 && test_comm.size % size == 0; b++) {
                dpo_case in;
                loss_fixture f;
                case_load(cases[c], &in);
                loss_fixture_open(&f, &in.g, in.correct, size);
                f.loss = make_loss(&f, &in, batches[b]);
                set_reference(&f, &in);
                loss_check_all(&f);
                loss_fixture_close(&f);
                case_free(&in);
            }
}

/* With the policy as its own reference the margin is 0: loss log 2, nothing preferred. A reference far
 * off drives the margin to the ends, where the loss is 0 or linear and nothing overflows. */
static void test_margins(void **state) {
    (void)state;
    dpo_case in;
    loss_fixture f;
    double logp[2 * SAMPLES];
    case_load("llama", &in);
    loss_fixture_open(&f, &in.g, in.correct, test_comm.size);
    f.loss = make_loss(&f, &in, 1000);
    assert_int_equal(dpt_loss_dpo_measure(f.loss, &f.mesh, f.model, logp), DPT_OK);
    for (int far = -1; far <= 1; far += 2) {
        for (int s = 0; s < SAMPLES; s++)
            logp[2 * s] += far < 0 ? -1e5 : 2e5;
        assert_int_equal(dpt_loss_dpo_set_reference(f.loss, logp), DPT_OK);
        assert_int_equal(dpt_loss_evaluate(f.loss, &f.mesh, f.model, 0.0, DPT_BACKWARD_TERMS,
                                           f.losses, f.hits, f.terms, f.sample_terms, NULL),
                         DPT_OK);
        for (int s = 0; s < SAMPLES; s++) {
            loss_near(f.losses[s], far < 0 ? 0.0 : 1e4, far < 0 ? 1e-9 : 1e4, "far loss");
            assert_int_equal(f.hits[s], far < 0);
            assert_true(isfinite(f.sample_terms[s]));
        }
    }
    assert_int_equal(dpt_loss_dpo_measure(f.loss, &f.mesh, f.model, logp), DPT_OK);
    assert_int_equal(dpt_loss_dpo_set_reference(f.loss, logp), DPT_OK);
    assert_int_equal(dpt_loss_evaluate(f.loss, &f.mesh, f.model, 0.0, DPT_BACKWARD_NONE, f.losses,
                                       f.hits, NULL, NULL, NULL),
                     DPT_OK);
    for (int s = 0; s < SAMPLES; s++) {
        loss_near(f.losses[s], log(2.0), 1.0, "own reference");
        assert_int_equal(f.hits[s], 0);
    }
    loss_fixture_close(&f);
    case_free(&in);
}

static void expect_refusal(const loss_fixture *f, const dpt_dpo_data *data, const char *named) {
    dpt_loss *loss;
    assert_int_equal(dpt_loss_dpo_create(data, 31, 64, &f->mesh, 100, &loss), DPT_ERR_INPUT);
    assert_null(loss);
    test_error_says(named);
}

static void test_bad_data(void **state) {
    (void)state;
    dpo_case in;
    loss_fixture f;
    case_load("llama", &in);
    loss_fixture_open(&f, &in.g, in.correct, 1);
    f.loss = make_loss(&f, &in, 100);
    dpt_dpo_data bad = in.data;
    bad.pairs.samples = 0;
    expect_refusal(&f, &bad, "no pairs");
    dpt_rng labels = dpt_rng_make(1, "labels", DPT_RNG_LABEL);
    assert_int_equal(dpt_loss_evaluate_drawn(f.loss, &f.mesh, f.model, 0.0, labels, f.losses, NULL),
                     DPT_ERR_INPUT);
    test_error_says("a preference has no label");
    bad = in.data;
    bad.beta = 0.0;
    expect_refusal(&f, &bad, "beta is 0");
    bad.beta = NAN;
    expect_refusal(&f, &bad, "beta is nan");
    int32_t *token = in.g.token + in.g.offsets[3] + 1; /* rejected of sample 1 */
    *token = 31;
    expect_refusal(&f, &in.data, "the rejected of sample 1: token 31 at position 1");
    *token = 0;
    memset(in.g.mask + in.g.offsets[4], 0, (size_t)(in.g.offsets[5] - in.g.offsets[4]));
    expect_refusal(&f, &in.data, "the chosen of sample 2 has no scored token");
    double logp[2 * SAMPLES] = {[3] = NAN};
    assert_int_equal(dpt_loss_dpo_set_reference(f.loss, logp), DPT_ERR_INPUT);
    test_error_says("sample 1");
    loss_check_bad_weights(f.loss);
    loss_fixture_close(&f);
    case_free(&in);
}

static void test_faults(void **state) {
    (void)state;
    static const char *const points[] = {"loss.evaluate", "model.run", "model.pass"};
    for (int size = 1; size <= test_comm.size; size++) {
        if (test_comm.size % size != 0)
            continue;
        dpo_case in;
        loss_fixture f;
        double logp[2 * SAMPLES] = {0};
        case_load("llama", &in);
        loss_fixture_open(&f, &in.g, in.correct, size);
        f.loss = make_loss(&f, &in, 20);
        assert_int_equal(dpt_loss_dpo_set_reference(f.loss, logp), DPT_OK);
        loss_check_faults(&f);
        for (int i = 0; i < 6; i++) {
            fault_set(points[i / 2], i % 2);
            dpt_status st = dpt_loss_dpo_measure(f.loss, &f.mesh, f.model, logp);
            fault_clear();
            assert_int_equal(st, DPT_ERR_OUTPUT);
            dpt_error_clear();
        }
        assert_int_equal(dpt_loss_dpo_measure(f.loss, &f.mesh, f.model, logp), DPT_OK);
        loss_fixture_close(&f);
        case_free(&in);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_margins),
        cmocka_unit_test(test_bad_data),
        cmocka_unit_test(test_faults),
    };
    return test_mpi_main(argc, argv, tests);
}
