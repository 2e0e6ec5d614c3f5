/* ranks: 1 */
/* Weighted means and the values that stand for them in paired tests. */
#include "support/test_mpi.h"
#include "support/test_near.h"

#include "deltapath/path/verdict.h"
#include "deltapath/path/weighted.h"

enum { N = 6 };

static const double a[N] = {3.0, 1.5, -2.0, 0.25, 7.0, 4.0};
static const double b[N] = {1.0, 2.5, -1.0, 0.5, 5.5, 4.5};
static const double shares[N] = {0.1, 0.3, 0.05, 0.0, 0.25, 0.3};

static void test_mean(void **state) {
    (void)state;
    assert_near(dpt_weighted_mean(NULL, N, a), 13.75 / 6.0, 1e-15);
    assert_near(dpt_weighted_mean(shares, N, a), 0.3 + 0.45 - 0.1 + 1.75 + 1.2, 1e-15);
}

/* The plain mean is the weighted one; differences commute; even shares and none change nothing. */
static void test_linearise(void **state) {
    (void)state;
    double x[N], y[N], d[N], z[N];
    dpt_weighted_linearise(shares, N, a, x);
    dpt_weighted_linearise(shares, N, b, y);
    assert_near(dpt_weighted_mean(NULL, N, x), dpt_weighted_mean(shares, N, a), 1e-14);
    for (int s = 0; s < N; s++)
        d[s] = a[s] - b[s];
    dpt_weighted_linearise(shares, N, d, d);
    for (int s = 0; s < N; s++)
        assert_near(x[s] - y[s], d[s], 1e-14);
    const double even[N] = {1 / 6.0, 1 / 6.0, 1 / 6.0, 1 / 6.0, 1 / 6.0, 1 / 6.0};
    dpt_weighted_linearise(even, N, a, z);
    for (int s = 0; s < N; s++)
        assert_near(z[s], a[s], 1e-14);
    dpt_weighted_linearise(NULL, N, a, z);
    for (int s = 0; s < N; s++)
        assert_true(z[s] == a[s]);
}

/* The standard error against the textbook: n / (n - 1) sum share^2 (x - m)^2. A constant has none,
 * whatever its weights. */
static void test_interval(void **state) {
    (void)state;
    double x[N], sum = 0.0, m = dpt_weighted_mean(shares, N, a);
    for (int s = 0; s < N; s++)
        sum += shares[s] * shares[s] * (a[s] - m) * (a[s] - m);
    dpt_weighted_linearise(shares, N, a, x);
    dpt_interval interval = dpt_verdict_paired(N, x, NULL, 0.95);
    assert_near(interval.mean, m, 1e-14);
    assert_near(interval.se, sqrt(N / (N - 1.0) * sum), 1e-14);
    for (int s = 0; s < N; s++)
        x[s] = 2.0;
    dpt_weighted_linearise(shares, N, x, x);
    assert_near(dpt_verdict_paired(N, x, NULL, 0.95).se, 0.0, 1e-15);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mean),
        cmocka_unit_test(test_linearise),
        cmocka_unit_test(test_interval),
    };
    return test_mpi_main(argc, argv, tests);
}
