/* ranks: 1 */
#include "support/test_mpi.h"
#include "support/test_near.h"

#include "deltapath/path/quadrature.h"

#include <math.h>
#include <string.h>

static double integrate(dpt_rule rule, int points, double (*f)(double, double), double k) {
    static dpt_quadrature q;
    assert_int_equal(dpt_quadrature_create(rule, points, &q), DPT_OK);
    double sum = 0.0;
    for (int c = 0; c < points; c++)
        sum += q.weight[c] * f(q.node[c], k);
    return sum;
}

static double power(double t, double k) {
    return pow(t, k);
}

static double growth(double t, double k) {
    return exp(k * t);
}

static void test_counts(void **state) {
    (void)state;
    const struct {
        dpt_rule rule;
        int points;
        dpt_status status;
    } cases[] = {{DPT_RULE_LEFT, 1, DPT_OK},
                 {DPT_RULE_LEFT, 0, DPT_ERR_USAGE},
                 {DPT_RULE_LEFT, -3, DPT_ERR_USAGE},
                 {DPT_RULE_LEFT, DPT_QUADRATURE_MAX, DPT_OK},
                 {DPT_RULE_LEFT, DPT_QUADRATURE_MAX + 1, DPT_ERR_USAGE},
                 {DPT_RULE_MIDPOINT, 1, DPT_OK},
                 {DPT_RULE_TRAPEZOID, 1, DPT_ERR_USAGE},
                 {DPT_RULE_TRAPEZOID, 2, DPT_OK},
                 {DPT_RULE_SIMPSON, 1, DPT_ERR_USAGE},
                 {DPT_RULE_SIMPSON, 3, DPT_OK},
                 {DPT_RULE_SIMPSON, 4, DPT_ERR_USAGE},
                 {DPT_RULE_SIMPSON, 5, DPT_OK},
                 {DPT_RULE_GAUSS, 64, DPT_OK},
                 {DPT_RULE_GAUSS, 65, DPT_ERR_USAGE},
                 {DPT_RULE_COUNT, 5, DPT_ERR_USAGE}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(dpt_quadrature_check(cases[i].rule, cases[i].points), cases[i].status);
        dpt_error_clear();
    }
}

static void test_weights_and_ends(void **state) {
    (void)state;
    static dpt_quadrature q;
    for (int r = 0; r < DPT_RULE_COUNT; r++)
        for (int points = 1; points <= 64; points++) {
            if (dpt_quadrature_check((dpt_rule)r, points) != DPT_OK) {
                dpt_error_clear();
                continue;
            }
            assert_int_equal(dpt_quadrature_create((dpt_rule)r, points, &q), DPT_OK);
            double sum = 0.0;
            for (int c = 0; c < points; c++) {
                assert_true(q.node[c] >= 0.0 && q.node[c] <= 1.0 && q.weight[c] > 0.0);
                assert_true(c == 0 || q.node[c] > q.node[c - 1]);
                sum += q.weight[c];
            }
            assert_near(sum, 1.0, 1e-14);
            assert_int_equal(q.node[0] == 0.0, dpt_quadrature_has_start((dpt_rule)r));
            assert_int_equal(q.node[points - 1] == 1.0, dpt_quadrature_has_end((dpt_rule)r));
        }
}

/* The rule of the paper: C = 5 gives t = 0, 0.2, 0.4, 0.6, 0.8 and weights 1/5. */
static void test_paper_rule(void **state) {
    (void)state;
    static dpt_quadrature q;
    assert_int_equal(dpt_quadrature_create(DPT_RULE_LEFT, 5, &q), DPT_OK);
    for (int c = 0; c < 5; c++) {
        assert_true(q.node[c] == c / 5.0);
        assert_true(q.weight[c] == 0.2);
    }
}

/* 5-point Gauss-Legendre from Abramowitz and Stegun, table 25.4, moved to [0, 1]. */
static void test_gauss_table(void **state) {
    (void)state;
    static const double x[] = {0.0, 0.538469310105683091036, 0.906179845938663992798};
    static const double w[] = {0.568888888888888888889, 0.478628670499366468041,
                               0.236926885056189087514};
    static dpt_quadrature q;
    assert_int_equal(dpt_quadrature_create(DPT_RULE_GAUSS, 5, &q), DPT_OK);
    for (int i = 0; i < 3; i++) {
        assert_near(q.node[2 + i], 0.5 * (1.0 + x[i]), 1e-15);
        assert_near(q.node[2 - i], 0.5 * (1.0 - x[i]), 1e-15);
        assert_near(q.weight[2 + i], 0.5 * w[i], 1e-15);
        assert_near(q.weight[2 - i], 0.5 * w[i], 1e-15);
    }
}

static void test_gauss_exactness(void **state) {
    (void)state;
    for (int points = 1; points <= 64; points++) {
        for (int degree = 0; degree < 2 * points; degree++) {
            double exact = 1.0 / (degree + 1.0);
            assert_near(integrate(DPT_RULE_GAUSS, points, power, degree), exact, 2e-15);
        }
        if (points <= 6) {
            int degree = 2 * points; /* the first that is not exact */
            double exact = 1.0 / (degree + 1.0);
            double off = fabs(integrate(DPT_RULE_GAUSS, points, power, degree) - exact);
            assert_true(off > 1e-9);
        }
    }
    assert_near(integrate(DPT_RULE_SIMPSON, 3, power, 3), 0.25, 1e-15);
    assert_near(integrate(DPT_RULE_TRAPEZOID, 2, power, 1), 0.5, 1e-15);
    assert_near(integrate(DPT_RULE_MIDPOINT, 1, power, 1), 0.5, 1e-15);
}

/* Doubling the intervals divides the error by 2^order. */
static void test_orders(void **state) {
    (void)state;
    static const int orders[DPT_RULE_GAUSS] = {1, 2, 2, 4};
    double exact = (exp(2.0) - 1.0) / 2.0;
    for (int r = 0; r < DPT_RULE_GAUSS; r++) {
        dpt_rule rule = (dpt_rule)r;
        int closed = dpt_quadrature_has_end(rule);
        double coarse = fabs(integrate(rule, 32 + closed, growth, 2.0) - exact);
        double fine = fabs(integrate(rule, 64 + closed, growth, 2.0) - exact);
        assert_near(log2(coarse / fine), orders[r], 0.05);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),          cmocka_unit_test(test_weights_and_ends),
        cmocka_unit_test(test_paper_rule),      cmocka_unit_test(test_gauss_table),
        cmocka_unit_test(test_gauss_exactness), cmocka_unit_test(test_orders),
    };
    return test_mpi_main(argc, argv, tests);
}
