/* ranks: 1 2 3 4 */
/* The accuracy of random edits by logits that are quadratic along every direction: of two classes it is a normal
 * distribution function, sample by sample. */
#include "support/test_mpi.h"
#include "support/test_near.h"

#include "../src/study/logits.h"

#include <math.h>
#include <stdlib.h>

enum { SAMPLES = 61, CLASSES = 2, PROBES = 48, N = SAMPLES * CLASSES };

typedef struct problem {
    double post[N], toward[N], toward_second[N], move[PROBES][N], second[PROBES][N];
    double shares[SAMPLES];
    int32_t labels[SAMPLES];
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

static void problem_make(problem *p, bool weighted) {
    double plus[N], minus[N], sum = 0.0;
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
    p->logits = (dpt_logits){.samples = SAMPLES,
                             .classes = CLASSES,
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
    static const dpt_logits_edit edits[] = {{0.0, 0.05}, {0.0, 1.0}, {0.3, 0.21}, {-0.5, 4.0}};
    for (int weighted = 0; weighted < 2; weighted++) {
        problem *p = calloc(1, sizeof *p);
        double post = 0.0;
        problem_make(p, weighted == 1);
        for (int s = 0; s < SAMPLES; s++)
            post += p->shares[s] * p->correct[s];
        for (int e = 0; e < 4; e++) {
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

static void test_safe_rate(void **state) {
    (void)state;
    problem *p = calloc(1, sizeof *p);
    double rate = 0.0, post = 0.0, want = 0.0;
    problem_make(p, false);
    for (int s = 0; s < SAMPLES; s++)
        post += p->shares[s] * p->correct[s];
    for (double q = 0.001; q < 0.9; q += 0.001) { /* until a bound is met */
        double v = q / (1.0 - q), is = known(p, 0.0, v, 1.0);
        if (is < post - 0.03 || fabs(is - known(p, 0.0, v, 0.0)) > DPT_LOGITS_RANGE)
            break;
        want = q;
    }
    assert_true(want > 0.01 && want < 0.8);
    assert_int_equal(dpt_logits_safe_rate(&test_comm, &p->logits, 0.03, &rate), DPT_OK);
    assert_near(rate, want, 0.05);
    assert_int_equal(dpt_logits_safe_rate(&test_comm, &p->logits, 0.0, &rate), DPT_OK);
    assert_true(isnan(rate));
    dpt_logits_destroy(&p->logits);
    free(p);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accuracy),
        cmocka_unit_test(test_safe_rate),
    };
    return test_mpi_main(argc, argv, tests);
}
