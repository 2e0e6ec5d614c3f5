#ifndef DELTAPATH_TESTS_TEST_NEAR_H
#define DELTAPATH_TESTS_TEST_NEAR_H

#include <math.h>

/* cmocka compares in float; this compares in double, and a NaN is near nothing. Include after
 * support/test_mpi.h. */
#define assert_near(a, b, tolerance) test_near(a, b, tolerance, __FILE__, __LINE__)

static inline void test_near(double a, double b, double tolerance, const char *file, int line) {
    if (fabs(a - b) <= tolerance)
        return;
    print_error("%.17g is not within %g of %.17g\n", a, tolerance, b);
    _fail(file, line);
}

#endif
