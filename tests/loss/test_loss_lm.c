/* ranks: 1 2 3 4 */
/* The language-model loss against transformers at every mesh and several batch sizes. */
#include "support/test_mpi.h"

#include "loss/loss_golden.h"

#include "deltapath/tensor/shard.h"

static dpt_lm_data data_of(const golden_model *g) {
    return (dpt_lm_data){
        .samples = g->samples, .offsets = g->offsets, .tokens = g->token, .loss_mask = g->mask};
}

static void open_case(loss_fixture *f, golden_model *g, const char *name, int size,
                      int64_t batch_tokens) {
    golden_load(name, g);
    loss_fixture_open(f, g, NULL, size);
    f->exact = true;
    dpt_lm_data data = data_of(g);
    assert_int_equal(dpt_loss_lm_create(&data, dpt_model_vocabulary(f->model),
                                        dpt_model_max_positions(f->model), &f->mesh, batch_tokens,
                                        &f->loss),
                     DPT_OK);
    assert_int_equal(dpt_loss_samples(f->loss), g->samples);
}

static void close_case(loss_fixture *f, golden_model *g) {
    loss_fixture_close(f);
    golden_free(g);
}

static void test_golden(void **state) {
    (void)state;
    static const int64_t batches[] = {1, 25, 1000};
    static const char *const cases[] = {"gqa", "tied", "qwen2", "mistral_swa"};
    for (int c = 0; c < 4; c++)
        for (int size = 1; size <= test_comm.size; size++)
            for (int b = 0; b < 3 && test_comm.size % size == 0; b++) {
                loss_fixture f;
                golden_model g;
                open_case(&f, &g, cases[c], size, batches[b]);
                loss_check_all(&f);
                close_case(&f, &g);
            }
}

/* Set every scored token of sample 1 and the last of sample 2 to the model's own choice: sample 1 is
 * then an exact match, and the others are what the token hits say. */
static void test_exact_match(void **state) {
    (void)state;
    loss_fixture f;
    golden_model g;
    open_case(&f, &g, "untied", test_comm.size, 1000);
    uint8_t correct[4];
    int64_t last = g.offsets[2] - 1;
    int hits = 0;
    for (int32_t token = 0; token < 40; token++) {
        g.token[last] = token;
        assert_int_equal(dpt_loss_evaluate(f.loss, &f.mesh, f.model, 0.0, DPT_BACKWARD_NONE,
                                           f.losses, correct, NULL, NULL, NULL),
                         DPT_OK);
        hits += correct[1];
        assert_int_equal(correct[3], 0);
        assert_true(!correct[1] || f.losses[1] < log(40.0));
    }
    assert_int_equal(hits, 1); /* one token is the arg max */
    close_case(&f, &g);
}

static void expect_refusal(const loss_fixture *f, const dpt_lm_data *data, int64_t positions,
                           const char *named) {
    dpt_loss *loss;
    assert_int_equal(dpt_loss_lm_create(data, 40, positions, &f->mesh, 100, &loss), DPT_ERR_INPUT);
    assert_null(loss);
    test_error_says(named);
}

static void test_bad_data(void **state) {
    (void)state;
    loss_fixture f;
    golden_model g;
    open_case(&f, &g, "untied", 1, 100);
    dpt_lm_data data = data_of(&g), bad = data;
    bad.samples = 0;
    expect_refusal(&f, &bad, 128, "no samples");
    expect_refusal(&f, &data, 16, "sample 2 has 17 tokens but the model takes 16");
    g.token[10] = 40;
    expect_refusal(&f, &data, 128, "sample 1: token 40 at position 1");
    g.token[10] = -1;
    expect_refusal(&f, &data, 128, "token -1");
    g.token[10] = 0;
    g.mask[13] = 0;
    g.mask[9] = 1; /* the first token of sample 1 cannot be scored */
    expect_refusal(&f, &data, 128, "sample 1 has no scored token");
    g.mask[13] = 1;
    int64_t kept = g.offsets[2];
    g.offsets[2] = g.offsets[1];
    expect_refusal(&f, &data, 128, "offsets do not rise at sample 1");
    g.offsets[2] = kept;
    g.offsets[0] = 1;
    expect_refusal(&f, &data, 128, "first offset");
    g.offsets[0] = 0;
    loss_check_bad_weights(f.loss);
    close_case(&f, &g);
}

static void test_faults(void **state) {
    (void)state;
    for (int size = 1; size <= test_comm.size; size++) {
        if (test_comm.size % size != 0)
            continue;
        loss_fixture f;
        golden_model g;
        open_case(&f, &g, "untied", size, 10);
        loss_check_faults(&f);
        close_case(&f, &g);
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

/* Batches of one sample: a word after each, and none from a replica without samples. */
static void test_progress(void **state) {
    (void)state;
    loss_fixture f;
    golden_model g;
    open_case(&f, &g, "gqa", 1, 1);
    for (int again = 0; again < 2; again++) {
        heard h = {.calls = 0};
        int64_t begin, end;
        dpt_shard_split(g.samples, test_comm.size, test_comm.rank, &begin, &end);
        dpt_loss_set_progress(f.loss, again ? NULL : hear, &h);
        assert_int_equal(dpt_loss_evaluate(f.loss, &f.mesh, f.model, 0.0, DPT_BACKWARD_NONE,
                                           f.losses, NULL, NULL, NULL, NULL),
                         DPT_OK);
        assert_int_equal(h.calls, again ? 0 : end - begin);
        assert_true(h.calls == 0 || h.share == 1.0);
    }
    close_case(&f, &g);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_progress),    cmocka_unit_test(test_golden),
        cmocka_unit_test(test_exact_match), cmocka_unit_test(test_bad_data),
        cmocka_unit_test(test_faults),
    };
    return test_mpi_main(argc, argv, tests);
}
