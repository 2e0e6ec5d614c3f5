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
    for (int c = 0; c < q.points; c++)
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
                 {DPT_RULE_RADAU, 1, DPT_OK},
                 {DPT_RULE_RADAU, 65, DPT_ERR_USAGE},
                 {DPT_RULE_POLYNOMIAL, 10, DPT_OK},
                 {DPT_RULE_POLYNOMIAL, 11, DPT_ERR_USAGE},
                 {DPT_RULE_AUTO, 1, DPT_ERR_USAGE},
                 {DPT_RULE_AUTO, 5, DPT_OK},
                 {DPT_RULE_AUTO, 6, DPT_ERR_USAGE},
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
            assert_true(q.points == points || (r == DPT_RULE_AUTO && q.points < points));
            for (int c = 0; c < q.points; c++) {
                assert_true(q.node[c] >= 0.0 && q.node[c] <= 1.0);
                assert_true(q.weight[c] > 0.0 || r >= DPT_RULE_POLYNOMIAL);
                assert_true(c == 0 || q.node[c] > q.node[c - 1]);
                sum += q.weight[c];
            }
            assert_near(sum, 1.0, r > DPT_RULE_GAUSS ? 1e-13 : 1e-14);
            assert_int_equal(q.node[0] == 0.0, dpt_quadrature_has_start((dpt_rule)r));
            assert_int_equal(q.node[q.points - 1] == 1.0, dpt_quadrature_has_end((dpt_rule)r));
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

/* 2 and 3 points in closed form: nodes 0, 2/3 and 0, (6 -+ sqrt(6)) / 10, weights 1/4, 3/4 and 1/9, (16 +-
 * sqrt(6)) / 36. */
static void test_radau_table(void **state) {
    (void)state;
    static dpt_quadrature q;
    assert_int_equal(dpt_quadrature_create(DPT_RULE_RADAU, 1, &q), DPT_OK);
    assert_true(q.node[0] == 0.0 && q.weight[0] == 1.0);
    assert_int_equal(dpt_quadrature_create(DPT_RULE_RADAU, 2, &q), DPT_OK);
    assert_true(q.node[0] == 0.0 && q.weight[0] == 0.25);
    assert_near(q.node[1], 2.0 / 3.0, 1e-15);
    assert_near(q.weight[1], 0.75, 1e-15);
    assert_int_equal(dpt_quadrature_create(DPT_RULE_RADAU, 3, &q), DPT_OK);
    assert_near(q.weight[0], 1.0 / 9.0, 1e-15);
    for (int i = 1; i < 3; i++) {
        double root = i == 1 ? sqrt(6.0) : -sqrt(6.0);
        assert_near(q.node[i], (6.0 - root) / 10.0, 1e-15);
        assert_near(q.weight[i], (16.0 + root) / 36.0, 1e-15);
    }
}

/* Exact up to a degree, and not beyond. */
static void test_exactness(void **state) {
    (void)state;
    for (int points = 1; points <= 64; points++) {
        for (int degree = 0; degree <= 2 * points - 2; degree++)
            assert_near(integrate(DPT_RULE_RADAU, points, power, degree), 1.0 / (degree + 1.0),
                        3e-14);
        double exact = 1.0 / (2.0 * points);
        if (points <= 6)
            assert_true(fabs(integrate(DPT_RULE_RADAU, points, power, 2 * points - 1) - exact) >
                        1e-9);
    }
    for (int points = 1; points <= DPT_QUADRATURE_POLYNOMIAL_MAX; points++) {
        for (int degree = 0; degree < points; degree++)
            assert_near(integrate(DPT_RULE_POLYNOMIAL, points, power, degree), 1.0 / (degree + 1.0),
                        1e-13);
        double exact =
            1.0 / (points + 1.0); /* an even number of points misses, too: they are open at 1 */
        assert_true(fabs(integrate(DPT_RULE_POLYNOMIAL, points, power, points) - exact) > 1e-9);
    }
}

/* The quartic through the five points of the paper's rule: 95, -50, 600, -350 and 425 in 720. */
static void test_polynomial_table(void **state) {
    (void)state;
    static const double weights[] = {95.0, -50.0, 600.0, -350.0, 425.0};
    static dpt_quadrature q, left;
    assert_int_equal(dpt_quadrature_create(DPT_RULE_POLYNOMIAL, 5, &q), DPT_OK);
    assert_int_equal(dpt_quadrature_create(DPT_RULE_LEFT, 5, &left), DPT_OK);
    for (int c = 0; c < 5; c++) {
        assert_true(q.node[c] == left.node[c]);
        assert_near(q.weight[c], weights[c] / 720.0, 1e-14);
    }
}

/* The rules of auto lie in each other: 2 points are radau's, of degree 2, and stay among the 5, of degree 7; no
 * rule has more points than it is given. */
static void test_nested(void **state) {
    (void)state;
    static dpt_quadrature coarse, fine, radau;
    assert_int_equal(dpt_quadrature_create(DPT_RULE_AUTO, 3, &coarse), DPT_OK);
    assert_int_equal(dpt_quadrature_create(DPT_RULE_AUTO, 5, &fine), DPT_OK);
    assert_int_equal(dpt_quadrature_create(DPT_RULE_RADAU, 2, &radau), DPT_OK);
    assert_int_equal(coarse.points, 2);
    assert_int_equal(fine.points, 5);
    assert_true(dpt_quadrature_refined(0, 1) == 0 && dpt_quadrature_refined(1, 4) == 0);
    for (int c = 0; c < 2; c++) {
        assert_near(coarse.node[c], radau.node[c], 1e-15);
        assert_near(coarse.weight[c], radau.weight[c], 1e-15);
        assert_true(coarse.node[c] == fine.node[3 * c]);
    }
    for (int degree = 0; degree <= 7; degree++)
        assert_near(integrate(DPT_RULE_AUTO, 5, power, degree), 1.0 / (degree + 1.0), 1e-15);
    assert_true(fabs(integrate(DPT_RULE_AUTO, 5, power, 8) - 1.0 / 9.0) > 1e-6);
    assert_true(fabs(integrate(DPT_RULE_AUTO, 2, power, 3) - 0.25) > 1e-3);
}

static double error_bar(dpt_rule rule, int points, double (*f)(double, double), double k) {
    static dpt_quadrature q;
    double weights[DPT_QUADRATURE_MAX], sum = 0.0;
    assert_int_equal(dpt_quadrature_create(rule, points, &q), DPT_OK);
    dpt_quadrature_error_weights(&q, weights);
    for (int c = 0; c < q.points; c++)
        sum += weights[c] * f(q.node[c], k);
    return fabs(sum);
}

/* The bar is that of the low-order rules' error, and above that of the others on smooth slopes; it is there
 * where another rule can be made of the nodes. */
static void test_error_bars(void **state) {
    (void)state;
    static const struct {
        dpt_rule rule;
        int points;
        double least, most; /* bar over error */
    } cases[] = {{DPT_RULE_LEFT, 5, 0.95, 1.05},       {DPT_RULE_MIDPOINT, 5, 0.95, 1.05},
                 {DPT_RULE_TRAPEZOID, 5, 0.95, 1.05},  {DPT_RULE_SIMPSON, 5, 0.8, 1.2},
                 {DPT_RULE_TRAPEZOID, 2, 1.0, 12.0},   {DPT_RULE_SIMPSON, 3, 1.0, 200.0},
                 {DPT_RULE_MIDPOINT, 2, 1.0, 30.0},    {DPT_RULE_POLYNOMIAL, 3, 1.0, 6.0},
                 {DPT_RULE_POLYNOMIAL, 5, 1.0, 10.0},  {DPT_RULE_RADAU, 2, 1.0, 40.0},
                 {DPT_RULE_GAUSS, 2, 1.0, 2000.0},     {DPT_RULE_POLYNOMIAL, 2, 1.0, 40.0},
                 {DPT_RULE_POLYNOMIAL, 4, 1.0, 200.0}, {DPT_RULE_POLYNOMIAL, 6, 1.0, 1000.0},
                 {DPT_RULE_AUTO, 2, 1.0, 40.0},        {DPT_RULE_AUTO, 5, 1.0, 1e6}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (double k = 1.0; k < 2.5; k += 1.0) {
            double exact = (exp(k) - 1.0) / k;
            double error = fabs(integrate(cases[i].rule, cases[i].points, growth, k) - exact);
            double bar = error_bar(cases[i].rule, cases[i].points, growth, k) / error;
            print_message("%s %d: %g\n", dpt_quadrature_name(cases[i].rule), cases[i].points, bar);
            assert_true(bar >= cases[i].least && bar <= cases[i].most);
        }
    assert_near(error_bar(DPT_RULE_POLYNOMIAL, 5, power, 3.0), 0.0, 1e-13);
    assert_true(isnan(error_bar(DPT_RULE_LEFT, 1, growth, 1.0)));
    assert_true(isnan(error_bar(DPT_RULE_LEFT, 11, growth, 1.0)));
    assert_true(isfinite(error_bar(DPT_RULE_GAUSS, 64, growth, 1.0)));
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
        cmocka_unit_test(test_counts),           cmocka_unit_test(test_weights_and_ends),
        cmocka_unit_test(test_paper_rule),       cmocka_unit_test(test_gauss_table),
        cmocka_unit_test(test_gauss_exactness),  cmocka_unit_test(test_orders),
        cmocka_unit_test(test_radau_table),      cmocka_unit_test(test_exactness),
        cmocka_unit_test(test_polynomial_table), cmocka_unit_test(test_error_bars),
        cmocka_unit_test(test_nested),
    };
    return test_mpi_main(argc, argv, tests);
}
