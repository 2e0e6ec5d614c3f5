/* ranks: 1 */
#include "support/test_mpi.h"
#include "support/test_near.h"

#include "deltapath/base/rng.h"
#include "deltapath/path/biased_interval.h"
#include "deltapath/base/student.h"

#include <math.h>

/* Of an interval with Student's ends. */
static double half_length(double se, double bias, double df, double confidence) {
    double t = dpt_student_quantile(0.5 * (1.0 + confidence), df) * se;
    dpt_interval sampled = {.n = 10, .se = se, .low = -t, .high = t};
    return dpt_biased_interval(&sampled, 0.0, bias, df, confidence).high;
}

/* Without a bias Student's half width; with a large one the bias and a one-sided width; values of Table 1 of
 * Armstrong and Kolesar for many degrees of freedom. */
static void test_values(void **state) {
    (void)state;
    static const double table[][2] = {
        {0.0, 1.960}, {0.1, 1.970}, {0.5, 2.181}, {1.0, 2.646}, {2.0, 3.645}};
    for (int i = 0; i < 5; i++)
        assert_near(half_length(1.0, table[i][0], 1e7, 0.95), table[i][1], 6e-4);
    assert_near(half_length(2.0, 0.0, 9.0, 0.95), 2.0 * dpt_student_quantile(0.975, 9.0), 1e-9);
    assert_near(half_length(1.0, 50.0, 9.0, 0.95), 50.0 + dpt_student_quantile(0.95, 9.0), 1e-6);
    assert_near(half_length(1.0, -1.0, 9.0, 0.95), half_length(1.0, 1.0, 9.0, 0.95), 0.0);
    assert_near(half_length(0.0, 0.25, 9.0, 0.95), 0.25, 0.0);
    assert_true(isnan(half_length(NAN, 0.0, 9.0, 0.95)));
    assert_true(isnan(half_length(1.0, NAN, 9.0, 0.95)));
}

/* A lopsided interval stays so: what else errs widens both sides alike, a bias moves both ends by the same. */
static void test_interval(void **state) {
    (void)state;
    dpt_interval sampled = {.n = 10, .mean = 1.0, .se = 0.3, .low = 0.5, .high = 2.5};
    dpt_interval same = dpt_biased_interval(&sampled, 0.0, 0.0, 9.0, 0.95);
    assert_near(same.low, 0.5, 1e-12);
    assert_near(same.high, 2.5, 1e-12);
    dpt_interval wider = dpt_biased_interval(&sampled, 0.4, 0.0, 9.0, 0.95);
    assert_near(wider.se, 0.5, 1e-12);
    assert_near(wider.low, 1.0 - 0.5 * 0.5 / 0.3, 1e-12);
    assert_near(wider.high, 1.0 + 1.5 * 0.5 / 0.3, 1e-12);
    double more = half_length(0.3, 0.2, 9.0, 0.95) - 0.3 * dpt_student_quantile(0.975, 9.0);
    dpt_interval biased = dpt_biased_interval(&sampled, 0.0, 0.2, 9.0, 0.95);
    assert_true(more > 0.0);
    assert_near(biased.low, 0.5 - more, 1e-9);
    assert_near(biased.high, 2.5 + more, 1e-9);
    sampled = (dpt_interval){.n = 10, .mean = 1.0, .low = 1.0, .high = 1.0};
    biased = dpt_biased_interval(&sampled, 0.0, 0.25, 9.0, 0.95);
    assert_near(biased.low, 0.75, 1e-12);
    assert_near(biased.high, 1.25, 1e-12);
    sampled.low = sampled.se = NAN;
    assert_true(isnan(dpt_biased_interval(&sampled, 0.0, 0.2, 9.0, 0.95).low));
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_values),
                                       cmocka_unit_test(test_interval)};
    return test_mpi_main(argc, argv, tests);
}
