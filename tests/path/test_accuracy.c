/* ranks: 1 */
/* Paired changes of the accuracy: closed forms, values computed elsewhere, exact levels, weights and clusters. */
#include "support/test_mpi.h"
#include "support/test_near.h"

#include "deltapath/base/rng.h"
#include "deltapath/path/accuracy.h"

#include <math.h>

static dpt_accuracy judged(double lost, double won, double n, double margin) {
    const dpt_accuracy_pairs pairs = {
        .lost = lost / n, .won = won / n, .samples = n, .df = INFINITY};
    return dpt_accuracy_judge(&pairs, margin, 0.95, 0.05);
}

/* No sample on which the models differ: both ends are z^2 / (n + z^2), and the test is a binomial one of none. */
static void test_none(void **state) {
    (void)state;
    const double z = 1.959963984540054, q = 1.6448536269514722;
    for (int n = 20; n <= 2000; n *= 10) {
        dpt_accuracy a = judged(0.0, 0.0, n, 0.02);
        assert_true(a.change == 0.0);
        assert_near(a.low, -z * z / (n + z * z), 1e-6);
        assert_near(a.high, z * z / (n + z * z), 1e-6);
        double score = n * 0.02 / 0.98;
        double least = fmax(q * q / score, log(0.05) / log(0.98) / n);
        assert_true(a.enough >= least * (1.0 - 1e-6) && a.enough <= 1.0011 * least);
        assert_near(a.p, fmax(0.5 * erfc(sqrt(score) * M_SQRT1_2), pow(0.98, n)), 1e-6);
    }
    assert_true(judged(0.0, 0.0, 149.0, 0.02).p < 0.05 && judged(0.0, 0.0, 148.0, 0.02).p > 0.05);
    assert_true(isnan(judged(1.0, 0.0, 50.0, NAN).p) && isnan(judged(1.0, 0.0, 50.0, NAN).enough));
    assert_true(isinf(judged(4.0, 0.0, 100.0, 0.02).enough)); /* 4 points fall: none would do */
}

/* tango() of numpy and scipy: the likelihood maximised under the constraint, ends by Brent's method. */
static void test_golden(void **state) {
    (void)state;
    static const struct {
        double lost, won, n, low, high, p;
    } cases[] = {{9, 3, 120, -0.1156577, 0.0076273, 0.5},
                 {4, 0, 200, -0.0502871, -0.0007778, 0.0257879},
                 {2, 12, 50, 0.0611124, 0.3447087, 0.0006947}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dpt_accuracy a = judged(cases[i].lost, cases[i].won, cases[i].n, 0.05);
        assert_near(a.change, (cases[i].won - cases[i].lost) / cases[i].n, 1e-15);
        assert_near(a.low, cases[i].low, 2e-7);
        assert_near(a.high, cases[i].high, 2e-7);
        assert_true(a.p >= cases[i].p - 2e-7 && a.p < cases[i].p + 0.15);
    }
    assert_near(judged(2, 12, 50, 0.05).p, pow(0.95, 50),
                1e-9); /* nothing falls in all: the exact one */
}

static double chance(int n, int lost, int won, double p_lost, double p_won) {
    double out =
        lgamma(n + 1.0) - lgamma(lost + 1.0) - lgamma(won + 1.0) - lgamma(n - lost - won + 1.0);
    out += lost * log(p_lost) + (n - lost - won) * log(1.0 - p_lost - p_won);
    return won == 0 ? exp(out) : p_won > 0.0 ? exp(out + won * log(p_won)) : 0.0;
}

/* How often a fall by the margin exactly is called less than it: all outcomes with their chances. */
static void test_level(void **state) {
    (void)state;
    static const int sizes[] = {133, 150, 237, 297};
    static const double wins[] = {0.0, 0.005, 0.02};
    double largest = 0.0;
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
        for (size_t w = 0; w < sizeof wins / sizeof *wins; w++) {
            double level = 0.0;
            for (int lost = 0; lost < 36; lost++) /* of which 12 are expected at most */
                for (int won = 0; won < 24; won++)
                    if (judged(lost, won, sizes[k], 0.02).p < 0.05)
                        level += chance(sizes[k], lost, won, wins[w] + 0.02, wins[w]);
            assert_true(level < 0.06);
            largest = fmax(largest, level);
        }
    print_message("# largest level %.4f\n", largest);
    assert_true(largest > 0.045);
}

enum { N = 120 };

static dpt_accuracy_pairs count(const double *shares, const int64_t *clusters,
                                const double *second) {
    double first[N];
    dpt_weighted weighted;
    dpt_accuracy_pairs out;
    for (int i = 0; i < N; i++)
        first[i] = 1.0;
    assert_int_equal(dpt_weighted_create(N, shares, clusters, &weighted), DPT_OK);
    assert_int_equal(dpt_accuracy_count(&weighted, NAN, first, second, &out), DPT_OK);
    dpt_weighted_destroy(&weighted);
    return out;
}

/* Samples in effect: by weights; by clusters between their number and that of the samples. */
static void test_counts(void **state) {
    (void)state;
    double shares[N], second[N];
    int64_t clusters[N], apart[N];
    for (int i = 0; i < N; i++) {
        shares[i] = (i < 60 ? 3.0 : 1.0) / 240.0;
        second[i] = i / 10 % 4 == 0 ? 0.0 : 1.0; /* clusters 0, 4 and 8 are lost whole */
        clusters[i] = i / 10;
        apart[i] = i % 12;
    }
    dpt_accuracy_pairs p = count(NULL, NULL, second);
    assert_near(p.lost, 0.25, 1e-12);
    assert_true(p.won == 0.0 && isinf(p.df));
    assert_near(p.samples, N, 1e-9);
    p = count(shares, NULL, second);
    assert_near(p.lost, (10 * 3 + 10 * 3 + 10) / 240.0, 1e-12);
    assert_near(p.samples, 240.0 * 240.0 / (60 * 9.0 + 60), 1e-9);
    p = count(NULL, clusters, second); /* all of a cluster alike */
    assert_near(p.samples, 12.0, 0.05);
    assert_near(p.df, 11.0, 1e-9);
    p = count(NULL, apart,
              second); /* spread over the clusters: no fewer than they are independent */
    assert_near(p.samples, N, 1e-9);
    for (int i = 0; i < N; i++)
        second[i] = 1.0;
    p = count(NULL, clusters,
              second); /* nothing differs, and nothing is known of how alike they are */
    assert_near(p.samples, 12.0, 1e-9);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_none),
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_level),
        cmocka_unit_test(test_counts),
    };
    return test_mpi_main(argc, argv, tests);
}
