/* ranks: 1 */
/* Weighted means and the values that stand for them in paired tests. */
#include "support/test_mpi.h"
#include "support/test_near.h"

#include "deltapath/base/rng.h"
#include "deltapath/path/verdict.h"
#include "deltapath/path/weighted.h"

enum { N = 6 };

static const double a[N] = {3.0, 1.5, -2.0, 0.25, 7.0, 4.0};
static const double b[N] = {1.0, 2.5, -1.0, 0.5, 5.5, 4.5};
static const double shares[N] = {0.1, 0.3, 0.05, 0.0, 0.25, 0.3};

/* As studies take samples with shares. @return how many values there are. */
static int64_t values_of(const double *w, int64_t n, const double *x, double *out) {
    dpt_weighted weighted;
    assert_int_equal(dpt_weighted_create(n, w, NULL, &weighted), DPT_OK);
    dpt_weighted_apply(&weighted, x, out);
    int64_t count = weighted.count;
    dpt_weighted_destroy(&weighted);
    return count;
}

static void test_mean(void **state) {
    (void)state;
    assert_near(dpt_weighted_mean(NULL, N, a), 13.75 / 6.0, 1e-15);
    assert_near(dpt_weighted_mean(shares, N, a), 0.3 + 0.45 - 0.1 + 1.75 + 1.2, 1e-15);
}

/* The plain mean is the weighted one; differences commute; even shares and none change nothing. */
static void test_values(void **state) {
    (void)state;
    double x[N], y[N], d[N], z[N];
    int c = (int)values_of(shares, N, a, x);
    assert_int_equal(c, N - 1); /* one has no weight */
    assert_int_equal(values_of(shares, N, b, y), c);
    assert_near(dpt_weighted_mean(NULL, c, x), dpt_weighted_mean(shares, N, a), 1e-14);
    for (int s = 0; s < N; s++)
        d[s] = a[s] - b[s];
    values_of(shares, N, d, d);
    for (int s = 0; s < c; s++)
        assert_near(x[s] - y[s], d[s], 1e-13);
    const double even[N] = {1 / 6.0, 1 / 6.0, 1 / 6.0, 1 / 6.0, 1 / 6.0, 1 / 6.0};
    assert_int_equal(values_of(even, N, a, z), N);
    for (int s = 0; s < N; s++)
        assert_near(z[s], a[s], 1e-14);
    assert_int_equal(values_of(NULL, N, a, z), N);
    for (int s = 0; s < N; s++)
        assert_true(z[s] == a[s]);
}

/* Weights 0 and 1: as without the samples of weight 0, whatever is in them; one left has no interval. */
static void test_zero_weights(void **state) {
    (void)state;
    const double half[4] = {0.5, 0.0, 0.0, 0.5}, one[4] = {0.0, 1.0, 0.0, 0.0};
    const double x[4] = {1.0, 100.0, -50.0, 4.0};
    double z[4];
    assert_int_equal(values_of(half, 4, x, z), 2);
    assert_true(z[0] == 1.0 && z[1] == 4.0);
    assert_int_equal(values_of(one, 4, x, z), 1);
    assert_true(z[0] == 100.0);
}

/* The standard error against leaving out one sample after the other. A constant has none, whatever
 * its weights. */
static void test_interval(void **state) {
    (void)state;
    double x[N], without[N], mean = 0.0, sum = 0.0;
    int c = 0;
    for (int s = 0; s < N; s++) {
        double total = 0.0, m = 0.0;
        for (int i = 0; i < N; i++) {
            m += i != s ? shares[i] * a[i] : 0.0;
            total += i != s ? shares[i] : 0.0;
        }
        if (shares[s] > 0.0)
            without[c++] = m / total;
    }
    for (int s = 0; s < c; s++)
        mean += without[s] / c;
    for (int s = 0; s < c; s++)
        sum += (without[s] - mean) * (without[s] - mean);
    assert_int_equal(values_of(shares, N, a, x), c);
    dpt_interval interval = dpt_interval_student(c, x, NULL, 0.95);
    assert_near(interval.mean, dpt_weighted_mean(shares, N, a), 1e-14);
    assert_near(interval.se, sqrt((c - 1.0) / c * sum), 1e-14);
    for (int s = 0; s < N; s++)
        x[s] = 2.0;
    values_of(shares, N, x, x);
    assert_near(dpt_interval_student(c, x, NULL, 0.95).se, 0.0, 1e-15);
}

/* A sample with most of the weight carries the mean with it; the interval still covers. */
static void test_coverage(void **state) {
    (void)state;
    enum { TRIALS = 2000, HEAVY = 10 };
    dpt_rng rng = dpt_rng_make(4, "coverage of weighted means", DPT_RNG_MAGNITUDE);
    double w[HEAVY], x[HEAVY];
    int covered = 0;
    for (int s = 0; s < HEAVY; s++)
        w[s] = (s == 0 ? 20.0 : 1.0) / (HEAVY + 19.0);
    for (int trial = 0; trial < TRIALS; trial++) {
        float drawn[HEAVY];
        dpt_rng_normal(rng, (int64_t)trial * HEAVY, HEAVY, drawn);
        for (int s = 0; s < HEAVY; s++)
            x[s] = drawn[s];
        values_of(w, HEAVY, x, x);
        dpt_interval interval = dpt_interval_student(HEAVY, x, NULL, 0.95);
        covered += interval.low <= 0.0 && interval.high >= 0.0;
    }
    print_message("# covered %.3f\n", (double)covered / TRIALS);
    assert_true(covered > 0.86 * TRIALS && covered < 0.97 * TRIALS);
}

/* Clusters: leaving out one after the other gives the standard error; those of one sample change nothing. */
static void test_clusters(void **state) {
    (void)state;
    const int64_t clusters[N] = {0, 1, 0, 2, 1, 1}, alone[N] = {3, 1, 2, 0, 4, 5};
    double x[N], plain[N];
    dpt_weighted w;
    assert_int_equal(dpt_weighted_create(N, shares, clusters, &w), DPT_OK);
    assert_int_equal(w.count, 2); /* that of the sample without weight has none */
    assert_near(w.effective, 1.0 / (0.15 * 0.15 + 0.85 * 0.85), 1e-12);
    dpt_weighted_apply(&w, a, x);
    assert_near(0.5 * (x[0] + x[1]), dpt_weighted_mean(shares, N, a), 1e-14);
    double first = (0.1 * 3.0 - 0.05 * 2.0) / 0.15;
    double second = (0.3 * 1.5 + 0.25 * 7.0 + 0.3 * 4.0) / 0.85;
    assert_near(dpt_interval_student(2, x, NULL, 0.95).se, 0.5 * fabs(first - second), 1e-13);
    dpt_weighted_destroy(&w);
    assert_int_equal(dpt_weighted_create(N, shares, alone, &w), DPT_OK);
    dpt_weighted_apply(&w, a, x);
    int c = (int)values_of(shares, N, a, plain);
    assert_int_equal(w.count, c);
    assert_near(dpt_interval_student(c, x, NULL, 0.95).se,
                dpt_interval_student(c, plain, NULL, 0.95).se, 1e-13);
    dpt_weighted_destroy(&w);
    assert_int_equal(dpt_weighted_create(N, NULL, NULL, &w), DPT_OK);
    assert_near(w.effective, N, 1e-12);
    dpt_weighted_apply(&w, a, x);
    for (int s = 0; s < N; s++)
        assert_true(x[s] == a[s]);
    dpt_weighted_destroy(&w);
}

/* Weights that lie on few samples: tests at 5 % err in about 5 % of the cases where nothing changes. With a degree
 * of freedom for each sample they would in 13 and 21 %. */
static void test_few_in_effect(void **state) {
    (void)state;
    enum { SAMPLES = 16, TRIALS = 4000 };
    const struct {
        int heavy;
        double light;
    } cases[] = {{2, 1e-300}, {3, 0.01}, {3, 0.1}, {16, 1.0}};
    dpt_verdict_options options = dpt_verdict_defaults();
    const dpt_rng rng = dpt_rng_make(7, "few", DPT_RNG_MAGNITUDE);
    for (uint64_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        double shares[SAMPLES], sum = 0.0, squares = 0.0, pseudo[SAMPLES];
        float z[SAMPLES];
        double draws[SAMPLES];
        const double zero[SAMPLES] = {0.0};
        for (int s = 0; s < SAMPLES; s++)
            sum += shares[s] = s < cases[c].heavy ? 1.0 : cases[c].light;
        for (int s = 0; s < SAMPLES; s++) {
            shares[s] /= sum;
            squares += shares[s] * shares[s];
        }
        options.paired.effective = 1.0 / squares;
        int alarms = 0;
        for (uint64_t t = 0; t < TRIALS; t++) {
            dpt_rng_normal(rng, (int64_t)(c * TRIALS + t) * SAMPLES, SAMPLES, z);
            for (int s = 0; s < SAMPLES; s++)
                draws[s] = z[s];
            int64_t n = values_of(shares, SAMPLES, draws, pseudo);
            const dpt_verdict_samples samples = {.n = n, .post = zero, .edit = pseudo};
            dpt_verdict v;
            assert_int_equal(dpt_verdict_judge(&samples, &options, &v), DPT_OK);
            alarms += v.change.low > 0.0 || v.change.high < 0.0;
            assert_true((v.p_change < 0.05) == (v.change.low > 0.0 || v.change.high < 0.0));
        }
        assert_near((double)alarms / TRIALS, 0.048, 0.02);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mean),          cmocka_unit_test(test_values),
        cmocka_unit_test(test_zero_weights),  cmocka_unit_test(test_interval),
        cmocka_unit_test(test_coverage),      cmocka_unit_test(test_clusters),
        cmocka_unit_test(test_few_in_effect),
    };
    return test_mpi_main(argc, argv, tests);
}
