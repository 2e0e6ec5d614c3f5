/* ranks: 1 2 3 4 */
/* seconds: 600 */
/* Products in bf16 against those in fp32: every decoder and image model, as fp32 and as bf16 files, at every mesh of the
 * ranks. */
#include "support/test_mpi.h"

#include "model/model_golden.h"

#include "deltapath/linalg/bf16.h"

/* Rounding to bf16 is off by 2^-9 of a value at most. What a loss or a term is made of passes a few products, so that
 * they may be off by 2^-7 and 2^-6 of the largest ones; and where a model makes more of small differences, as those with norms
 * after their branches do at random weights, by twice what the same rounding of its weights changes in fp32. */
#define OFF_LOSS  0x1p-7
#define OFF_TERM  0x1p-6
#define OFF_TIMES 2.0

static const char *const decoders[] = {"llama",   "smollm3",   "phi3",   "olmo2",    "olmo3",
                                       "gemma",   "gemma2",    "gemma3", "gpt_neox", "gpt2",
                                       "mixtral", "qwen3_moe", "gpt_oss"};

static const char *const towers[] = {"vit", "dinov2", "siglip"};

/* What is compared: the losses of the samples, and the terms of all ranks. */
typedef struct outcome {
    double *loss, *terms;
    int64_t count; /* of terms */
} outcome;

static outcome outcome_run(model_fixture *f, dpt_precision precision, double t) {
    outcome out = {.count = f->g->samples * dpt_model_columns(f->model)};
    out.loss = calloc((size_t)f->g->samples, sizeof *out.loss);
    out.terms = calloc((size_t)out.count, sizeof *out.terms);
    if (dpt_model_set_precision(f->model, precision) != DPT_OK)
        fail_msg("%s", dpt_error_message());
    model_fixture_run(f, t, DPT_BACKWARD_TERMS, 1.0, NULL, NULL);
    model_sum_terms(f);
    for (int64_t s = 0; s < f->g->samples; s++)
        out.loss[s] = model_sample_loss(f, s);
    memcpy(out.terms, f->terms, (size_t)out.count * sizeof *out.terms);
    return out;
}

static void outcome_free(outcome *out) {
    free(out->loss);
    free(out->terms);
}

/* Largest distances, as shares of the largest loss and the largest term. */
static void outcome_compare(const model_fixture *f, const outcome *a, const outcome *b,
                            double *loss, double *term) {
    double largest = 0.0, off = 0.0;
    for (int64_t k = 0; k < a->count; k++) {
        largest = fmax(largest, fabs(b->terms[k]));
        off = fmax(off, fabs(a->terms[k] - b->terms[k]));
    }
    *term = off / largest;
    largest = off = 0.0;
    for (int64_t s = 0; s < f->g->samples; s++) {
        largest = fmax(largest, fabs(b->loss[s]));
        off = fmax(off, fabs(a->loss[s] - b->loss[s]));
    }
    *loss = off / largest;
}

static const double points[] = {0.0, 0.4, 1.0};
enum { POINTS = sizeof points / sizeof *points };

/* What rounding the weights does in fp32, at each point. */
typedef struct sensitivity {
    double loss[POINTS], term[POINTS];
} sensitivity;

/* One model at a point: near fp32, but not the same; and the same bits again. */
static void check_at(model_fixture *f, int p, const char *files, const sensitivity *s) {
    double loss, term;
    int64_t before = dpt_model_bf16_products(f->model);
    outcome exact = outcome_run(f, DPT_PRECISION_FP32, points[p]);
    assert_int_equal(dpt_model_bf16_products(f->model), before);
    outcome rounded = outcome_run(f, DPT_PRECISION_BF16, points[p]);
    assert_true(dpt_model_bf16_products(f->model) > before);
    outcome again = outcome_run(f, DPT_PRECISION_BF16, points[p]);
    outcome_compare(f, &rounded, &exact, &loss, &term);
    if (!(loss <= OFF_LOSS + OFF_TIMES * s->loss[p] && term <= OFF_TERM + OFF_TIMES * s->term[p]))
        fail_msg("%s (%s files, t = %g): losses are off by %.3g, terms by %.3g", f->name, files,
                 points[p], loss, term);
    assert_true(loss > 0.0 && term > 0.0);
    assert_memory_equal(rounded.terms, again.terms, (size_t)again.count * sizeof *again.terms);
    assert_memory_equal(rounded.loss, again.loss, (size_t)f->g->samples * sizeof *again.loss);
    outcome_free(&exact);
    outcome_free(&rounded);
    outcome_free(&again);
}

/* The model of the fixture again, with its values in bf16. */
static void reload_as_bf16(model_fixture *f) {
    memory_model post = memory_convert(&f->g->post, DPT_BF16);
    memory_model edited = memory_convert(&f->g->edited, DPT_BF16);
    memory_free(&f->g->post);
    memory_free(&f->g->edited);
    f->g->post = post;
    f->g->edited = edited;
    dpt_model_destroy(f->model);
    assert_int_equal(dpt_model_create(&f->mesh.model, &f->mesh.data, f->g->config,
                                      memory_source(&f->g->post), &f->model),
                     DPT_OK);
    dpt_source source = memory_source(&f->g->edited);
    assert_int_equal(dpt_model_bind_edit(f->model, &source), DPT_OK);
}

static void check_name(const char *name, bool images, int size) {
    model_fixture f;
    outcome whole[POINTS];
    sensitivity s;
    model_fixture_open(&f, name, images, size);
    for (int p = 0; p < POINTS; p++)
        whole[p] = outcome_run(&f, DPT_PRECISION_FP32, points[p]);
    reload_as_bf16(&f);
    for (int p = 0; p < POINTS; p++) {
        outcome rounded = outcome_run(&f, DPT_PRECISION_FP32, points[p]);
        outcome_compare(&f, &rounded, &whole[p], &s.loss[p], &s.term[p]);
        outcome_free(&rounded);
        outcome_free(&whole[p]);
    }
    for (int p = 0; p < POINTS; p++)
        check_at(&f, p, "bf16", &s);
    model_fixture_close(&f);
    model_fixture_open(&f, name, images, size);
    for (int p = 0; p < POINTS; p++)
        check_at(&f, p, "fp32", &s);
    model_fixture_close(&f);
}

static void check_folders(const char *const *folders, size_t count, bool images) {
    golden_names cases;
    if (dpt_bf16_find_speed() == DPT_BF16_NONE)
        skip();
    golden_list(folders, count, &cases);
    for (int c = 0; c < cases.count; c++)
        for (int size = 1; size <= test_comm.size; size++)
            if (test_comm.size % size == 0)
                check_name(cases.names[c], images, size);
    golden_list_free(&cases);
}

static void test_decoders(void **state) {
    (void)state;
    check_folders(decoders, sizeof decoders / sizeof *decoders, false);
}

static void test_images(void **state) {
    (void)state;
    check_folders(towers, sizeof towers / sizeof *towers, true);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_decoders),
                                       cmocka_unit_test(test_images)};
    return test_mpi_main(argc, argv, tests);
}
