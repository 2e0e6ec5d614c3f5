/* ranks: 1 */
#include "support/test_mpi.h"
#include "support/test_near.h"

#include "deltapath/base/rng.h"
#include "deltapath/path/biased_interval.h"
#include "../src/path/student.h"

#include <math.h>

/* Without a bias Student's half width; with a large one the bias and a one-sided width; values of Table 1 of
 * Armstrong and Kolesar for many degrees of freedom. */
static void test_values(void **state) {
    (void)state;
    static const double table[][2] = {
        {0.0, 1.960}, {0.1, 1.970}, {0.5, 2.181}, {1.0, 2.646}, {2.0, 3.645}};
    for (int i = 0; i < 5; i++)
        assert_near(dpt_biased_reach(1.0, table[i][0], 1e7, 0.95), table[i][1], 6e-4);
    assert_near(dpt_biased_reach(2.0, 0.0, 9.0, 0.95), 2.0 * dpt_student_quantile(0.975, 9.0),
                1e-9);
    assert_near(dpt_biased_reach(1.0, 50.0, 9.0, 0.95), 50.0 + dpt_student_quantile(0.95, 9.0),
                1e-6);
    assert_near(dpt_biased_reach(1.0, -1.0, 9.0, 0.95), dpt_biased_reach(1.0, 1.0, 9.0, 0.95), 0.0);
    assert_near(dpt_biased_reach(0.0, 0.25, 9.0, 0.95), 0.25, 0.0);
    assert_true(isnan(dpt_biased_reach(NAN, 0.0, 9.0, 0.95)));
    assert_true(isnan(dpt_biased_reach(1.0, NAN, 9.0, 0.95)));
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_values)};
    return test_mpi_main(argc, argv, tests);
}
