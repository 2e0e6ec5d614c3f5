/* ranks: 1 2 3 4 */
/* The accuracy of random edits by logits that are quadratic along every direction: of two classes it is a normal
 * distribution function, sample by sample. */
#include "support/test_mpi.h"
#include "support/test_near.h"

#include "edit/edit_support.h"
#include "../src/study/logits.h"

#include <math.h>
#include <stdlib.h>

enum { SAMPLES = 61, CLASSES = 2, PROBES = 48, N = SAMPLES * CLASSES };

typedef struct problem {
    double post[N], toward[N], toward_second[N], move[PROBES][N], second[PROBES][N];
    double shares[SAMPLES];
    int32_t labels[SAMPLES];
    int64_t clusters[SAMPLES];
    uint8_t correct[SAMPLES];
    dpt_logits logits;
} problem;

static double draw(uint64_t *seed) {
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (double)(*seed >> 40) / (double)(1 << 24) - 0.5;
}

/* Logits at t along a direction. */
static void at(const problem *p, const double *first, const double *second, double t, double *out) {
    for (int i = 0; i < N; i++)
        out[i] = p->post[i] + t * first[i] + t * t * second[i];
}

static void problem_draw(problem *p, bool weighted) {
    double sum = 0.0;
    uint64_t seed = 7;
    for (int i = 0; i < N; i++) {
        p->post[i] = 4.0 * draw(&seed);
        p->toward[i] = 3.0 * draw(&seed);
        p->toward_second[i] = 2.0 * draw(&seed);
        for (int r = 0; r < PROBES; r++) {
            p->move[r][i] = 4.0 * draw(&seed);
            p->second[r][i] = draw(&seed) + (i % CLASSES == 0 ? 0.6 : 0.0);
        }
    }
    for (int s = 0; s < SAMPLES; s++) {
        p->labels[s] = s % 3 == 0;
        p->correct[s] = p->post[2 * s + p->labels[s]] > p->post[2 * s + 1 - p->labels[s]];
        p->shares[s] = 0.6 + draw(&seed);
        sum += p->shares[s];
    }
    for (int s = 0; s < SAMPLES; s++)
        p->shares[s] = weighted ? p->shares[s] / sum : 1.0 / SAMPLES;
}

/* What the program would find of it. */
static void problem_take(problem *p, bool weighted, int samples, const int64_t *clusters) {
    double plus[N], minus[N];
    p->logits = (dpt_logits){.samples = samples,
                             .classes = CLASSES,
                             .clusters = clusters,
                             .effective = NAN,
                             .labels = p->labels,
                             .correct = p->correct,
                             .shares = weighted ? p->shares : NULL,
                             .step = 0.25};
    assert_int_equal(dpt_logits_create(&test_comm, PROBES, &p->logits), DPT_OK);
    dpt_logits_take_post(&p->logits, p->post);
    at(p, p->toward, p->toward_second, 0.25, plus);
    at(p, p->toward, p->toward_second, -0.25, minus);
    dpt_logits_take_toward(&p->logits, plus, minus);
    for (int r = 0; r < PROBES; r++) {
        at(p, p->move[r], p->second[r], 0.25, plus);
        at(p, p->move[r], p->second[r], -0.25, minus);
        dpt_logits_take_probe(&p->logits, r, plus, minus);
    }
    at(p, p->move[0], p->second[0], 0.125, plus);
    at(p, p->move[0], p->second[0], -0.125, minus);
    assert_int_equal(dpt_logits_compare(&test_comm, &p->logits, plus, minus), DPT_OK);
    assert_true(p->logits.error < 1e-12);
}

static void problem_make(problem *p, bool weighted) {
    problem_draw(p, weighted);
    problem_take(p, weighted, SAMPLES, NULL);
}

/* Every second sample becomes a copy of the one before it. */
static void problem_repeat(problem *p) {
    for (int s = 0; s + 1 < SAMPLES; s += 2) {
        double *const rows[] = {p->post, p->toward, p->toward_second};
        for (int k = 0; k < 3; k++)
            memcpy(rows[k] + (s + 1) * CLASSES, rows[k] + s * CLASSES, CLASSES * sizeof(double));
        for (int r = 0; r < PROBES; r++) {
            memcpy(p->move[r] + (s + 1) * CLASSES, p->move[r] + s * CLASSES,
                   CLASSES * sizeof(double));
            memcpy(p->second[r] + (s + 1) * CLASSES, p->second[r] + s * CLASSES,
                   CLASSES * sizeof(double));
        }
        p->labels[s + 1] = p->labels[s];
        p->correct[s + 1] = p->correct[s];
    }
}

/* Its mean over masks, with the second derivatives or without. */
static double known(const problem *p, double a, double v, double bends) {
    double right = 0.0;
    for (int s = 0; s < SAMPLES; s++) {
        int y = 2 * s + p->labels[s], z = 2 * s + 1 - p->labels[s];
        double mean = p->post[y] - p->post[z] + a * (p->toward[y] - p->toward[z]) +
                      bends * a * a * (p->toward_second[y] - p->toward_second[z]);
        double square = 0.0;
        for (int r = 0; r < PROBES; r++) {
            double move = p->move[r][y] - p->move[r][z];
            square += move * move / PROBES;
            mean += bends * v * (p->second[r][y] - p->second[r][z]) / PROBES;
        }
        right += p->shares[s] * 0.5 * erfc(-mean / sqrt(2.0 * v * square));
    }
    return right;
}

static void test_accuracy(void **state) {
    (void)state;
    static const dpt_logits_edit edits[] = {
        {0.0, 0.05}, {0.0, 1.0}, {0.3, 0.21}, {-0.5, 4.0}, {1.0, 0.2}};
    for (int weighted = 0; weighted < 2; weighted++) {
        problem *p = calloc(1, sizeof *p);
        double post = 0.0;
        problem_make(p, weighted == 1);
        for (int s = 0; s < SAMPLES; s++)
            post += p->shares[s] * p->correct[s];
        for (int e = 0; e < 5; e++) {
            dpt_logits_prediction got;
            assert_int_equal(dpt_logits_predict(&test_comm, &p->logits, &edits[e], &got), DPT_OK);
            double want = known(p, edits[e].toward, edits[e].variance, 1.0);
            double plain = known(p, edits[e].toward, edits[e].variance, 0.0);
            assert_near(got.accuracy, want, 0.01);
            assert_near(got.error, fabs(want - plain), 0.012);
            assert_near(got.change, got.accuracy - post, 1e-12);
            assert_true(got.low < got.change && got.change < got.high && got.sd > 0.0);
            assert_int_equal(got.in_range, got.error <= DPT_LOGITS_RANGE);
            uint64_t bits;
            memcpy(&bits, &got.accuracy, sizeof bits);
            test_same_on_all(bits);
        }
        dpt_logits_destroy(&p->logits);
        free(p);
    }
}

/* Drop rate up to which a bound is met: the margin, and the range. */
static double known_rate(const problem *p, double post, double margin) {
    double want = 0.0;
    for (double q = 0.001; q < 0.9; q += 0.001) {
        double v = q / (1.0 - q), is = known(p, 0.0, v, 1.0);
        if (is < post - margin || fabs(is - known(p, 0.0, v, 0.0)) > DPT_LOGITS_RANGE)
            break;
        want = q;
    }
    return want;
}

/* With second derivatives the range ends first, without them the margin. */
static void test_safe_rate(void **state) {
    (void)state;
    for (int flat = 0; flat < 2; flat++) {
        problem *p = calloc(1, sizeof *p);
        double rate = 0.0, post = 0.0;
        problem_draw(p, false);
        if (flat == 1)
            memset(p->second, 0, sizeof p->second);
        problem_take(p, false, SAMPLES, NULL);
        for (int s = 0; s < SAMPLES; s++)
            post += p->shares[s] * p->correct[s];
        const double want = known_rate(p, post, 0.03);
        assert_true(want > 0.01 && want < 0.8);
        assert_int_equal(dpt_logits_safe_rate(&test_comm, &p->logits, 0.03, &rate), DPT_OK);
        print_message("rate %.3f, known %.3f\n", rate, want);
        assert_near(rate, want, 0.05);
        assert_int_equal(dpt_logits_safe_rate(&test_comm, &p->logits, 0.0, &rate), DPT_OK);
        assert_true(isnan(rate));
        dpt_logits_destroy(&p->logits);
        free(p);
    }
}

/* Pairs of equal samples know as much as half as many samples: of n their Student's interval is wider by a known factor. */
static void test_clusters(void **state) {
    (void)state;
    enum { EVEN = SAMPLES - 1 };
    double half[2];
    for (int clustered = 0; clustered < 2; clustered++) {
        problem *p = calloc(1, sizeof *p);
        dpt_logits_prediction got;
        const dpt_logits_edit edit = {.variance = 0.5};
        problem_draw(p, false);
        problem_repeat(p);
        for (int s = 0; s < SAMPLES; s++)
            p->clusters[s] = s / 2;
        problem_take(p, false, EVEN, clustered == 1 ? p->clusters : NULL);
        assert_int_equal(dpt_logits_predict(&test_comm, &p->logits, &edit, &got), DPT_OK);
        half[clustered] = 0.5 * (got.high - got.low);
        dpt_logits_destroy(&p->logits);
        free(p);
    }
    /* Student's quantiles of 59 and 29 degrees of freedom. */
    const double n = EVEN;
    assert_near(half[1] / half[0], sqrt(2.0 * (n - 1.0) / (n - 2.0)) * 2.0452296421 / 2.0009953781,
                1e-8);
}

/* Of equal logits the first is the answer, as it is where a model is asked. */
static void test_ties(void **state) {
    (void)state;
    problem *p = calloc(1, sizeof *p);
    dpt_logits_prediction got;
    const dpt_logits_edit edit = {.toward = 0.3, .variance = 0.5};
    double first = 0.0;
    problem_draw(p, false);
    memset(p->post, 0, sizeof p->post);
    memset(p->toward, 0, sizeof p->toward);
    memset(p->toward_second, 0, sizeof p->toward_second);
    memset(p->move, 0, sizeof p->move);
    memset(p->second, 0, sizeof p->second);
    for (int s = 0; s < SAMPLES; s++)
        first += p->labels[s] == 0 ? 1.0 / SAMPLES : 0.0;
    problem_take(p, false, SAMPLES, NULL);
    assert_int_equal(dpt_logits_predict(&test_comm, &p->logits, &edit, &got), DPT_OK);
    assert_near(got.accuracy, first, 1e-12);
    assert_true(got.sd == 0.0);
    memset(p->labels, 0, sizeof p->labels);
    assert_int_equal(dpt_logits_predict(&test_comm, &p->logits, &edit, &got), DPT_OK);
    assert_true(got.accuracy <= 1.0 && got.accuracy > 1.0 - 1e-12 && got.sd == 0.0);
    dpt_logits_destroy(&p->logits);
    free(p);
}

/* A first derivative that comes out a tenth larger with half the step. */
static void test_error(void **state) {
    (void)state;
    problem *p = calloc(1, sizeof *p);
    double plus[N], minus[N], larger[N];
    problem_make(p, false);
    for (int i = 0; i < N; i++)
        larger[i] = 1.1 * p->move[0][i];
    at(p, larger, p->second[0], 0.125, plus);
    at(p, larger, p->second[0], -0.125, minus);
    assert_int_equal(dpt_logits_compare(&test_comm, &p->logits, plus, minus), DPT_OK);
    assert_near(p->logits.error, 0.1, 1e-12);
    dpt_logits_destroy(&p->logits);
    free(p);
}

/* Which edits move the weights at random, and how: E = (mask - mean) Delta scaled, mean and variance by hand. */
static void test_known_edits(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool known;
        double toward, variance;
    } cases[] = {
        {"dare:p=0.5", true, 0.0, 1.0},      {"dare:p=0.2,k=0.5", true, 0.0, 0.0625},
        {"dare:p=0.5,k=-1", true, 0.0, 4.0}, {"dare:p=0.2,k=0.5,rescale=none", true, 0.1, 0.04},
        {"drop:p=0.2", true, 0.2, 0.16},     {"dare:p=0.5,rescale=l1", false, 0.0, 0.0},
        {"bitdelta", false, 0.0, 0.0},       {"dare:p=0.5;bitdelta", false, 0.0, 0.0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dpt_edit_spec spec;
        dpt_logits_edit got = {.toward = NAN};
        assert_int_equal(spec_parse(cases[i].text, 1, &spec), DPT_OK);
        assert_int_equal(dpt_logits_knows(&spec, &got), cases[i].known);
        if (!cases[i].known)
            continue;
        assert_near(got.toward, cases[i].toward, 1e-15);
        assert_near(got.variance, cases[i].variance, 1e-15);
        const double each[1] = {0.5};
        spec.stages[0].tensor_values = each;
        assert_false(dpt_logits_knows(&spec, &got));
        spec.stages[0].tensor_values = NULL;
        spec.calibrate = DPT_CALIBRATE_TERM;
        assert_false(dpt_logits_knows(&spec, &got));
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accuracy), cmocka_unit_test(test_safe_rate),
        cmocka_unit_test(test_clusters), cmocka_unit_test(test_ties),
        cmocka_unit_test(test_error),    cmocka_unit_test(test_known_edits),
    };
    return test_mpi_main(argc, argv, tests);
}
