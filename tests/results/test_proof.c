/* ranks: 1 */
/* Predicted against true changes: the numbers of scipy, resamples of whole edits, and what is left out. */
#include "support/test_mpi.h"
#include "support/test_near.h"

#include "deltapath/results/proof.h"

#include <math.h>

enum { N = 7 };

static const double predicted[N] = {0.01, 0.02, 0.05, 0.1, 0.3, 0.7, 1.2};
static const double change[N] = {0.012, 0.015, 0.08, 0.07, 0.5, 0.6, 2.0};
static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g"};

static void make(dpt_result *results, const dpt_result **units, int n) {
    for (int i = 0; i < n; i++) {
        results[i] = (dpt_result){.edit = (char *)names[i]};
        results[i].scalars.predicted_change = predicted[i];
        results[i].scalars.change = change[i];
        results[i].scalars.predicted_in_range = i < 5;
        units[i] = &results[i];
    }
}

static void numbers_are_those_of_scipy(void **state) {
    (void)state;
    dpt_result results[N];
    const dpt_result *units[N];
    dpt_proof proof, again;
    make(results, units, N);
    assert_int_equal(dpt_proof_measure(N, units, DPT_PROOF_ALL, &proof), DPT_OK);
    assert_int_equal(proof.edits, N);
    assert_near(proof.correlation.value, 0.9605873724695171, 1e-12);
    assert_near(proof.rank_correlation.value, 0.9642857142857145, 1e-12);
    assert_near(proof.slope.value, 1.5257721849975487, 1e-12);
    assert_near(proof.ratio, 1.2, 1e-12);
    const dpt_proof_number *all[] = {&proof.correlation, &proof.rank_correlation, &proof.slope};
    for (int i = 0; i < 3; i++)
        assert_true(all[i]->low < all[i]->value && all[i]->value <= all[i]->high + 1e-12);
    assert_int_equal(dpt_proof_measure(N, units, DPT_PROOF_ALL, &again), DPT_OK);
    assert_memory_equal(&proof.slope, &again.slope, sizeof proof.slope);
}

static void what_is_not_known_is_left_out(void **state) {
    (void)state;
    dpt_result results[N];
    const dpt_result *units[N];
    dpt_proof proof;
    make(results, units, N);
    assert_int_equal(dpt_proof_measure(N, units, DPT_PROOF_IN_RANGE, &proof), DPT_OK);
    assert_int_equal(proof.edits, 5);
    for (int i = 0; i < N; i++) {
        results[i].scalars.predicted_first = 2.0 * change[i] - 0.5;
        results[i].scalars.predicted_second = 0.5;
    }
    assert_int_equal(dpt_proof_measure(N, units, DPT_PROOF_AS_DRAWN, &proof), DPT_OK);
    assert_near(proof.slope.value, 0.5, 1e-12);
    assert_int_equal(proof.edits, 5);
    results[0].scalars.predicted_change = NAN;
    results[1].scalars.change = INFINITY;
    assert_int_equal(dpt_proof_measure(N, units, DPT_PROOF_IN_RANGE, &proof), DPT_OK);
    assert_int_equal(proof.edits, 3); /* too few for a correlation */
    assert_true(isnan(proof.correlation.value) && isnan(proof.slope.low));
    assert_int_equal(dpt_proof_measure(0, units, DPT_PROOF_ALL, &proof), DPT_OK);
    assert_int_equal(proof.edits, 0);
}

/* Edits that differ in their seed alone count once: of copies of a line's points the intervals do not shrink. */
static void seeds_are_resampled_together(void **state) {
    (void)state;
    enum { COPIES = 5 };
    dpt_result results[N * COPIES];
    const dpt_result *units[N * COPIES];
    char ids[N * COPIES][32];
    dpt_proof once, many, apart;
    make(results, units, N);
    assert_int_equal(dpt_proof_measure(N, units, DPT_PROOF_ALL, &once), DPT_OK);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < N * COPIES; i++) {
            snprintf(ids[i], sizeof ids[i], pass == 0 ? "%s-seed%d-x" : "%s-run%d-x", names[i % N],
                     i / N);
            results[i] = (dpt_result){.edit = ids[i]};
            results[i].scalars.predicted_change = predicted[i % N];
            results[i].scalars.change = change[i % N];
            units[i] = &results[i];
        }
        assert_int_equal(
            dpt_proof_measure(N * COPIES, units, DPT_PROOF_ALL, pass == 0 ? &many : &apart),
            DPT_OK);
    }
    double width = once.slope.high - once.slope.low;
    assert_near(many.slope.value, once.slope.value, 1e-9);
    assert_true(fabs(many.slope.high - many.slope.low - width) < 0.1 * width);
    assert_true(apart.slope.high - apart.slope.low < 0.7 * width);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_those_of_scipy),
        cmocka_unit_test(what_is_not_known_is_left_out),
        cmocka_unit_test(seeds_are_resampled_together),
    };
    return test_mpi_main(argc, argv, tests);
}
